"""Measures of many features in one table: every mean with what it is a mean of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pie_fast.interpretation import Measure


@dataclass(frozen=True)
class Summary:
    """One measure over features.

    Attributes:
        mean: Over the features that have a number; None where none has.
        mean_signed: Of the signed numbers; None where there are none.
        n: Features that have a number.
        n_missing: Features that have none.
        coverage: `n` as a share of all.
        why: Why the others have none, and how many for each reason, most first.
    """

    mean: float | None
    mean_signed: float | None
    n: int
    n_missing: int
    coverage: float
    why: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def summary(qualities: Sequence[Mapping[str, Measure]]) -> dict[str, Summary]:
    """Sum up the measures of features.

    Args:
        qualities: Of each feature its measures by name.

    Returns:
        By name, in the order in which they first appear; a feature without a measure of the name
        is missing there, "not measured".
    """
    names = dict.fromkeys(name for quality in qualities for name in quality)
    return {name: _of([quality.get(name) for quality in qualities]) for name in names}


def _of(measures: Sequence[Measure | None]) -> Summary:
    there = [m for m in measures if m is not None and m.value is not None]
    values = [m.value for m in there if m.value is not None]
    signed = [m.signed for m in there if m.signed is not None]
    reasons = Counter(
        "not measured" if m is None else m.why or "no reason given"
        for m in measures
        if m is None or m.value is None
    )
    n_missing = len(measures) - len(values)
    return Summary(
        sum(values) / len(values) if values else None,
        sum(signed) / len(signed) if signed else None,
        len(values),
        n_missing,
        len(values) / len(measures),
        dict(reasons.most_common()),
    )
