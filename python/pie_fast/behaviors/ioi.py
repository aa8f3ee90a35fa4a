"""Indirect object identification: "... Mary and John went to the market. John gave a ... to" Mary.

Two names are introduced, one of them (S) acts on the other; the answer is the other (IO), the foil
is S. Half of the prompts introduce IO first (ABBA), half S first (BABA).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pie_fast.behaviors.drafting import Draft, Draws, fill, single_words
from pie_fast.behaviors.pools import NAMES, OBJECTS, PLACES
from pie_fast.errors import BehaviorError

#: {A} and {B} are the two names in the order of the first clause
TEMPLATES = (
    "Then, {A} and {B} went to the {place}. {S2} gave a {object} to",
    "When {A} and {B} met at the {place}, {S2} handed a {object} to",
    "After {A} and {B} left the {place}, {S2} passed a {object} to",
    "While {A} and {B} waited near the {place}, {S2} showed a {object} to",
    "Yesterday {A} and {B} walked past the {place}, and {S2} sold a {object} to",
    "Last night {A} and {B} sat in the {place}. {S2} lent a {object} to",
    "Friends {A} and {B} worked at the {place}. {S2} brought a {object} to",
    "Because {A} and {B} loved the {place}, {S2} offered a {object} to",
    "Once {A} and {B} reached the {place}, {S2} threw a {object} to",
    "In spring {A} and {B} painted the {place}. Later {S2} sent a {object} to",
    "As soon as {A} and {B} opened the {place}, {S2} returned a {object} to",
    "The neighbors {A} and {B} cleaned the {place} together. {S2} left a {object} to",
    "At noon {A} and {B} ate lunch in the {place}. Then {S2} tossed a {object} to",
    "Before {A} and {B} closed the {place}, {S2} presented a {object} to",
    "Every week {A} and {B} visited the {place}, where {S2} read a {object} to",
    "Today {A} and {B} argued about the {place}. Still, {S2} promised a {object} to",
)

KINDS = ("abc", "s2_io_flip", "s1_io_flip", "random_names")


@dataclass(frozen=True)
class IOI:
    """The generator.

    Attributes:
        names: At least 5 names: two in the prompt, three others in its ABC counterfactual.
        templates: Templates with fields A, B, S2, place and object.
        counterfactual: ``abc`` (three unrelated names), ``s2_io_flip`` (S2 becomes IO, so the
            answer flips), ``s1_io_flip`` (the two names change places in the first clause) or
            ``random_names`` (two other names, same pattern).
    """

    names: tuple[str, ...] = NAMES
    templates: tuple[str, ...] = TEMPLATES
    places: tuple[str, ...] = PLACES
    objects: tuple[str, ...] = OBJECTS
    counterfactual: str = "abc"
    metric: str = "logit-diff"
    kinds: ClassVar[tuple[str, ...]] = KINDS

    def fitted(self, tokenizer: Any) -> IOI:
        """The same task with only the names that are one token."""
        return replace(self, names=single_words(tokenizer, self.names, 5, "names"))

    def draft(self, draws: Draws, index: int) -> Draft:
        """Draw one prompt; even indices are ABBA, odd ones BABA."""
        io, s, *fresh = draws.sample(self.names, 5)
        template = draws.choice(self.templates)
        nouns = {"place": draws.choice(self.places), "object": draws.choice(self.objects)}
        io_first = index % 2 == 0

        def write(io: str, s1: str, s2: str) -> tuple[str, tuple[tuple[int, int, str], ...]]:
            first, second = (io, s1) if io_first else (s1, io)
            roles = {"A": "IO" if io_first else "S1", "B": "S1" if io_first else "IO"}
            return fill(template, {"A": first, "B": second, "S2": s2, **nouns}, roles)

        text, spans = write(io, s, s)
        other, _ = write(*self._counterfactual(io, s, fresh))
        return Draft(text, spans, f" {io}", f" {s}", other)

    def _counterfactual(self, io: str, s: str, fresh: list[str]) -> tuple[str, str, str]:
        """The names in the places of IO, S1 and S2."""
        match self.counterfactual:
            case "abc":
                return fresh[0], fresh[1], fresh[2]
            case "s2_io_flip":
                return io, s, io
            case "s1_io_flip":
                return s, io, s
            case "random_names":
                return fresh[0], fresh[1], fresh[1]
        raise BehaviorError(
            f"unknown counterfactual {self.counterfactual!r}; known: {', '.join(KINDS)}"
        )
