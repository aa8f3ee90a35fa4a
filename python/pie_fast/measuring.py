"""The batches of a capture, measured by a crew; smaller ones from where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pie_fast.attribution import gate_effects, own_metric, run_metric
from pie_fast.behaviors import Prompt
from pie_fast.crew import Crew, Held
from pie_fast.cuts import Cuts
from pie_fast.entries import Arriving, send_entries
from pie_fast.errors import PieFastError
from pie_fast.model import (
    Batch,
    MeanPart,
    Means,
    Replacer,
    Switches,
    is_out_of_memory,
    make_batch,
    release_memory,
)

R = TypeVar("R")

#: a batch on its way to a worker: the number of its first prompt, and its prompts
Cut = tuple[int, Sequence[Prompt]]


@dataclass(frozen=True)
class Measuring:
    """How every batch is measured.

    Attributes:
        switches: Baseline and the rest.
        means: Of the baseline, where it is the mean.
        metric: See `pie_fast.metrics`.
        gradient: A rule of `pie_fast.gradients`.
    """

    switches: Switches
    means: Means | None
    metric: str
    gradient: str


@dataclass(frozen=True)
class Measured:
    """What one batch gave.

    Attributes:
        n_prompts: Of the batch.
        entries: On their way.
        clean: `[n_prompts]`, the metric of the model.
        empty: `[n_prompts]`, of the empty circuit.
    """

    n_prompts: int
    entries: Arriving
    clean: NDArray[np.float64]
    empty: NDArray[np.float64]


@dataclass(frozen=True)
class Batches:
    """The batches of some prompts.

    Attributes:
        crew: Who measures them.
        prompts: All of them.
        cuts: Where batches begin; halved where memory runs out.
        halved: Told so, after `cuts` were changed.
    """

    crew: Crew
    prompts: Sequence[Prompt]
    cuts: Cuts
    halved: Callable[[str], None]

    def means(self) -> Means:
        """Mean activations, in batches of the first size: a resumed capture has the same.

        Raises:
            PieFastError: Memory runs out on a single prompt.
        """
        model, size = self.crew.model, self.cuts.size(0)
        if model.knows_means(self.prompts):
            return model.mean_activations(self.prompts)
        sums = model.mean_sums()
        with closing(self.crew.map(_mean_part, None, self._cut(0, Cuts(size)))) as parts:
            for part in parts:
                if part is None:
                    break
                sums.add(part)
            else:
                return model.keep_means(self.prompts, sums)
        self._halve(0, min(size, len(self.prompts)))
        return self.means()

    def measured(self, how: Measuring, first: int) -> Iterator[Measured]:
        """Each batch from the one that begins at prompt `first` on, in order.

        Raises:
            PieFastError: Memory runs out on a single prompt.
        """
        while first < len(self.prompts):
            # What was cut before memory ran out is of no use after it.
            with closing(self.crew.map(_measure, how, self._cut(first, self.cuts))) as results:
                for found in results:
                    if found is None:
                        break
                    yield found
                    first += found.n_prompts
                else:
                    return
            self._halve(first, min(self.cuts.size(first), len(self.prompts) - first))

    def _cut(self, first: int, cuts: Cuts) -> Iterator[Cut]:
        while first < len(self.prompts):
            some = self.prompts[first : first + cuts.size(first)]
            yield first, some
            first += len(some)

    def _halve(self, first: int, n_prompts: int) -> None:
        """Go on from `first` with smaller batches than the one of `n_prompts` that did not fit."""
        size = self.cuts.halve(first)
        while size >= n_prompts:  # the last batch may be smaller than its size says
            size = self.cuts.halve(first)
        self.halved(
            f"out of memory on {n_prompts} prompts: from prompt {first} on {size} at a time"
        )


def _measure(held: Held, how: Measuring, cut: Cut) -> Measured | None:
    """Everything that a dump holds of a batch, from one preparation; None where memory runs out."""
    return _unless_full(held.model, cut, lambda batch: _measured(held.model, how, batch))


def _mean_part(held: Held, _: None, cut: Cut) -> MeanPart | None:
    """What a batch adds to the means; None where memory runs out."""
    return _unless_full(held.model, cut, held.model.mean_part)


def _measured(model: Replacer, how: Measuring, batch: Batch) -> Measured:
    setup = model.prepare(batch, how.switches, how.means or ())
    nothing = model.make_pool([])
    with torch.no_grad():
        clean = own_metric(setup, how.metric)
        empty = run_metric(setup, model.run(setup, nothing, rest="baseline"), how.metric)[0]
    effects = gate_effects(model, setup, how.metric, gradient=how.gradient)
    measured = [values.cpu().double().numpy() for values in (clean, empty)]
    entries = send_entries(effects, setup, model.clt.n_features)
    return Measured(len(batch), entries, *measured)


def _unless_full(model: Replacer, cut: Cut, measure: Callable[[Batch], R]) -> R | None:
    """What `measure` finds of a batch; None where memory runs out.

    Raises:
        PieFastError: It runs out on a single prompt.
    """
    first, prompts = cut
    batch = make_batch(prompts, model.device, first)
    try:
        return measure(batch)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(batch) == 1:
            raise PieFastError(
                f"prompt {first} alone, {batch.tokens.shape[1]} tokens, needs more memory "
                f"than {model.device} has left: {error}"
            ) from error
    # Out here the error is gone, and with it what it held on to.
    release_memory()
    return None
