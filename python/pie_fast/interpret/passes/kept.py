"""K features of a model, and the one pass over token sequences that reads nothing else.

The model runs up to the highest layer that has a kept feature and no further. What the layers with
kept features read there is encoded with the kept features' rows alone, which are fetched once:

    a[t, k] = activation(x_l(t) @ W_enc[l][k] + b_enc[l][k])        l the layer of feature k

(A file that stores an encoder as [d_model, n_features] has a feature's numbers in every row: read
when needed, it is read whole. Rows are counted here, not bytes.)

A TopK compares a feature with all others of its layer, so there the whole encoder is read, for
every batch; it is the one activation whose cost grows with the dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pie_fast.behaviors import Prompt
from pie_fast.clt.activation import TopK
from pie_fast.clt.encoder import Encoder
from pie_fast.errors import CheckpointError, CorpusError, PieFastError
from pie_fast.interpret.contexts import Bools, Corpus, Floats, Ints
from pie_fast.interpret.passes.reads import Reads
from pie_fast.model import Batch, Replacer, make_batch
from pie_fast.positions import n_ignored


class Kept:
    """K features of a model.

    Args:
        model: The replacement model.
        ids: `[K]` global ids (layer * n_features + index), ascending.

    Attributes:
        ids: `[K]` int64.
        reads: What was read so far.

    Raises:
        PieFastError: No ids, or ids that do not ascend.
        CheckpointError: A feature that the CLT does not have.
    """

    def __init__(self, model: Replacer, ids: ArrayLike) -> None:
        self.model = model
        self.ids = _checked(np.asarray(ids))
        self.reads = Reads()
        layers, indices = np.divmod(self.ids, model.clt.n_features)
        for layer, index in zip(layers.tolist(), indices.tolist(), strict=True):
            model.clt.check_feature(layer, index)
        self._parts = [
            _Part.of(layer, model.clt.encoder(layer), indices[layers == layer], model.device)
            for layer in np.unique(layers).tolist()
        ]
        for part in self._parts:
            if part.rows is not None:
                self.reads += Reads(encoder_rows=len(part.rows))

    def activations(self, corpus: Corpus, batch_tokens: int, first: int = 0) -> Floats:
        """Activations at every position, 0 where the corpus says that it does not count.

        Args:
            corpus: Sequences that the model can read, see `check_corpus`.
            batch_tokens: Tokens of a batch, with its padding; a longer sequence is one of its own.
            first: Number of the first sequence, for errors.

        Returns:
            `[n_tokens, K]` float32, in the order of the corpus whatever the batches were.

        Raises:
            CheckpointError: A layer reads NaN or infinite values.
        """
        values = np.zeros((len(corpus.tokens), len(self.ids)), dtype=np.float32)
        for numbers in by_length(np.diff(corpus.ptr), batch_tokens):
            sequences = [tuple(corpus.tokens_of(i).tolist()) for i in numbers.tolist()]
            batch = make_batch([Prompt(s, answer=0) for s in sequences], self.model.device)
            at = np.concatenate([np.arange(*corpus.ptr[i : i + 2]) for i in numbers])
            names = [named(corpus, i, first) for i in numbers.tolist()]
            values[at] = self._run(batch, names).numpy()
        values[~corpus.counted_mask] = 0.0
        return values

    def _run(self, batch: Batch, names: Sequence[str]) -> Tensor:
        """`[n_real_tokens, K]` float32 on the CPU, sequence after sequence."""
        dtype = self.model.clt.b_dec.dtype
        self.reads += Reads(forward=len(batch))
        found = self.model.reads(batch, [part.layer for part in self._parts])
        broken = torch.stack([~x.isfinite().all(-1) for x in found]) & batch.real
        for at, row in broken.any(-1).nonzero()[:1].tolist():
            raise CheckpointError(
                f"layer {self._parts[at].layer} of the model reads NaN or infinite values on "
                f"{names[row]}"
            )
        columns = []
        with torch.no_grad():
            for part, x in zip(self._parts, found, strict=True):
                columns.append(part.encode(x[batch.real].to(dtype)))
                if part.rows is None:
                    self.reads += Reads(encoder_rows=part.encoder.n_features)
        return torch.cat(columns, -1).float().cpu()


@dataclass(frozen=True)
class _Part:
    """The kept features of one layer; `rows` are their encoder vectors, None of a TopK."""

    layer: int
    encoder: Encoder
    ids: Tensor
    rows: Tensor | None

    @classmethod
    def of(cls, layer: int, encoder: Encoder, indices: Ints, device: torch.device) -> _Part:
        ids = torch.from_numpy(indices).to(device)
        whole = isinstance(encoder.activation, TopK)
        return cls(layer, encoder, ids, None if whole else encoder.rows(ids))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder.encode_only(x, self.ids, self.rows)


def by_length(lengths: Ints, batch_tokens: int) -> Iterator[Ints]:
    """Batches of sequences of alike length, the longest first, so that little of them is padding.

    Args:
        lengths: `[n]` int64.
        batch_tokens: What a batch holds, padding included.

    Yields:
        `[m]` int64, numbers of sequences, at least one.
    """
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        n = max(batch_tokens // int(lengths[order[0]]), 1)
        yield order[:n]
        order = order[n:]


def counted_positions(model: Replacer, corpus: Corpus) -> Bools:
    """`[n_tokens]` bool, where features count: not on a BOS, nor where the model ignores them.

    Where the corpus has its own say (`counted`), only what counts there too.
    """
    bos = -1 if model.host.bos is None else model.host.bos
    begins = (corpus.position == 0) & (corpus.tokens == bos)
    ignored = n_ignored(model.ignore_positions, model.host.name) or 0  # None: the BOS alone
    counted: Bools = corpus.counted_mask & ~begins & (corpus.position >= ignored)
    return counted


def check_corpus(model: Replacer, corpus: Corpus) -> None:
    """Refuse sequences that the model cannot read.

    Raises:
        CorpusError: With the sequence, its source, the value and what is valid.
    """
    lengths = np.diff(corpus.ptr)
    for i in np.flatnonzero((lengths < 1) | (lengths > model.host.n_ctx))[:1].tolist():
        raise CorpusError(
            f"{named(corpus, i)} has {lengths[i]} tokens; the model reads 1 to {model.host.n_ctx}"
        )
    outside = (corpus.tokens < 0) | (corpus.tokens >= model.host.vocab_size)
    for t in np.flatnonzero(outside)[:1].tolist():
        raise CorpusError(
            f"{named(corpus, int(corpus.prompt[t]))}, position {corpus.position[t]}: token id "
            f"{corpus.tokens[t]}; the model's ids are 0 to {model.host.vocab_size - 1}"
        )


def named(corpus: Corpus, sequence: int, first: int = 0) -> str:
    """A sequence as errors name it, where those of `corpus` are counted from `first`."""
    source = "" if corpus.sources is None else f" ({corpus.sources[sequence]})"
    return f"sequence {first + sequence}{source}"


def _checked(ids: np.ndarray) -> Ints:
    if ids.ndim != 1 or len(ids) == 0 or not np.issubdtype(ids.dtype, np.integer):
        raise PieFastError(
            f"feature ids are {ids.dtype} of shape {ids.shape}; must be integers [K], K at least 1"
        )
    found = ids.astype(np.int64)
    for i in np.flatnonzero(np.diff(found) <= 0)[:1].tolist():
        raise PieFastError(f"feature id {found[i + 1]} follows {found[i]}; ids must ascend")
    return found
