"""FADE: does a description fit a feature? Judged on sequences (arXiv 2502.16994).

    natural sequences   a(s) of all, some of every strength rated 0, 1 or 2
    written sequences   by a writer, to express the description; a(s) of them
    Clarity, Responsiveness, Purity          `pie_fast.interpret.fade.scores`
    steered continuations, rated             where Clarity and Responsiveness reach a gate
    Faithfulness

A rater reads texts and says how well each expresses the description: 0 no, 1 partly, 2 clearly. It
is the costly part, with steering, so Faithfulness waits for the gate. `a(s)` is the activation of s
where `|activation|` is largest, its sign kept, over positions that have features: unlike in the
published code a BOS is none. numpy only; the model is behind functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from pie_fast.errors import PieFastError
from pie_fast.interpret.fade.scores import (
    Faithful,
    check_ablated,
    clarity,
    faithfulness,
    finite,
    passes,
    rated_subset,
    responsiveness,
)
from pie_fast.interpretation import Measure

#: no, partly, clearly
RATINGS = (0, 1, 2)


class Rater(Protocol):
    """Judges how well texts express a description."""

    def rate(self, description: str, texts: Sequence[str]) -> list[int | None]:
        """0, 1 or 2 for each text, None for one that could not be rated."""


class Writer(Protocol):
    """Writes texts that express a description."""

    def write(self, description: str, n: int) -> list[str]:
        """About `n` texts; fewer where some could not be had."""


@dataclass(frozen=True)
class Settings:
    """How much is rated and written.

    Attributes:
        n_rated: Natural sequences that are rated, at most.
        n_written: Sequences that are asked for.
        least_written: Fewer than so many give no Clarity.
        gate: What Clarity and Responsiveness must reach for Faithfulness.
        seed: Which of equally active sequences are rated.
    """

    n_rated: int = 500
    n_written: int = 150
    least_written: int = 10
    gate: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_rated", "n_written", "least_written"):
            if getattr(self, name) < 1:
                raise PieFastError(f"{name} is {getattr(self, name)}, must be at least 1")
        if not 0 <= self.gate <= 1:
            raise PieFastError(f"gate is {self.gate}, must be from 0 to 1")


@dataclass(frozen=True)
class Counts:
    """Ratings of some texts.

    Attributes:
        by_rating: How many were rated 0, 1 and 2.
        unrated: How many could not be rated.
    """

    by_rating: tuple[int, int, int]
    unrated: int = 0

    @classmethod
    def of(cls, ratings: Sequence[int | None]) -> Counts:
        """Count them."""
        none, partly, clearly = (ratings.count(rating) for rating in RATINGS)
        return cls((none, partly, clearly), ratings.count(None))

    @property
    def share(self) -> float | None:
        """Of the rated ones, those rated 2; None where nothing was rated."""
        rated = sum(self.by_rating)
        return self.by_rating[2] / rated if rated else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"by_rating": list(self.by_rating), "unrated": self.unrated}


@dataclass(frozen=True)
class Fade:
    """The four measures, and what was read for them.

    Attributes:
        measures: By name, with the rater's suffix.
        natural: Ratings of natural sequences.
        n_written: Written sequences that were had.
        steered: By factor, ratings of continuations; empty where the gate was not passed.
        faithful: The shares behind Faithfulness.
    """

    measures: dict[str, Measure]
    natural: Counts
    n_written: int
    steered: Mapping[float, Counts]
    faithful: Faithful

    def to_dict(self) -> dict[str, Any]:
        """What was read, as plain values; the measures are for `Interpretation.quality`."""
        steered = [
            {"factor": m, "share": counts.share, **counts.to_dict()}
            for m, counts in self.steered.items()
        ]
        return {
            "natural": self.natural.to_dict(),
            "n_written": self.n_written,
            "steered": steered,
            "best_factor": self.faithful.best,
        }


def fade(
    description: str,
    activations: ArrayLike,
    *,
    text_of: Callable[[int], str],
    peaks_of: Callable[[Sequence[str]], ArrayLike],
    steer: Callable[[], Mapping[float, Sequence[str]]],
    rater: Rater,
    writer: Writer,
    settings: Settings | None = None,
    suffix: str = "_llm",
) -> Fade:
    """Measure how well a description fits a feature.

    Args:
        description: Of the feature.
        activations: `[n]`, `a(s)` of all natural sequences.
        text_of: The text of a natural sequence; called for those that are rated.
        peaks_of: `[len(texts)]`, `a(s)` of written ones.
        steer: By factor, 0 among them, the steered model's continuations; called behind the gate.
        rater, writer: See there.
        settings: How much is rated and written.
        suffix: Of the names of measures: who rated.

    Raises:
        PieFastError: No sequences, activations that are not finite, answers of another number than
            the texts, ratings other than 0, 1, 2 and None, or continuations without factor 0.
    """
    settings = settings or Settings()
    natural = finite(activations, None)
    written = [text for text in writer.write(description, settings.n_written) if text.strip()]
    peaks = finite(peaks_of(written), len(written)) if written else np.zeros(0)
    rated = rated_subset(natural, settings.n_rated, seed=settings.seed)
    ratings = _ratings(rater, description, [text_of(int(i)) for i in rated])
    clear = clarity(natural, peaks, least_written=settings.least_written)
    responsive, pure = responsiveness(natural[rated], ratings)
    counts: dict[float, Counts] = {}
    faithful = Faithful(Measure(None, why="gate not passed"))
    if passes(clear, responsive, settings.gate):
        counts = _counts_by_factor(rater, description, steer())
        faithful = faithfulness(
            {m: one.share for m, one in counts.items()},
            n_positive=sum(one.by_rating[2] for one in counts.values()),
            n_negative=sum(sum(one.by_rating[:2]) for one in counts.values()),
        )
    measures = {
        "clarity": clear,
        "responsiveness": responsive,
        "purity": pure,
        "faithfulness": faithful.measure,
    }
    named = {name + suffix: measure for name, measure in measures.items()}
    return Fade(named, Counts.of(ratings), len(written), counts, faithful)


def _counts_by_factor(
    rater: Rater, description: str, steered: Mapping[float, Sequence[str]]
) -> dict[float, Counts]:
    check_ablated(steered)  # before anything is paid for
    return {
        float(m): Counts.of(_ratings(rater, description, texts)) for m, texts in steered.items()
    }


def _ratings(rater: Rater, description: str, texts: Sequence[str]) -> list[int | None]:
    found = list(rater.rate(description, list(texts)))
    if len(found) != len(texts):
        raise PieFastError(f"the rater gave {len(found)} ratings for {len(texts)} texts")
    for rating in found:
        if rating is not None and rating not in RATINGS:
            raise PieFastError(f"a rating is {rating!r}, must be 0, 1, 2 or None")
    return found
