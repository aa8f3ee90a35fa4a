"""Gendered pronoun: "Alice is such a clever painter, isn't" is followed by she.

The demo corpus gives each name one pronoun; the counterfactual is a name with the other one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pie_fast.behaviors.drafting import Draft, Draws, continuation, fill, single_words
from pie_fast.behaviors.pools import HE_NAMES, ROLES, SHE_NAMES, TRAITS
from pie_fast.errors import BehaviorError

TEMPLATES = (
    "So {name} is such a {trait} {job}, isn't",
    "Everyone says {name} is a {trait} {job} because",
    "Once {name} became a {trait} {job}, we knew that",
    "If {name} were less {trait} as a {job}, would",
)


@dataclass(frozen=True)
class Pronoun:
    """The generator.

    Attributes:
        she: Names followed by " she".
        he: Names followed by " he".
    """

    she: tuple[str, ...] = SHE_NAMES
    he: tuple[str, ...] = HE_NAMES
    templates: tuple[str, ...] = TEMPLATES
    traits: tuple[str, ...] = TRAITS
    jobs: tuple[str, ...] = ROLES
    counterfactual: str = "other_pronoun"
    metric: str = "logit-diff"
    kinds: ClassVar[tuple[str, ...]] = ("other_pronoun",)

    def fitted(self, tokenizer: Any) -> Pronoun:
        """The same task with only the names that are one token."""
        for word in ("she", "he"):
            if len(continuation(tokenizer, "a", f" {word}")) != 1:
                raise BehaviorError(f"' {word}' is not a single token for this tokenizer")
        return replace(
            self,
            she=single_words(tokenizer, self.she, 2, "names followed by she"),
            he=single_words(tokenizer, self.he, 2, "names followed by he"),
        )

    def draft(self, draws: Draws, index: int) -> Draft:
        """Draw one prompt; even indices are she, odd ones he."""
        pools = [(self.she, " she"), (self.he, " he")]
        (names, answer), (others, foil) = pools if index % 2 == 0 else pools[::-1]
        template = draws.choice(self.templates)
        rest = {"trait": draws.choice(self.traits), "job": draws.choice(self.jobs)}
        text, spans = fill(template, rest | {"name": draws.choice(names)})
        other, _ = fill(template, rest | {"name": draws.choice(others)})
        return Draft(text, spans, answer, foil, other)
