"""Activations of kept features over a corpus, block by block, in batches that fit into memory.

A block is some consecutive sequences. Where it begins follows from the corpus and the size of
batches that was asked for, so that a pass that goes on after a block runs what it would have run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from pie_fast.errors import PieFastError
from pie_fast.interpret.contexts import Corpus, Floats
from pie_fast.interpret.passes.kept import Kept, named
from pie_fast.model import is_out_of_memory, release_memory

#: tokens of a batch, padding included, when no number is given
BATCH_TOKENS = 4096

#: batches of a block, about
_BATCHES = 8

#: called with what is to be told
Note = Callable[[str], None]


@dataclass
class Blocks:
    """A pass over a corpus.

    Attributes:
        kept: The features.
        corpus: What they are run on.
        batch_tokens: Tokens of a batch that was asked for.
        size: Tokens of a batch now: halved as often as memory runs out.
        done: Sequences that were run, from the first one on.
        note: Called when `size` is halved.

    Raises:
        PieFastError: `batch_tokens` is below 1.
    """

    kept: Kept
    corpus: Corpus
    batch_tokens: int
    size: int = 0
    done: int = 0
    note: Note = lambda _: None

    def __post_init__(self) -> None:
        if self.batch_tokens < 1:
            raise PieFastError(f"batch_tokens is {self.batch_tokens}, must be at least 1")
        self.size = self.size or self.batch_tokens

    def __iter__(self) -> Iterator[tuple[int, Corpus, Floats]]:
        """Of each block the number of its first sequence, its sequences, and `[n_tokens, K]`.

        Raises:
            PieFastError: One sequence alone needs more memory than there is.
            CheckpointError: The model gives NaN.
        """
        while self.done < self.corpus.n_prompts:
            first, block = self.done, self._block()
            values = self._run(block)
            self.done += block.n_prompts
            yield first, block, values

    def _block(self) -> Corpus:
        """The sequences of the next block, at least one."""
        ptr, first = self.corpus.ptr, self.done
        most = ptr[first] + _BATCHES * self.batch_tokens
        last = int(np.searchsorted(ptr, most, side="right")) - 1
        return self.corpus.take(np.arange(first, max(last, first + 1)))

    def _run(self, block: Corpus) -> Floats:
        while True:
            try:
                return self.kept.activations(block, self.size, self.done)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._check_longest(block, error)
            # Out here the error is gone, and with it what it held on to.
            release_memory()
            self.size //= 2
            self.note(f"out of memory: from sequence {self.done} on {self.size} tokens at a time")

    def _check_longest(self, block: Corpus, error: Exception) -> None:
        """Refuse to go on where no batch holds more than the longest sequence."""
        lengths = np.diff(block.ptr)
        longest = int(lengths.argmax())
        if self.size <= lengths[longest]:
            raise PieFastError(
                f"{named(block, longest, self.done)}, {lengths[longest]} tokens, needs more memory "
                f"than {self.kept.model.device} has left: {error}"
            ) from error
