"""Small dumps for the tests of this folder."""

from __future__ import annotations

import hashlib
import itertools
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.dump import DumpWriter, PromptTable

N_LAYERS, N_FEATURES = 3, 40
MANIFEST: dict[str, Any] = {
    "n_layers": N_LAYERS,
    "n_features": N_FEATURES,
    "model": {"name": "tiny", "hash": "a"},
    "clt": {"name": "tiny-clt", "hash": "b"},
    "behavior": {"name": "ioi", "hash": "c"},
    "metric": "logit-diff",
    "baseline": "zero",
}


def make_prompts(n: int, length: int = 9, seed: int = 0) -> PromptTable:
    rng = np.random.default_rng(seed)
    return PromptTable(
        tokens=rng.integers(0, 50, n * length, dtype=np.int32),
        prompt_ptr=np.arange(n + 1, dtype=np.int64) * length,
        answer=rng.integers(0, 50, n, dtype=np.int32),
        foil=np.full(n, -1, np.int32),
        answer_position=np.full(n, length - 1, np.int32),
        metric_clean=rng.normal(size=n),
        metric_baseline=rng.normal(size=n),
    )


def make_entries(
    rng: np.random.Generator, n: int, *, length: int = 9, density: float = 0.05, n_ids: int = 120
) -> dict[str, NDArray[Any]]:
    """CSR columns of ``n`` prompts with about ``density`` of all (feature, position) pairs."""
    columns: dict[str, list[Any]] = {"feature": [], "position": []}
    ptr = [0]
    for _ in range(n):
        pairs = np.flatnonzero(rng.random(n_ids * length) < density)
        columns["feature"].append((pairs // length).astype(np.uint32))
        columns["position"].append((pairs % length).astype(np.uint32))
        ptr.append(ptr[-1] + len(pairs))
    scale = np.exp(rng.normal(size=ptr[-1]) * 6)
    activation = np.abs(rng.normal(size=ptr[-1])) * (rng.random(ptr[-1]) > 0.1)
    return {
        "prompt_ptr": np.array(ptr, np.int64),
        "feature": np.concatenate([np.zeros(0, np.uint32), *columns["feature"]]),
        "position": np.concatenate([np.zeros(0, np.uint32), *columns["position"]]),
        "activation": activation.astype(np.float32),
        "attribution": (rng.normal(size=ptr[-1]) * scale).astype(np.float32),
    }


def cut(columns: dict[str, Any], begin: int, end: int) -> dict[str, Any]:
    """The prompts ``begin .. end`` of CSR columns."""
    ptr = columns["prompt_ptr"][begin : end + 1]
    part = {
        name: None if values is None else values[ptr[0] : ptr[-1]]
        for name, values in columns.items()
        if name != "prompt_ptr"
    }
    return {"prompt_ptr": ptr - ptr[0], **part}


def write_dump(
    path: Path, columns: dict[str, Any], *, batch: int = 7, length: int = 9, **options: Any
) -> Path:
    """A dump of ``columns``, appended ``batch`` prompts at a time."""
    n = len(columns["prompt_ptr"]) - 1
    manifest = {**MANIFEST, **options.pop("manifest", {})}
    prompts = make_prompts(n, length)
    with DumpWriter(path, prompts=prompts, manifest=manifest, **options) as writer:
        for begin in range(writer.next_prompt, n, batch):
            writer.append(**cut(columns, begin, min(begin + batch, n)))
    return path


def small_dump(path: Path, n: int = 20, seed: int = 0, **options: Any) -> Path:
    return write_dump(path, make_entries(np.random.default_rng(seed), n), **options)


def recut(source: Path, target: Path, cuts: list[int]) -> Path:
    """The same dump with shards cut at other prompts."""
    from pie_fast import twin_dump
    from pie_fast.storage import write_safetensors

    manifest = unsealed_manifest(source)
    prompts = [columns for _, columns in twin_dump.prompts_of(source)]
    target.mkdir()
    (target / "prompts.safetensors").write_bytes((source / "prompts.safetensors").read_bytes())
    edges = [0, *cuts, len(prompts)]
    manifest["shards"] = []
    for i, (begin, end) in enumerate(itertools.pairwise(edges)):
        part = prompts[begin:end]
        ptr = np.cumsum([0, *(len(p["feature"]) for p in part)]).astype(np.int64)
        names = list(prompts[0]) if prompts else []
        tensors = {
            name: np.concatenate([prompts[0][name][:0], *(p[name] for p in part)]) for name in names
        }
        name = f"part-{i}.safetensors"
        written = write_safetensors(target / name, {"prompt_ptr": ptr, **tensors})
        manifest["shards"].append(
            {
                "file": name,
                "first_prompt": begin,
                "n_prompts": end - begin,
                "n_active": int(ptr[-1]),
                "bytes": written.bytes,
                "hash": written.hash,
                "crc32": written.crc32,
            }
        )
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def unsealed_manifest(path: Path) -> dict[str, Any]:
    """``manifest.json`` without its checksum, to be changed."""
    manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    manifest.pop("checksum", None)
    return manifest


def edit_manifest(path: Path, **changes: Any) -> None:
    """Overwrite keys of ``manifest.json``; a value of ``...`` removes the key."""
    file = path / "manifest.json"
    manifest = unsealed_manifest(path)
    for key, value in changes.items():
        if value is ...:
            del manifest[key]
        else:
            manifest[key] = value
    file.write_text(json.dumps(manifest))


def replace_shard(path: Path, data: bytes, i: int = 0) -> None:
    """Overwrite a shard and make the manifest agree about its bytes and hash."""
    file = path / "manifest.json"
    manifest = unsealed_manifest(path)
    shard = manifest["shards"][i]
    (path / shard["file"]).write_bytes(data)
    shard["bytes"] = len(data)
    shard["hash"] = hashlib.sha256(data).hexdigest()
    shard["crc32"] = f"{zlib.crc32(data):08x}"
    file.write_text(json.dumps(manifest))
