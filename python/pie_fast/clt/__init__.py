"""Cross-layer transcoders: one contract, and readers of the formats that hold them."""

from pie_fast.clt.contract import Clt, Columns
from pie_fast.clt.loading import load_clt

__all__ = ["Clt", "Columns", "load_clt"]
