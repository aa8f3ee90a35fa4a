"""Docstring completion: the next ``:param`` names the next argument of the function above.

The shape is ReST, with this whitespace exactly (the answer is ``" C"``)::

    \\ndef MET(self, P1, P2, A, B, C, S1):\\n    \"\"\"N1 N2 N3\\n\\n    :param A: n n\\n    :param B: n n\\n    :param
"""  # noqa: E501

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pie_fast.behaviors.drafting import Draft, Draws, fill, single_words
from pie_fast.behaviors.pools import ARGUMENTS, FUNCTIONS, NOUNS
from pie_fast.errors import BehaviorError

TEMPLATE = (
    "\ndef {MET}(self, {P1}, {P2}, {A_def}, {B_def}, {C_def}, {S1}):\n"
    '    """{N1} {N2} {N3}\n\n'
    "    :param {A_doc}: {D1} {D2}\n"
    "    :param {B_doc}: {D3} {D4}\n"
    "    :param"
)

KINDS = ("random_random", "random_def", "random_doc")

_PLAIN = dict.fromkeys(("N1", "N2", "N3", "D1", "D2", "D3", "D4"), "")


@dataclass(frozen=True)
class Docstring:
    """The generator.

    Attributes:
        arguments: At least 11 argument names: six in the prompt, five others in its
            counterfactual.
        counterfactual: ``random_random`` (A, B, C of the definition and A, B of the docstring
            become five unrelated names), ``random_def`` or ``random_doc`` (only one side).
    """

    arguments: tuple[str, ...] = ARGUMENTS
    functions: tuple[str, ...] = FUNCTIONS
    nouns: tuple[str, ...] = NOUNS
    counterfactual: str = "random_random"
    metric: str = "logit-diff"
    kinds: ClassVar[tuple[str, ...]] = KINDS

    def fitted(self, tokenizer: Any) -> Docstring:
        """The same task with only the argument names that are one token."""
        kept = single_words(tokenizer, self.arguments, 11, "argument names")
        return replace(self, arguments=kept)

    def draft(self, draws: Draws, index: int) -> Draft:
        """Draw one prompt; the foil is one of the five other arguments."""
        p1, p2, a, b, c, s1, *fresh = draws.sample(self.arguments, 11)
        words = draws.sample(self.nouns, 7)
        fixed = {"MET": draws.choice(self.functions), "P1": p1, "P2": p2, "S1": s1}
        fixed |= dict(zip(_PLAIN, words, strict=True))

        def write(definition: list[str], doc: list[str]) -> dict[str, str]:
            names = ("A_def", "B_def", "C_def", "A_doc", "B_doc")
            return fixed | dict(zip(names, definition + doc, strict=True))

        text, spans = fill(TEMPLATE, write([a, b, c], [a, b]), _PLAIN)
        match self.counterfactual:
            case "random_random":
                other = write(fresh[:3], fresh[3:])
            case "random_def":
                other = write(fresh[:3], [a, b])
            case "random_doc":
                other = write([a, b, c], fresh[3:])
            case _:
                raise BehaviorError(
                    f"unknown counterfactual {self.counterfactual!r}; known: {', '.join(KINDS)}"
                )
        foil = draws.choice((p1, p2, a, b, s1))
        return Draft(text, spans, f" {c}", f" {foil}", fill(TEMPLATE, other)[0])
