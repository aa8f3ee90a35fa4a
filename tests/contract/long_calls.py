"""Calls of the native module that last for seconds, from inputs that cost next to nothing.

Arrays of zeros take no memory until they are written, files with holes no disk, and a shard can be
linked into a dump again and again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pie_fast import _native
from pie_fast.delphi import convert_delphi
from pie_fast.dump import DumpWriter, PromptTable
from pie_fast.dump_merge import merge_dumps

SIZES = {"U8": 1, "U16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "I64": 8}

#: Features of what is made of numbers, one each.
WIDE = 100_000_000

Call = Callable[[], object]


def holey(path: Path, shapes: dict[str, tuple[str, list[int]]], **data: np.ndarray) -> Path:
    """A safetensors file of zeros, most of them holes; `data` of the tensors that are not."""
    header, end = {}, 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + int(np.prod(shape)) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    header["__metadata__"] = {
        **{"direction": "noising", "estimator": "exact", "n_prompts": "1", "form": "signed"}
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, values in data.items():
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(values.tobytes())
        file.truncate(8 + len(text) + end)
    return path


def repeated_dump(folder: Path, n_shards: int = 200, n_prompts: int = 250) -> Path:
    """A dump of one shard of 2 million entries, as often as asked."""
    n_active, width = 8000, 4000
    feature = np.tile(np.arange(n_active, dtype=np.uint32), n_prompts)
    columns = {
        "prompt_ptr": np.arange(n_prompts + 1, dtype=np.int64) * n_active,
        "feature": feature,
        "position": np.zeros(len(feature), np.uint32),
        "activation": np.ones(len(feature), np.float32),
        "attribution": np.ones(len(feature), np.float32),
    }
    settings = manifest_of(width)
    with DumpWriter(folder, prompts=prompts(n_prompts), manifest=settings) as writer:
        writer.append(**columns)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["checksum"], manifest["prompts_hash"]  # both are changed here
    (shard,) = manifest["shards"]
    manifest["shards"] = [shard | {"first_prompt": i * n_prompts} for i in range(n_shards)]
    for i, one in enumerate(manifest["shards"][1:], start=1):
        one["file"] = f"shard-{i:05}.safetensors"
        os.link(folder / shard["file"], folder / one["file"])
    n = n_shards * n_prompts
    manifest |= {"n_prompts": n, "n_prompts_planned": n}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    # The prompts of all shards, from a dump that has no entries.
    with DumpWriter(folder / "other", prompts=prompts(n), manifest=settings) as writer:
        empty = {name: column[:0] for name, column in columns.items()}
        writer.append(**empty | {"prompt_ptr": np.zeros(n + 1, np.int64)})
    (folder / "other" / "prompts.safetensors").replace(folder / "prompts.safetensors")
    return folder


def wide_dump(folder: Path) -> Path:
    """A dump of many features and of no prompts."""
    DumpWriter(folder, prompts=prompts(0), manifest=manifest_of(WIDE // 2)).close()
    return folder


def manifest_of(width: int) -> dict[str, Any]:
    """Settings of a dump of two layers."""
    names = ("model", "clt", "behavior")
    settings: dict[str, Any] = {name: {"name": name, "hash": "a"} for name in names}
    sizes = {"n_layers": 2, "n_features": width}
    return settings | sizes | {"metric": "logit-diff", "baseline": "zero"}


def prompts(n: int) -> PromptTable:
    """One token each."""
    return PromptTable(
        tokens=np.zeros(n, np.int32),
        prompt_ptr=np.arange(n + 1, dtype=np.int64),
        answer=np.zeros(n, np.int32),
        foil=np.full(n, -1, np.int32),
        answer_position=np.zeros(n, np.int32),
        metric_clean=np.zeros(n),
        metric_baseline=np.zeros(n),
    )


def delphi_cache(folder: Path, n_layers: int = 30) -> Path:
    """One layer's file of 2 million rows, as often as there are layers."""
    n, width = 2_000_000, 1000
    ids = np.arange(n)
    rows = np.stack([ids // width // 8, ids // width % 8, ids % width], axis=1).astype(np.uint16)
    shapes = {"locations": ("U16", [n, 3]), "activations": ("BF16", [n])}
    folder.mkdir()
    # 1.0 in bf16, so that no row is a silent one.
    ones = np.full(n, 0x3F80, np.uint16)
    file = holey(folder / "layers.0.safetensors", shapes, locations=rows, activations=ones)
    for layer in range(1, n_layers):
        os.link(file, folder / f"layers.{layer}.safetensors")
    return folder


def of_arrays() -> dict[str, Call]:
    """Calls on arrays."""
    m, few = 30_000, 4000
    zeros = np.zeros((m, m), np.float32)
    scores, many = np.zeros(m), np.random.default_rng(0).normal(size=(2000, few))
    half = np.arange(m // 2, dtype=np.int64)
    long = np.zeros(500_000_000)
    joint = np.zeros(m * (m - 1) // 2, np.float32)
    empty = np.zeros((few, few), np.float32)
    n = 16_000
    rows = np.arange(n + 1, dtype=np.int64) * n
    csr = (rows, np.zeros(n * n, np.int32), np.zeros(n * n, np.float32))
    values, ptr = np.zeros((1_000_000, 1000), np.float32), np.arange(1001) * 1000
    collector, counted = _native.ContextCollector(1000), np.ones(len(values), bool)
    ids, sums = np.arange(WIDE, dtype=np.uint32), np.zeros(WIDE)
    fold, wide = _native.Fold("signed", 0, WIDE), _native.Fold("signed", 0, WIDE)
    return {
        "top_k": lambda: _native.top_k(long, 5, None, 1),
        "top_k_per_layer": lambda: _native.top_k_per_layer(long, 5, 1_000_000, 1),
        "check_synergy": lambda: _native.check_synergy(zeros),
        "greedy_select": lambda: _native.greedy_select(scores, zeros, m, "mean"),
        "explain_selection": lambda: _native.explain_selection(scores, zeros, m, "mean"),
        "greedy_select_many": lambda: _native.greedy_select_many(many, empty, 2000, "mean", 2),
        "improve_by_swaps": lambda: _native.improve_by_swaps(scores, zeros, half, "mean", 9),
        "top_synergies": lambda: _native.top_synergies(joint, scores, 20, False, True, 1),
        "unpack_synergy": lambda: _native.unpack_synergy(joint, m),
        "synergy_clusters": lambda: _native.synergy_clusters(zeros, 0.5),
        "synergy_clusters, sparse": lambda: _native.synergy_clusters(csr, 0.5),
        "ContextCollector.add": lambda: collector.add(0, ptr, values, counted, threads=1),
        "Fold": lambda: _native.Fold("signed", 0, WIDE),
        "Fold.add": lambda: fold.add(ids, sums),
        "Fold.finish": lambda: wide.finish(1),
    }


def of_files(folder: Path) -> dict[str, Call]:
    """Calls on tensors of files."""
    m, n = 30_000, 3000
    shapes = {"pool": ("U32", [m]), "values": ("F32", [m, m]), "done": ("U8", [m])}
    matrix = holey(folder / "synergy", shapes, pool=np.arange(m, dtype=np.uint32))
    rows = holey(folder / "rows", {"w": ("F32", [n, 4, 65536])})
    ids = np.arange(n)
    tall = holey(folder / "tall", {"w": ("BF16", [8000, 1, 4096])})
    layers, of_tall = np.zeros(8000, np.int64), np.arange(8000)
    tokens = holey(folder / "tokens", {"tokens": ("I64", [500_000, 1000])})
    # A header such as a stranger's file may have.
    header = holey(folder / "header", {f"tensor.{i}": ("F32", [0, 1]) for i in range(400_000)})
    return {
        "load_synergy": lambda: _native.load_synergy(matrix),
        "decoder_rows": lambda: _native.decoder_rows(rows, "w", ids, threads=1),
        "decoder_rows, header": lambda: _native.decoder_rows(header, "tensor.0", ids[:0]),
        "rows_at": lambda: _native.rows_at(rows, "w", "F32", [n - 1, 262144], 4096, ids[1:] - 1),
        "redundancy": lambda: _native.redundancy([(0, tall, "w")], 1, layers, of_tall, threads=1),
        "delphi_tokens": lambda: _native.delphi_tokens(tokens),
    }


def of_dumps(folder: Path) -> dict[str, Call]:
    """Calls on a dump of 400 million entries, and the merge of two."""
    path = repeated_dump(folder / "dump")
    dump, ids = _native.Dump(path), np.arange(8000)
    wide = _native.Dump(wide_dump(folder / "wide"))
    scores, there = np.zeros(WIDE), np.ones(WIDE, bool)
    return {
        "Dump.score": lambda: dump.score("mean_abs", threads=1),
        "Dump.top_k": lambda: dump.top_k(5, "signed", threads=1),
        "Dump.rank": lambda: wide.rank(5, scores, there, threads=1),
        "Dump.active_features": lambda: dump.active_features(threads=1),
        "Dump.entries": lambda: dump.entries(0, dump.n_prompts),
        "Dump.entries_of": lambda: dump.entries_of(ids),
        "Dump.verify": lambda: dump.verify(None),
        "Dump.summary": lambda: dump.summary(),
        "merge_dumps": lambda: merge_dumps([path, path], folder / "merged"),
    }


def of_caches(folder: Path) -> dict[str, Call]:
    """Calls on a Delphi cache of 60 million entries, and its conversion."""
    path = delphi_cache(folder / "cache")
    files = [(file, layer, 0, None) for layer, file in enumerate(sorted(path.iterdir()))]
    cache = _native.DelphiCache([*files] * 4)
    return {
        "DelphiCache.entries": lambda: _native.DelphiCache(files).entries(0, 256, 1000),
        "DelphiCache.width": lambda: cache.width(),
        "convert_delphi": lambda: convert_delphi(path, folder / "converted"),
    }


#: What cannot last, or stops for nothing, and why.
SHORT = {
    "Dump": "opens its files by `abandonable`, as decoder_rows does",
    "DelphiCache": "likewise",
    "Dump.block_sums": "the pass of Dump.score over a few blocks, watched as it is",
    "ContextCollector": "makes empty arrays",
    "ContextCollector.merge": "adds what is in memory, all of it or none",
    "ContextCollector.state": "copies what is in memory",
    "ContextCollector.from_state": "copies what is in memory",
}


def groups(folder: Path) -> dict[str, dict[str, Call]]:
    """The calls by what they are made from."""
    files, dumps, caches = of_files(folder), of_dumps(folder), of_caches(folder)
    return {"arrays": of_arrays(), "files": files, "dumps": dumps, "caches": caches}
