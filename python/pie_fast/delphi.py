"""Delphi latent caches as feature dumps.

A cache holds, per module, which latents were active where, split by latent range into files
``{start}_{end}.safetensors`` (``end`` inclusive), or as one ``{module}.safetensors``. It has no
attributions: of the resulting dump "magnitude", "max" and "count" can be asked.
"""

from __future__ import annotations

import itertools
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pie_fast import _native
from pie_fast.dump import FeatureDump, Progress, open_dump
from pie_fast.dump_prompts import PromptTable
from pie_fast.dump_writer import BLOCK, DumpWriter
from pie_fast.errors import DumpError, PieFastError
from pie_fast.untrusted import check_regular, load_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPLIT = re.compile(r"(\d+)_(\d+)\.safetensors")
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|blocks|h)\.(\d+)(?:\.|$)")

#: A share of active latents above this is rather a cache of something else (Delphi issue 131).
_DENSE = 0.05


#: Feature ids are 32 bits, so no layer or latent is above.
_MOST_LATENTS = 1 << 32

#: Each takes some 40 bytes of memory, whether it has entries or not.
_MOST_SEQUENCES = 1 << 24


class _File(NamedTuple):
    path: Path
    layer: int
    start: int
    last: int | None


def convert_delphi(
    source: str | Path,
    target: str | Path,
    *,
    layer: int | None = None,
    n_layers: int | None = None,
    n_features: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> FeatureDump:
    """Make a feature dump of a Delphi latent cache; each sequence becomes a prompt.

    Args:
        source: A module's folder, a ``{module}.safetensors``, or a folder of several of either,
            which become the layers of one dump.
        target: The folder of the dump.
        layer: Of a single module whose name does not say it (``layers.5.mlp``, ``h.3.mlp``).
        n_layers: Layers of the dump; by default up to the last module's.
        n_features: Features per layer; by default the width that the file names tell.
        force: Replace what is there when the dump is complete.
        progress: Told how many of how many sequences are done.

    Returns:
        The dump, opened.

    Raises:
        DumpError: The cache is not what its format promises; names file and row.
        PieFastError: A layer is not known, or is there twice.
        OutputExistsError: The folder exists and ``force`` was not given.
    """
    source = Path(source)
    files = _files(source, layer)
    cache = _native.DelphiCache([(f.path, f.layer, f.start, f.last) for f in files])
    width = n_features if n_features is not None else max(1, cache.width())
    prompts = _prompts(files[0].path, cache.n_sequences)
    writer = DumpWriter(
        target,
        prompts=prompts,
        manifest={
            "n_layers": n_layers if n_layers is not None else max(f.layer for f in files) + 1,
            "n_features": width,
            **_settings(source, files),
        },
        force=force,
        activation_dtype="F32",
    )
    try:
        found, negative = _copy(source, cache, writer, prompts.n_prompts, width, progress)
        if found != cache.n_entries:
            # Bisection met some rows and not others.
            raise DumpError(f"{source}: locations: sequence numbers do not ascend")
        writer.close()
    except BaseException:
        writer.discard()
        raise
    dump = open_dump(target)
    _warn_if_odd(source, dump, len({f.layer for f in files}), negative)
    return dump


def _copy(
    source: Path,
    cache: _native.DelphiCache,
    writer: DumpWriter,
    n_prompts: int,
    width: int,
    progress: Progress | None,
) -> tuple[int, int]:
    """Append every sequence; how many entries there were, and how many negative ones."""
    found = negative = 0
    for first in range(0, n_prompts, BLOCK):
        n = min(BLOCK, n_prompts - first)
        entries = cache.entries(first, n, width)
        found += len(entries[1])
        negative += int((entries[3] < 0).sum())
        try:
            writer.append(*entries)
        except PieFastError as error:
            raise DumpError(f"{source}: locations: {error}") from error
        if progress is not None:
            progress(first + n, n_prompts)
    return found, negative


def _files(source: Path, layer: int | None) -> list[_File]:
    """Every file of the cache with its layer and range."""
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist")
    modules = [source] if source.is_file() or _splits(source) else _modules(source)
    if not modules:
        raise DumpError(
            f"{source}: no latent cache: neither START_END.safetensors nor folders of them"
        )
    if layer is not None and len(modules) > 1:
        raise PieFastError(f"layer {layer} was given for {len(modules)} modules")
    files: list[_File] = []
    seen: dict[int, Path] = {}
    for module in modules:
        number = layer if layer is not None else _layer_of(module)
        if number in seen:
            raise PieFastError(f"{module} and {seen[number]} are both layer {number}")
        seen[number] = module
        if module.is_file():
            files.append(_File(module, number, 0, None))
        else:
            files += [_File(p, number, start, last) for start, last, p in _splits(module)]
    return files


def _splits(folder: Path) -> list[tuple[int, int, Path]]:
    """(start, last, path) by number: as text, 104856_ would come before 26214_."""
    matches = ((path, _SPLIT.fullmatch(path.name)) for path in folder.iterdir())
    splits = sorted((int(m[1]), int(m[2]), path) for path, m in matches if m is not None)
    for start, last, path in splits:
        if not start <= last < _MOST_LATENTS:
            raise DumpError(f"{path}: file: {start}_{last} is not a range below {_MOST_LATENTS}")
    for (_, last, path), (start, _, after) in itertools.pairwise(splits):
        if start <= last:
            raise DumpError(f"{after}: file: its latents overlap those of {path.name}")
    return splits


def _modules(folder: Path) -> list[Path]:
    """Folders with splits, and single files, of a run's ``latents`` folder."""
    entries = sorted(folder.iterdir())
    return [
        entry
        for entry in entries
        if (entry.is_dir() and _splits(entry)) or entry.suffix == ".safetensors"
    ]


def _layer_of(module: Path) -> int:
    found = _LAYER.search(module.name.removesuffix(".safetensors"))
    if found is None:
        raise PieFastError(f"{module}: its name does not tell the layer: give one")
    layer = int(found[1])
    if layer >= _MOST_LATENTS:
        raise DumpError(f"{module}: file: layer {layer} is not below {_MOST_LATENTS}")
    return layer


def _prompts(path: Path, n_sequences: int) -> PromptTable:
    """One row per sequence; tokens where the cache has them."""
    found = _native.delphi_tokens(path)
    if found is None:
        if n_sequences > _MOST_SEQUENCES:
            raise DumpError(
                f"{path}: locations: sequence {n_sequences - 1} is not below {_MOST_SEQUENCES}, "
                "the most of a cache without tokens"
            )
        n, width = n_sequences, 0
        tokens = np.zeros(0, np.int64)
    else:
        tokens, width = found
        n = len(tokens) // max(width, 1)
        if n < n_sequences:
            raise DumpError(f"{path}: tokens: has {n} sequences, locations name {n_sequences}")
    none = np.full(n, -1, np.int32)
    return PromptTable(
        tokens=_token_ids(path, tokens),
        prompt_ptr=np.arange(n + 1, dtype=np.int64) * width,
        answer=none,
        foil=none,
        answer_position=np.full(n, max(width - 1, 0), np.int32),
        metric_clean=np.zeros(n),
        metric_baseline=np.zeros(n),
    )


def _token_ids(path: Path, tokens: NDArray[np.int64]) -> NDArray[np.int32]:
    if len(tokens) and (tokens.min() < 0 or tokens.max() >= 1 << 31):
        raise DumpError(f"{path}: tokens: has ids outside [0, 2**31)")
    return tokens.astype(np.int32)


def _settings(source: Path, files: list[_File]) -> dict[str, Any]:
    """What the cache says about itself."""
    config: dict[str, Any] = {}
    path = files[0].path.parent / "config.json"
    if path.exists():
        check_regular(path)
        try:
            config = dict(load_json(path.read_bytes(), finite=False))
        except (ValueError, TypeError) as error:
            raise DumpError(f"{path}: file: is not a JSON object: {error}") from error
    return {
        "model": config.get("model_name"),
        "clt": {"modules": sorted({_module_of(f) for f in files})},
        "behavior": {"name": f"delphi:{source.name}", "cache": config},
        "metric": None,
        "baseline": "zero",
        "threshold": 1e-5,
    }


def _module_of(file: _File) -> str:
    return file.path.stem if file.last is None else file.path.parent.name


def _warn_if_odd(source: Path, dump: FeatureDump, n_modules: int, negative: int) -> None:
    tokens = len(dump.prompts.tokens)
    share = dump.n_active / (tokens * dump.n_features * n_modules) if tokens else 0.0
    if share > _DENSE:
        warnings.warn(
            f"{source}: {share:.0%} of latents are active, as if something else was cached",
            stacklevel=3,
        )
    if negative:
        warnings.warn(f"{source}: {negative} activations are negative", stacklevel=3)
