"""Dumps for the benchmarks: Zipf-like feature ids, ascending within a prompt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pie_fast.dump import DumpWriter, PromptTable

PER_PROMPT = 2000
LENGTH = 64


def zipf_dump(path: Path, n_entries: int, n_ids: int, *, n_layers: int = 26) -> Path:
    """``n_entries`` entries, 2,000 a prompt, over ``n_ids`` features; kept if it is there."""
    n_prompts = n_entries // PER_PROMPT
    if (path / "manifest.json").exists():
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest["n_prompts"] == n_prompts:
            return path
    rng = np.random.default_rng(0)
    spread = rng.permutation(n_ids).astype(np.uint32)
    zeros = np.zeros(n_prompts)
    prompts = PromptTable(
        np.zeros(n_prompts * LENGTH, np.int32),
        np.arange(n_prompts + 1) * LENGTH,
        zeros.astype(np.int32),
        zeros.astype(np.int32),
        zeros.astype(np.int32),
        zeros,
        zeros,
    )
    manifest = {"n_layers": n_layers, "n_features": n_ids // n_layers}
    with DumpWriter(path, prompts=prompts, manifest=manifest, force=True) as writer:
        while writer.n_appended < n_prompts:
            _append(writer, rng, spread, min(1024, n_prompts - writer.n_appended))
    return path


def _append(
    writer: DumpWriter, rng: np.random.Generator, spread: np.ndarray, n_prompts: int
) -> None:
    shape = (n_prompts, PER_PROMPT)
    # Ids by a power law over ranks: a few features fire everywhere, most seldom.
    ranks = (len(spread) * rng.random(shape) ** 3).astype(np.int64)
    ids = np.sort(spread[ranks], axis=1)
    # The j-th entry of a feature in a prompt is at position j; those that find no place go.
    same = np.concatenate([np.zeros((n_prompts, 1), bool), ids[:, 1:] == ids[:, :-1]], axis=1)
    at = np.arange(PER_PROMPT)
    position = at - np.maximum.accumulate(np.where(same, 0, at), axis=1)
    keep = position < LENGTH
    n = int(keep.sum())
    values = rng.normal(size=n).astype(np.float32)
    ptr = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
    writer.append(ptr, ids[keep], position[keep], np.abs(values), values)
