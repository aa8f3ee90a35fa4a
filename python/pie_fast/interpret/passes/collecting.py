"""One pass of the model over a corpus serves all K kept features.

In a block of the corpus sequences of alike length run together; their activations go to the
collector in the order of the corpus, so that what it keeps does not depend on batches (but for the
last bits of the activations themselves). After each block the state can be saved: a pass that was
stopped goes on there and ends in the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pie_fast._native import ContextCollector
from pie_fast.errors import DumpError, PieFastError
from pie_fast.interpret.contexts import Corpus, Floats
from pie_fast.interpret.passes.blocks import BATCH_TOKENS, Blocks, Note
from pie_fast.interpret.passes.collected import Collected
from pie_fast.interpret.passes.corpus_hash import corpus_hash
from pie_fast.interpret.passes.kept import Kept, check_corpus, counted_positions
from pie_fast.interpret.passes.reads import Reads
from pie_fast.interpret.passes.saved_pass import SavedPass, State
from pie_fast.model import Replacer
from pie_fast.progress import Advance

#: called at the end with what a call read
Report = Callable[[Reads], None]


def collect(
    model: Replacer,
    corpus: Corpus,
    ids: ArrayLike,
    *,
    n_top: int = 20,
    n_sample: int = 200,
    n_silent: int = 200,
    batch_tokens: int = BATCH_TOKENS,
    folder: str | Path | None = None,
    progress: Advance | None = None,
    note: Note | None = None,
    report: Report | None = None,
) -> Collected:
    """Collect contexts, peaks, histograms and co-activation of K features in one pass.

    Args:
        model: The replacement model.
        corpus: Sequences; where it has `counted`, only those positions count.
        ids: `[K]` global ids, ascending.
        n_top: Strongest sequences kept of each feature.
        n_sample: Active sequences drawn of each.
        n_silent: Silent sequences drawn of each.
        batch_tokens: Tokens of a batch, padding included; halved as often as memory runs out.
        folder: Where the state is saved after each block, and gone on with; None: nowhere.
        progress: Called after each block with sequences done and all.
        note: Called with what is to be told, as that batches were halved.
        report: Called at the end with what this call read.

    Returns:
        What was collected; its corpus says which positions counted: none where a sequence has its
        BOS or the model ignores the position.

    Raises:
        PieFastError: Ids or sizes that are not valid, or one sequence needs more memory than there
            is.
        CorpusError: A sequence that the model cannot read.
        CheckpointError: A feature that the CLT does not have, or a model that gives NaN.
        DumpError: What `folder` holds is broken or of another pass.
    """
    kept = Kept(model, ids)
    limits = {"n_top": n_top, "n_sample": n_sample, "n_silent": n_silent}
    collector = ContextCollector(len(kept.ids), **limits)
    blocks = Blocks(kept, _counted(model, corpus), batch_tokens, note=note or (lambda _: None))
    saved = None
    if folder is not None:
        saved = SavedPass(folder, _identity(kept, corpus, limits, batch_tokens))
        if (state := saved.load()) is not None:
            collector = _resumed(saved.path, state, blocks)
    for first, block, values in blocks:
        collector.add(first, block.ptr, values, block.counted_mask)
        if saved is not None:
            saved.save(State(blocks.done, blocks.size, collector.state()))
        if progress is not None:
            progress(blocks.done, corpus.n_prompts)
    if report is not None:
        report(kept.reads)
    return Collected(kept.ids, blocks.corpus, collector.state())


def activations_of(
    model: Replacer,
    sequences: Sequence[Sequence[int]],
    ids: ArrayLike,
    *,
    batch_tokens: int = BATCH_TOKENS,
    report: Report | None = None,
) -> Iterator[Floats]:
    """Activations of K features on any sequences, such as edited or generated ones.

    Args:
        model: The replacement model.
        sequences: Token ids, with the BOS where prompts have one.
        ids, batch_tokens, report: As in `collect`.

    Yields:
        `[n_tokens, K]` float32 of each sequence in turn; 0 where features do not count.

    Raises:
        PieFastError, CorpusError, CheckpointError: As `collect`.
    """
    kept = Kept(model, ids)
    ptr = np.cumsum([0, *map(len, sequences)], dtype=np.int64)
    corpus = Corpus(np.array([t for s in sequences for t in s], dtype=np.int64), ptr)
    for _, block, values in Blocks(kept, _counted(model, corpus), batch_tokens):
        yield from np.split(values, block.ptr[1:-1])
    if report is not None:
        report(kept.reads)


def peaks_of(
    model: Replacer,
    sequences: Sequence[Sequence[int]],
    ids: ArrayLike,
    *,
    batch_tokens: int = BATCH_TOKENS,
    report: Report | None = None,
) -> Floats:
    """The strongest activation of each feature in each sequence: FADE's a(s).

    Args:
        model, sequences, ids, batch_tokens, report: As in `activations_of`.

    Returns:
        `[n, K]` float32: of largest magnitude over the positions that count, the first of equals,
        sign kept; 0 where a feature is silent.
    """
    found = activations_of(model, sequences, ids, batch_tokens=batch_tokens, report=report)
    peaks = [np.take_along_axis(a, np.abs(a).argmax(0)[None], 0)[0] for a in found]
    return np.array(peaks, dtype=np.float32).reshape(len(sequences), np.size(ids))


def _counted(model: Replacer, corpus: Corpus) -> Corpus:
    """The corpus with the positions that count, where the model can read it."""
    check_corpus(model, corpus)
    return replace(corpus, counted=counted_positions(model, corpus))


def _identity(
    kept: Kept, corpus: Corpus, limits: dict[str, int], batch_tokens: int
) -> dict[str, Any]:
    """What decides the bytes of a pass."""
    model = kept.model
    return {
        "corpus": corpus_hash(corpus),
        "model": model.host.name,
        **model.setting,
        "features": kept.ids.tolist(),
        **limits,
        "batch_tokens": batch_tokens,
    }


def _resumed(path: Path, state: State, blocks: Blocks) -> ContextCollector:
    """A collector that goes on from a state; `blocks` go on there too.

    Raises:
        DumpError: The arrays are not a collector's, or of other sequences.
    """
    try:
        collector = ContextCollector.from_state(dict(state.arrays))
    except (PieFastError, TypeError) as error:
        raise DumpError(f"{path}: {error}") from error
    seen, n_sequences = state.arrays["seen"].tolist(), blocks.corpus.n_prompts
    if seen != [[0, state.done]] or state.done > n_sequences:
        raise DumpError(
            f"{path}: done is {state.done} of {n_sequences}, but the sequences in it are {seen}"
        )
    blocks.done, blocks.size = state.done, state.batch_tokens
    return collector
