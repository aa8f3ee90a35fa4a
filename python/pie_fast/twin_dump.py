"""The numpy twins of the native functions over dumps and decoder files, with no cleverness.

Same results, byte for byte; no defence against broken files. The oracle of the tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I64": np.int64,
    "I32": np.int32,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
}


def read_tensors(path: str | Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a safetensors file; BF16 becomes float32."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(data[start + begin : start + end], _DTYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def prompts_of(path: str | Path) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """Each prompt's global index and its columns, in order."""
    manifest = json.loads((Path(path) / "manifest.json").read_text())
    for shard in sorted(manifest["shards"], key=lambda shard: int(shard["first_prompt"])):
        columns = read_tensors(Path(path) / shard["file"])
        ptr = columns.pop("prompt_ptr")
        for i in range(shard["n_prompts"]):
            cut = slice(ptr[i], ptr[i + 1])
            yield shard["first_prompt"] + i, {name: col[cut] for name, col in columns.items()}


def score(path: str | Path, rank_by: str = "mean_abs") -> NDArray[np.float64]:
    """As :meth:`pie_fast.FeatureDump.score`."""
    totals, _, n_prompts = _totals(path, rank_by)
    return _finish(totals, rank_by, n_prompts)


def top_k(
    path: str | Path, k: int, rank_by: str = "mean_abs"
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """As :meth:`pie_fast.FeatureDump.top_k`."""
    totals, has_entry, n_prompts = _totals(path, rank_by)
    ids = np.flatnonzero(has_entry)
    if k < 0:
        raise BudgetError(f"budget {k} must be at least 0")
    if k > len(ids):
        raise BudgetError(f"budget {k} exceeds the {len(ids)} active features")
    scores = _finish(totals, rank_by, n_prompts)[ids]
    best = np.lexsort((ids, -scores))[:k]
    return ids[best], scores[best]


def _totals(path: str | Path, rank_by: str) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """Sums over prompts, which features have entries, and the number of prompts."""
    manifest = json.loads((Path(path) / "manifest.json").read_text())
    n_ids = manifest["n_layers"] * manifest["n_features"]
    join = np.maximum if rank_by == "max" else np.add
    totals, block, has_entry = np.zeros(n_ids), np.zeros(n_ids), np.zeros(n_ids, bool)
    n_prompts = 0
    for prompt, columns in prompts_of(path):
        ids, numbers = _of_prompt(columns, rank_by)
        block[ids] = join(block[ids], numbers)
        has_entry[ids] = True
        n_prompts = prompt + 1
        if n_prompts % 256 == 0:
            totals, block = join(totals, block), np.zeros(n_ids)
    return join(totals, block), has_entry, n_prompts


def _of_prompt(
    columns: dict[str, NDArray[Any]], rank_by: str
) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    """One number per feature of a prompt, its entries added in file order."""
    ids, place = np.unique(columns["feature"], return_inverse=True)
    activation = columns["activation"].astype(np.float64)
    numbers = np.zeros(len(ids))
    if rank_by == "max":
        np.maximum.at(numbers, place, np.abs(activation))
    elif rank_by == "count":
        numbers[place[activation != 0]] = 1.0
    elif rank_by == "magnitude":
        np.add.at(numbers, place, np.abs(activation))
    else:
        np.add.at(numbers, place, columns["attribution"].astype(np.float64))
    return ids, np.abs(numbers) if rank_by == "mean_abs" else numbers


def _finish(totals: NDArray[np.float64], rank_by: str, n_prompts: int) -> NDArray[np.float64]:
    if rank_by in ("max", "count"):
        return totals
    means = totals / max(n_prompts, 1)
    return np.abs(means) if rank_by == "abs" else means + 0.0


def decoder_rows(path: str | Path, tensor: str, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """As :func:`pie_fast.decoder_rows`."""
    return read_tensors(path)[tensor].astype(np.float32)[ids]


def redundancy(
    decoders: list[tuple[int, Path, str]],
    n_layers: int,
    layers: NDArray[np.int64],
    rows: NDArray[np.int64],
    *,
    weights: list[float] | None = None,
) -> NDArray[np.float64]:
    """As ``_native.redundancy``, in float64: equal within rounding, not byte for byte."""
    w = np.ones(n_layers) if weights is None else np.asarray(weights, float)
    tensors = {layer: read_tensors(path)[name] for layer, path, name in decoders}
    d_model = next(iter(tensors.values())).shape[2] if tensors else 0
    vectors = np.zeros((len(rows), n_layers, d_model))
    for i, (layer, row) in enumerate(zip(layers, rows, strict=True)):
        vectors[i, layer:] = tensors[int(layer)][row] * np.sqrt(w[layer:, None])
    flat = vectors.reshape(len(rows), n_layers * d_model)
    norms = np.linalg.norm(flat, axis=1)
    flat = flat / np.where(norms > 0, norms, 1)[:, None]
    return np.clip(flat @ flat.T, -1, 1)
