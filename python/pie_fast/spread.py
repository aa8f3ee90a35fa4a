"""Scores and rankings of a dump, spread over the workers of an engine.

The order of additions is that of `pie_fast.dump`, so the bytes are the same:

1. *Blocks.* An item is a run of blocks of 256 prompts. A worker adds up each block and leaves the
   sums in a scratch folder, cut by ranges of features: one file a run and range.
2. *Ranges.* An item is a range of features. A worker joins its blocks in order, file by file.

Block sums never pass through the process that asks. Memory: a worker of stage 1 holds 8 bytes a
feature and about 30 bytes an entry of one run (at most 2^24 entries, or one block); one of stage 2
holds 9 bytes a feature of its range (at most 2^22) and one file; who asks holds 9 bytes a feature.
"""

from __future__ import annotations

import hashlib
import socket
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load, save

from pie_fast import _native
from pie_fast.dump import FeatureDump, ranking_filters
from pie_fast.dump_writer import BLOCK
from pie_fast.errors import DumpError, StorageError
from pie_fast.remote import is_url, join, naming, read_bytes, remove, staged, write_bytes
from pie_fast.scratch import held_folder
from pie_fast.whole import threads_of, whole_number

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from pie_fast.dump import Progress
    from pie_fast.engine import Engine, Workers

#: entries of a run of blocks, about
RUN = 1 << 24

#: features of a range, at most
RANGE = 1 << 22


@dataclass(frozen=True)
class _Pass:
    """One pass over a dump, as its workers are told.

    Attributes:
        source: Folder or URL of the dump.
        manifest: sha256 of its manifest: another machine may have another dump at the same path.
        scratch: Folder or URL that all workers reach.
        runs: Edges of the runs of blocks.
        ranges: Edges of the ranges of features.
    """

    source: str
    manifest: str
    rank_by: str
    n_prompts: int
    scratch: str
    runs: tuple[int, ...]
    ranges: tuple[int, ...]
    threads: int | None

    def file(self, run: int, range_: int) -> str:
        """Where the sums of a run and range are."""
        return join(self.scratch, f"{run}-{range_}.safetensors")


class SpreadDump(FeatureDump):
    """A dump that is scored and ranked by the workers of an engine; the rest is read here.

    Scores and rankings have the bytes of `FeatureDump`'s, for any number of workers. A context
    manager: workers start with the first score and go on to the next, until the end.
    """

    def __init__(self, source: str | Path, engine: Engine, *, scratch: str | None = None) -> None:
        """Open a dump.

        Args:
            source: A folder that all workers see, or a URL: then a worker copies the shards of
                its run to its machine's cache, and nothing else.
            engine: Whose workers.
            scratch: A folder that all workers see, or a URL, for what the stages hand on; a
                temporary folder of this machine by default. At most 12 bytes an entry.

        Raises:
            StorageError, DumpError, FileNotFoundError: As `pie_fast.open_dump`.
        """
        if is_url(source):
            super().__init__(staged(str(source), prompts=(0, 0)), prompts=(0, 0))
            self.source = str(source)
        else:
            super().__init__(Path(source).resolve())
            self.source = str(self.path)
        self._engine = engine
        self._scratch = scratch
        self._open = ExitStack()
        self._workers: Workers[None] | None = None

    def __enter__(self) -> SpreadDump:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the workers go; a later score starts others."""
        self._workers = None
        self._open.close()

    def score(
        self,
        rank_by: str = "mean_abs",
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        """As `FeatureDump.score`; `threads` of each worker, 1 by default."""
        return self._scored(rank_by, threads, progress)[0]

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
        """As `FeatureDump.top_k`; `threads` of each worker, 1 by default."""
        # What is no number of things is known before any work.
        k = whole_number("k", k)
        filters = ranking_filters(layers, features, min_prompts, per_layer)
        scores, has_entry = self._scored(rank_by, threads, progress)
        counts = None
        if min_prompts is not None:
            counts = self._scored("count", threads, progress)[0]
        return self._native.rank(
            k,
            scores,
            has_entry,
            counts=counts,
            threads=threads_of(threads),
            **filters,
        )

    def active_features(self, *, threads: int | None = None) -> NDArray[np.int64]:
        """As `FeatureDump.active_features`."""
        return np.flatnonzero(self._scored("count", threads, None)[0])

    def _scored(
        self, rank_by: str, threads: int | None, progress: Progress | None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Scores, and which features have entries."""
        threads = threads_of(threads)
        n_ids = self.n_layers * self.n_features
        n_ranges = max(self._engine.n_workers, -(-n_ids // RANGE))
        if self._workers is None:
            self._workers = self._open.enter_context(self._engine.workers(_nothing))
        workers = self._workers
        with self._scratch_folder() as folder:
            told = _Pass(
                self.source,
                _hash_of(self.path),
                rank_by,
                self.n_prompts,
                folder,
                self._runs(),
                _edges(n_ids, -(-n_ids // n_ranges)),
                threads,
            )
            _native.Fold(rank_by, 0, 0)  # an unknown rank_by is known before any work
            n_runs, n_ranges = len(told.runs) - 1, len(told.ranges) - 1
            done = workers.map(_add_up, ((told, run) for run in range(n_runs)))
            for run, _ in enumerate(done):
                if progress is not None:
                    progress(self.n_active * (run + 1) // n_runs, self.n_active)
            parts = list(workers.map(_join, ((told, i) for i in range(n_ranges))))
        return (
            np.concatenate([scores for scores, _ in parts]),
            np.concatenate([has for _, has in parts]),
        )

    def _runs(self) -> tuple[int, ...]:
        """Edges of runs of blocks: a few for each worker, none too large for its memory."""
        n_blocks = -(-self.n_prompts // BLOCK)
        by_memory = RUN * n_blocks // max(self.n_active, 1)
        by_worker = -(-n_blocks // (4 * self._engine.n_workers))
        return _edges(n_blocks, max(1, min(by_memory, by_worker)))

    @contextmanager
    def _scratch_folder(self) -> Iterator[str]:
        base = self._scratch or tempfile.gettempdir()
        with ExitStack() as held:
            if is_url(base):
                place = join(base, f"pie-fast-{uuid.uuid4().hex}")
            else:
                Path(base).mkdir(parents=True, exist_ok=True)
                place = str(held.enter_context(held_folder(Path(base).resolve())))
            held.callback(remove, place)
            yield place


def _hash_of(folder: Path) -> str:
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def _edges(n: int, step: int) -> tuple[int, ...]:
    return (*range(0, n, step), n)


def _nothing() -> None:
    """What these workers hold."""


def _add_up(_held: None, item: tuple[_Pass, int]) -> None:
    """Stage 1 of one run."""
    told, run = item
    blocks = range(told.runs[run], told.runs[run + 1])
    prompts = (blocks.start * BLOCK, min(blocks.stop * BLOCK, told.n_prompts))
    if is_url(told.source):
        folder = staged(told.source, prompts=prompts, extras=False)
    else:
        folder = Path(told.source)
    if _hash_of(folder) != told.manifest:
        host = socket.gethostname()
        raise DumpError(f"{told.source}: manifest.json: the worker on {host} sees another")
    with naming(folder, told.source):
        dump = _native.Dump(folder, prompts=prompts)
        sums = [dump.block_sums(told.rank_by, block, threads=told.threads) for block in blocks]
    for i, (first, end) in enumerate(pairwise(told.ranges)):
        cuts = [np.searchsorted(ids, (first, end)) for ids, _ in sums]
        data = {
            "block_ptr": np.cumsum([0, *(b - a for a, b in cuts)], dtype=np.int64),
            "feature": np.concatenate(
                [ids[a:b] for (ids, _), (a, b) in zip(sums, cuts, strict=True)]
            ),
            "sum": np.concatenate([of[a:b] for (_, of), (a, b) in zip(sums, cuts, strict=True)]),
        }
        try:
            write_bytes(told.file(run, i), save(data))
        except FileNotFoundError as error:
            raise _unseen(told) from error


def _join(_held: None, item: tuple[_Pass, int]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Stage 2 of one range."""
    told, i = item
    fold = _native.Fold(told.rank_by, told.ranges[i], told.ranges[i + 1])
    for run, (first, end) in enumerate(pairwise(told.runs)):
        file = told.file(run, i)
        try:
            data = load(read_bytes(file))
        except FileNotFoundError as error:
            raise _unseen(told) from error
        ptr, ids, sums = data["block_ptr"], data["feature"], data["sum"]
        if len(ptr) != end - first + 1:
            raise DumpError(f"{file}: block_ptr: has {len(ptr) - 1} blocks, must be {end - first}")
        for a, b in pairwise(ptr.tolist()):
            fold.add(ids[a:b], sums[a:b])
    return fold.finish(told.n_prompts)


def _unseen(told: _Pass) -> StorageError:
    return StorageError(
        f"{told.scratch}: not seen by the worker on {socket.gethostname()}; "
        "--scratch must be a folder that all machines share, or a URL"
    )
