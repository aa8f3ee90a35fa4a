"""Greater-than: "The siege lasted from the year 1457 to the year 14" is followed by more than 57.

Answer and foil are one number on each side; the counterfactual starts in the year 01, after which
every number is greater.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pie_fast.behaviors.drafting import Draft, Draws, continuation, fill
from pie_fast.behaviors.pools import EVENTS
from pie_fast.errors import BehaviorError

TEMPLATE = "The {event} lasted from the year {century}{start} to the year {again}"
CENTURIES = tuple(f"{c:02d}" for c in range(11, 19))
YEARS = tuple(f"{y:02d}" for y in range(1, 100))


@dataclass(frozen=True)
class GreaterThan:
    """The generator.

    Attributes:
        centuries: First two digits of the years.
        years: Last two digits, ascending; the first is the counterfactual's start.
        events: What lasted.
    """

    centuries: tuple[str, ...] = CENTURIES
    years: tuple[str, ...] = YEARS
    events: tuple[str, ...] = EVENTS
    counterfactual: str = "first_year"
    metric: str = "prob-diff"
    kinds: ClassVar[tuple[str, ...]] = ("first_year",)

    def fitted(self, tokenizer: Any) -> GreaterThan:
        """The same task with the years that split into two tokens of two digits."""

        def splits(century: str, year: str) -> bool:
            whole = continuation(tokenizer, "a", f" {century}{year}")
            parts = continuation(tokenizer, "a", f" {century}")
            tail = continuation(tokenizer, f"a {century}", year)
            return len(whole) == 2 and whole[:1] == parts and whole[1:] == tail

        first = self.years[0]
        centuries = tuple(c for c in self.centuries if splits(c, first))
        years = tuple(y for y in self.years if centuries and all(splits(c, y) for c in centuries))
        if len(years) < 10:
            raise BehaviorError(
                f"only {len(years)} of {len(self.years)} years split into two tokens of two "
                "digits for this tokenizer; at least 10 are needed"
            )
        return replace(self, centuries=centuries, years=years)

    def draft(self, draws: Draws, index: int) -> Draft:
        """Draw one prompt; start years leave 2 numbers above and the counterfactual's below."""
        start = 1 + draws.index(len(self.years) - 3)
        century = draws.choice(self.centuries)
        values = {"event": draws.choice(self.events), "century": century, "again": century}
        roles = {"century": "XX", "start": "YY", "again": "END"}
        text, spans = fill(TEMPLATE, values | {"start": self.years[start]}, roles)
        other, _ = fill(TEMPLATE, values | {"start": self.years[0]})
        answer = self.years[start + 1 + draws.index(len(self.years) - start - 1)]
        foil = self.years[1 + draws.index(start)]
        return Draft(text, spans, answer, foil, other)
