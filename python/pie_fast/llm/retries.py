"""How often and when a question is asked again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pie_fast.errors import PieFastError


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and when to ask again.

    Attributes:
        attempts: Requests for one answer, the first included.
        first: Seconds before the second; they double from then on, and up to `first` more
            seconds are drawn at random, so that requests do not come back together.
        longest: Seconds, at most, between two.
        patience: A server that asks for more seconds than this (``Retry-After``) is given up.
        invalid: How often an answer that is not as asked is asked again.
        in_a_row: After so many questions that failed one after another, all is given up.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 60.0
    patience: float = 600.0
    invalid: int = 2
    in_a_row: int = 20

    def __post_init__(self) -> None:
        least = {
            "attempts": 1,
            "first": 0,
            "longest": 0,
            "patience": 0,
            "invalid": 0,
            "in_a_row": 1,
        }
        for name, bound in least.items():
            if not getattr(self, name) >= bound:  # neither is NaN
                raise PieFastError(f"{name} is {getattr(self, name)}, must be at least {bound}")


def seconds_of(retry_after: str) -> float:
    """Seconds of the header ``Retry-After``, a number or a date; 0 for what is neither."""
    try:
        seconds = float(retry_after)
    except ValueError:
        seconds = _seconds_until(retry_after)
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _seconds_until(date: str) -> float:
    try:
        return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a zone
        return 0.0
