"""Induction: in a row of unrelated words, one seen before is followed by what followed it then."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pie_fast.behaviors.drafting import Draft, Draws, fill, single_words
from pie_fast.behaviors.pools import NOUNS


@dataclass(frozen=True)
class Induction:
    """The generator.

    Attributes:
        words: The words, at least ``length`` + 1.
        length: Distinct words in a prompt, before the repeated one.
    """

    words: tuple[str, ...] = NOUNS
    length: int = 9
    counterfactual: str = "not_repeated"
    metric: str = "logit-diff"
    kinds: ClassVar[tuple[str, ...]] = ("not_repeated",)

    def fitted(self, tokenizer: Any) -> Induction:
        """The same task with only the words that are one token."""
        kept = single_words(tokenizer, self.words, self.length + 1, "words")
        return replace(self, words=kept)

    def draft(self, draws: Draws, index: int) -> Draft:
        """Draw one prompt; in the counterfactual the last word is one not seen before."""
        *words, fresh = draws.sample(self.words, self.length + 1)
        at = draws.index(self.length - 1)
        foil = draws.choice([w for i, w in enumerate(words) if i not in (at, at + 1)])
        names = {f"w{i}": word for i, word in enumerate(words)}
        roles = dict.fromkeys(names, "") | {f"w{at}": "A1", f"w{at + 1}": "B1", "last": "A2"}
        template = "Words: " + " ".join(f"{{{name}}}" for name in names) + " {last}"
        text, spans = fill(template, names | {"last": words[at]}, roles)
        other, _ = fill(template, names | {"last": fresh})
        return Draft(text, spans, f" {words[at + 1]}", f" {foil}", other)
