"""Feature dumps: which features were active where, and what each contributed to a metric.

A dump (DESIGN of the format: ``docs/dump.md``) is a folder of safetensors shards and one
``manifest.json``. :class:`DumpWriter` writes it, :func:`open_dump` reads it; scores and rankings
are one pass over the shards, in Rust, without loading them:

    ``s[p, f]`` = sum over the entries of prompt p and feature f, in file order;
    ``B[b, f]`` = sum of s (or ``|s|``) over the 256 prompts of block b, in order;
    ``S[f]``    = sum of the blocks, in order; divided by the number of prompts.

That order is fixed by the dump alone: any number of threads and any cut into shards gives the
same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np

from pie_fast import _native
from pie_fast.errors import DumpError
from pie_fast.whole import threads_of, whole_number, whole_numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from pie_fast.dump_mapped import MappedShard
    from pie_fast.dump_prompts import PromptTable
    from pie_fast.dump_writer import DumpWriter

__all__ = [
    "DumpWriter",
    "Entries",
    "FeatureDump",
    "FeatureEntries",
    "PromptTable",
    "Summary",
    "open_dump",
]


def __getattr__(name: str) -> Any:
    """What writing needs: `pie-fast inspect` and other readers start sooner without it."""
    if name == "DumpWriter":
        from pie_fast.dump_writer import DumpWriter

        return DumpWriter
    if name == "PromptTable":
        from pie_fast.dump_prompts import PromptTable

        return PromptTable
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


#: Told ``(entries done, entries in all)`` now and then.
Progress = Callable[[int, int], object]


class RankingFilters(TypedDict):
    """What a ranking leaves out: see :meth:`FeatureDump.top_k`."""

    layers: list[int] | None
    features: NDArray[np.int64] | None
    min_prompts: int | None
    per_layer: bool


class Entries(NamedTuple):
    """The entries of a range of prompts, CSR over the prompts.

    Attributes:
        prompt_ptr: ``[n_prompts + 1]`` int64, starts at 0.
        feature: ``[nnz]`` uint32 global ids; (feature, position) ascends within a prompt.
        position: ``[nnz]`` uint32.
        activation: ``[nnz]`` float32.
        attribution: ``[nnz]`` float32, or None in a dump without attributions.
    """

    prompt_ptr: NDArray[np.int64]
    feature: NDArray[np.uint32]
    position: NDArray[np.uint32]
    activation: NDArray[np.float32]
    attribution: NDArray[np.float32] | None


class FeatureEntries(NamedTuple):
    """The entries of a few features, in the order of the dump.

    Attributes:
        prompt: ``[nnz]`` int64 prompt indices.
        position: ``[nnz]`` uint32.
        feature: ``[nnz]`` uint32 global ids.
        activation: ``[nnz]`` float32.
        attribution: ``[nnz]`` float32, or None in a dump without attributions.
    """

    prompt: NDArray[np.int64]
    position: NDArray[np.uint32]
    feature: NDArray[np.uint32]
    activation: NDArray[np.float32]
    attribution: NDArray[np.float32] | None


class Summary(NamedTuple):
    """What one pass over all entries finds.

    Attributes:
        layers: Entries per layer that has any.
        n_zero: Entries whose activation is 0 (their baseline is not).
        n_negative: Entries with a negative activation.
        exponents: Entries by ``floor(log2(abs(activation)))``, of activations other than 0.
        activation_range: Smallest and largest activation, None without entries.
        last_position: Largest position, None without entries.
    """

    layers: dict[int, int]
    n_zero: int
    n_negative: int
    exponents: dict[int, int]
    activation_range: tuple[float, float] | None
    last_position: int | None


class FeatureDump:
    """An opened feature dump; get one from :func:`open_dump`.

    Attributes:
        path: Its folder; of a dump at a URL that of its copy here.
        source: The folder or the URL.
        manifest: ``manifest.json`` as a dict.
    """

    def __init__(self, path: str | Path, *, prompts: tuple[int, int] | None = None) -> None:
        self.path = Path(path)
        self.source = str(path)
        self._native = _native.Dump(self.path, prompts=prompts)
        self.manifest: dict[str, Any] = json.loads((self.path / "manifest.json").read_bytes())
        self._n_planned = _planned(self.path, self.manifest)

    @property
    def n_layers(self) -> int:
        """Layers of the CLT."""
        return self._native.n_layers

    @property
    def n_features(self) -> int:
        """Features per layer; the global id is ``layer * n_features + index``."""
        return self._native.n_features

    @property
    def n_prompts(self) -> int:
        """Prompts in the dump."""
        return self._native.n_prompts

    @property
    def n_active(self) -> int:
        """Entries in the dump."""
        return self._native.n_active

    @property
    def has_attribution(self) -> bool:
        """Whether the entries have attributions."""
        return self._native.has_attribution

    @property
    def complete(self) -> bool:
        """Whether the dump has every prompt that its capture was going to write."""
        return self._n_planned is None or self.n_prompts >= self._n_planned

    @property
    def prompts(self) -> PromptTable:
        """The prompts, read when asked for.

        Raises:
            DumpError: ``prompts.safetensors`` is not what the format promises.
        """
        from pie_fast.dump_prompts import PromptTable

        path = self.path / "prompts.safetensors"
        table = PromptTable.load(path)
        if table.n_prompts < self.n_prompts or (self.complete and table.n_prompts > self.n_prompts):
            raise DumpError(
                f"{path}: prompt_ptr: {table.n_prompts} prompts, the manifest says {self.n_prompts}"
            )
        promised = self.manifest.get("prompts_hash")
        if promised is not None and table.digest(self.n_prompts).hex != promised:
            raise DumpError(f"{path}: is not what the manifest has the hash of (prompts_hash)")
        return table.first(self.n_prompts)

    def score(
        self,
        rank_by: str = "mean_abs",
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        """One score per feature, from one pass over the dump.

        Args:
            rank_by: "signed": mean over prompts of the sum over positions of the attribution;
                "abs": its absolute value; "mean_abs": mean over prompts of |sum over positions|;
                "magnitude": mean over prompts of the sum of |activation|; "max": largest
                |activation|; "count": number of prompts with an activation other than 0.
            threads: How many; the scores do not depend on it.
            progress: Called now and then.

        Returns:
            ``[n_layers * n_features]`` float64 by global id, 0.0 for features without entries.

        Raises:
            PieFastError: An unknown ``rank_by``, or attributions of a dump that has none.
            DumpError: A shard is not what the format promises.
        """
        return self._native.score(rank_by, threads=threads_of(threads), progress=progress)

    def top_k(
        self,
        k: int,
        rank_by: str = "mean_abs",
        *,
        threads: int | None = None,
        layers: Sequence[int] | None = None,
        features: ArrayLike | None = None,
        min_prompts: int | None = None,
        per_layer: bool = False,
        progress: Progress | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The ``k`` best features that have entries, ties to the smaller id.

        Args:
            k: How many.
            rank_by: As in :meth:`score`.
            threads: How many; the result does not depend on it.
            layers: Only these layers.
            features: Only these global ids.
            min_prompts: Only features that are active in at least so many prompts.
            per_layer: The ``k`` best of each layer (fewer where fewer have entries), layer by
                layer.
            progress: Called now and then.

        Returns:
            ids ``[k]`` int64 and scores ``[k]`` float64, best first.

        Raises:
            BudgetError: ``k`` is negative, or above the number of candidates.
        """
        filters = ranking_filters(layers, features, min_prompts, per_layer)
        return self._native.top_k(
            whole_number("k", k),
            rank_by,
            threads=threads_of(threads),
            progress=progress,
            **filters,
        )

    def entries(self, first_prompt: int, n_prompts: int) -> Entries:
        """The entries of the prompts ``first_prompt .. first_prompt + n_prompts``.

        Raises:
            PieFastError: The dump does not have all of these prompts.
        """
        first, n = whole_number("first_prompt", first_prompt), whole_number("n_prompts", n_prompts)
        return Entries(*self._native.entries(first, n))

    def mapped(self, shard: int) -> MappedShard:
        """A shard's columns without reading them: read-only views of its mapped file.

        The layout and the size of the file are checked, its entries are not (:meth:`verify` does
        that). Danger: if the file shrinks while a view lives, touching what is gone kills the
        process with SIGBUS, which no ``except`` catches. :meth:`entries` has no such danger.

        Raises:
            PieFastError: The dump has no such shard.
            DumpError: The layout of a shard is not what the format promises.
        """
        from pie_fast.dump_mapped import mapped_shard

        return mapped_shard(self, shard)

    def entries_of(
        self, features: ArrayLike, *, progress: Progress | None = None
    ) -> FeatureEntries:
        """The entries of a few features (global ids, in any order) from one pass over the dump."""
        ids = whole_numbers("features", features).reshape(-1)
        return FeatureEntries(*self._native.entries_of(ids, progress=progress))

    def active_features(self, *, threads: int | None = None) -> NDArray[np.int64]:
        """Global ids of the features with at least one activation other than 0, ascending."""
        return self._native.active_features(threads=threads_of(threads))

    def summary(self, *, progress: Progress | None = None) -> Summary:
        """Entries per layer and a histogram of activations, from one pass over the dump."""
        return Summary(*self._native.summary(progress=progress))

    def verify(self, deep: bool = True, *, progress: Progress | None = None) -> None:
        """Check the dump.

        Args:
            deep: Also read every entry and compare the sha256 of every shard. Otherwise only the
                manifest, the layout of the shards and the prompts are checked.
            progress: Called now and then.

        Raises:
            DumpError: Something is not what the format or the manifest promises.
            FileNotFoundError: A file is missing.
        """
        lengths = np.diff(self.prompts.prompt_ptr)
        _native.Dump(self.path)
        if deep:
            self._native.verify(lengths, progress=progress)


def ranking_filters(
    layers: Sequence[int] | None,
    features: ArrayLike | None,
    min_prompts: int | None,
    per_layer: bool,
) -> RankingFilters:
    """What a ranking leaves out, as the native part takes it.

    Raises:
        TypeError: A number is no whole number.
        PieFastError: One is negative, or 2^63 or more.
    """
    return {
        "layers": None if layers is None else [whole_number("layer", n) for n in layers],
        "features": None if features is None else whole_numbers("features", features).reshape(-1),
        "min_prompts": None if min_prompts is None else whole_number("min_prompts", min_prompts),
        "per_layer": per_layer,
    }


def open_dump(path: str | Path, *, check: bool = True) -> FeatureDump:
    """Open a feature dump and check its manifest and the layout of every shard.

    A dump whose capture was interrupted opens with the prompts it has; ``complete`` tells.

    Args:
        path: Its folder, or a URL that fsspec knows (``s3://bucket/dump``): then the dump is
            copied to a cache of this machine first, see `pie_fast.remote`.

    Raises:
        FileNotFoundError: There is nothing at ``path``, or a shard is missing.
        DumpError: Something is not what the format promises; names file, field and value.
        StorageError: The URL cannot be read, or what is there is not what its manifest says.
    """
    if "://" not in str(path):
        return FeatureDump(path)
    from pie_fast.remote import staged

    opened = FeatureDump(staged(str(path)))
    opened.source = str(path)
    return opened


def _planned(folder: Path, manifest: dict[str, Any]) -> int | None:
    """How many prompts the capture was going to write, where the manifest tells.

    Raises:
        DumpError: What it tells is no number of prompts.
    """
    planned = manifest.get("n_prompts_planned")
    if planned is not None and (type(planned) is not int or planned < 0):
        raise DumpError(
            f"{folder / 'manifest.json'}: n_prompts_planned is {planned!r}, "
            "must be a whole number of at least 0"
        )
    return planned
