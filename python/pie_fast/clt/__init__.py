"""Transcoders: one contract, and readers of the formats that hold them."""

from pie_fast.clt.contract import Clt
from pie_fast.clt.encoder import Columns, Encoder
from pie_fast.clt.live import clt_of
from pie_fast.clt.loading import load_clt

__all__ = ["Clt", "Columns", "Encoder", "clt_of", "load_clt"]
