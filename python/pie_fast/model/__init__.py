"""The replacement model and everything that runs it."""

from pie_fast.model.batch import Batch, batches, make_batch
from pie_fast.model.host import Host
from pie_fast.model.loading import load_host, resolve_device
from pie_fast.model.means import MeanOf, MeanPart, Means
from pie_fast.model.memory import is_out_of_memory, release_memory
from pie_fast.model.pool import Pool
from pie_fast.model.replacement import Replacer
from pie_fast.model.settings import Switches
from pie_fast.model.sites import other_sites
from pie_fast.model.state import Prefix, Run, Setup
from pie_fast.model.sweep import sweep

__all__ = [
    "Batch",
    "Host",
    "MeanOf",
    "MeanPart",
    "Means",
    "Pool",
    "Prefix",
    "Replacer",
    "Run",
    "Setup",
    "Switches",
    "batches",
    "is_out_of_memory",
    "load_host",
    "make_batch",
    "other_sites",
    "release_memory",
    "resolve_device",
    "sweep",
]
