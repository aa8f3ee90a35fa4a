"""The columns of a shard as they lie in its file: mapped, not read.

Everything else reads dumps by pread, where a file that shrinks is an error. Behind a mapping the
kernel has no way to say so: touching a page beyond the new end kills the process (SIGBUS). So this
is only for dumps that nobody writes to, and only on request.
"""

from __future__ import annotations

import json
import mmap
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pie_fast import _native
from pie_fast.errors import DumpError, PieFastError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pie_fast.dump import FeatureDump

#: numpy has no bfloat16: these are its bits
_DTYPES = {"I64": "<i8", "U32": "<u4", "U16": "<u2", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class MappedShard(NamedTuple):
    """Read-only views of a shard's file, which stays mapped as long as one of them lives.

    Attributes:
        first_prompt: Global index of the shard's first prompt.
        prompt_ptr: ``[n_prompts + 1]`` int64, starts at 0.
        feature: ``[nnz]`` uint32 global ids.
        position: ``[nnz]`` uint16 or uint32.
        activation: ``[nnz]`` float16 or float32, or uint16 where it is bfloat16 (its bits).
        attribution: ``[nnz]`` float32, or None in a dump without attributions.
    """

    first_prompt: int
    prompt_ptr: NDArray[np.int64]
    feature: NDArray[np.uint32]
    position: NDArray[Any]
    activation: NDArray[Any]
    attribution: NDArray[np.float32] | None


def mapped_shard(dump: FeatureDump, shard: int) -> MappedShard:
    """Map shard number ``shard`` of a dump."""
    shards = dump.manifest["shards"]
    if not 0 <= shard < len(shards):
        raise PieFastError(f"shard {shard} is outside [0, {len(shards)})")
    # Opening checks the layout of every shard again: offsets, types and lengths below are right.
    _native.Dump(dump.path)
    entry = shards[shard]
    path = dump.path / entry["file"]
    with path.open("rb") as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if n_bytes != entry["bytes"]:
            raise DumpError(f"{path}: has {n_bytes} bytes, the manifest says {entry['bytes']}")
        view = mmap.mmap(file.fileno(), n_bytes, access=mmap.ACCESS_READ)
    begin = 8 + int.from_bytes(view[:8], "little")
    header = json.loads(view[8:begin])

    def column(name: str) -> Any:
        tensor = header[name]
        start, stop = tensor["data_offsets"]
        dtype = np.dtype(_DTYPES[tensor["dtype"]])
        return np.frombuffer(view, dtype, (stop - start) // dtype.itemsize, begin + start)

    return MappedShard(
        first_prompt=entry["first_prompt"],
        prompt_ptr=column("prompt_ptr"),
        feature=column("feature"),
        position=column("position"),
        activation=column("activation"),
        attribution=column("attribution") if "attribution" in header else None,
    )
