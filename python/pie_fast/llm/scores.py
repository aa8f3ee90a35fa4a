"""Detection and fuzzing: can a language model tell by a label where a feature fires?

In the sense of Delphi (Paulo et al., arXiv 2410.13928). Detection: which texts activate the
feature. Fuzzing: are the marked tokens those that it fires on; in silent texts tokens are marked
at random, as many as in the activating ones. Both are balanced accuracies, so that guessing is 0.5.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from pie_fast.interpretation import Interpretation, Measure, TopContext
from pie_fast.llm.answers import Verdicts
from pie_fast.llm.client import Chat
from pie_fast.llm.description import UNDESCRIBED, description_of
from pie_fast.llm.judging import BATCH, judge

#: a token is marked whose activation is above this share of the strongest in its text (Delphi's)
_MARKED = 0.3


class LlmScorer:
    """Scores labels on contexts that nobody was shown.

    Args:
        chat: The language model.
        batch: Texts in a request, 1 to 15.
        seed: Of the order of the texts and of the tokens marked at random.
    """

    def __init__(self, chat: Chat, *, batch: int = BATCH, seed: int = 0) -> None:
        self.chat, self._batch, self._seed = chat, batch, seed

    def score(
        self,
        interpretation: Interpretation,
        activating: Sequence[TopContext],
        silent: Sequence[TopContext],
    ) -> dict[str, Measure]:
        """Both scores of a feature's label, in the words of `description_of`.

        Args:
            interpretation: With a label. Contexts that it shows are left out of the others unless
                rules wrote the label: they were shown none.
            activating: Held-out contexts it fires in, with ``activations``.
            silent: Held-out contexts it does not fire in.

        Returns:
            ``{"detection_llm", "fuzzing_llm"}``.

        Raises:
            UnusableError: The endpoint answers nothing.
        """
        description, about = description_of(interpretation), str(interpretation.feature)
        if description is None:
            return dict.fromkeys(("detection_llm", "fuzzing_llm"), UNDESCRIBED)
        by_rules = interpretation.explainer == "rules"
        shown = set() if by_rules else {context.tokens for context in interpretation.contexts}
        fires = [c for c in activating if c.tokens not in shown]
        quiet = [c for c in silent if c.tokens not in shown]
        return {
            "detection_llm": self.detection(description, fires, quiet, about=about),
            "fuzzing_llm": self.fuzzing(description, fires, quiet, about=about),
        }

    def detection(
        self,
        description: str,
        activating: Sequence[TopContext],
        silent: Sequence[TopContext],
        *,
        about: str = "",
    ) -> Measure:
        """Which of the texts activate the feature: balanced accuracy."""
        texts: list[object] = ["".join(c.tokens) for c in (*activating, *silent)]
        return self._measured("detect.v1", description, texts, len(activating), about)

    def fuzzing(
        self,
        description: str,
        activating: Sequence[TopContext],
        silent: Sequence[TopContext],
        *,
        about: str = "",
    ) -> Measure:
        """Are the marked tokens those that it fires on: balanced accuracy."""
        draw = random.Random(self._seed)
        marks = [_marks(context) for context in activating]
        usual = math.ceil(sum(map(len, marks)) / len(marks)) if marks else 0
        for context in silent:
            n = len(context.tokens)
            marks.append(set(draw.sample(range(n), min(usual, n))))
        texts: list[object] = [
            _pieces(context.tokens, marked)
            for context, marked in zip((*activating, *silent), marks, strict=True)
        ]
        return self._measured("fuzz.v1", description, texts, len(activating), about)

    def _measured(
        self, template: str, description: str, items: list[object], n_first: int, about: str
    ) -> Measure:
        """Balanced accuracy where the first `n_first` items are the positive ones."""
        if not 0 < n_first < len(items):
            why = "no silent text" if n_first else "no activating text"
            return Measure(None, n_positive=n_first, n_negative=len(items) - n_first, why=why)
        order = list(range(len(items)))
        random.Random(self._seed).shuffle(order)  # the kinds come mixed
        told = judge(
            self.chat,
            template,
            Verdicts,
            description,
            [items[i] for i in order],
            about=about or description,
            batch=self._batch,
        )
        verdicts = dict(zip(order, told, strict=True))
        positive = [v for i, v in verdicts.items() if v is not None and i < n_first]
        negative = [v for i, v in verdicts.items() if v is not None and i >= n_first]
        if not positive or not negative:
            why = "the language model judged no text of one kind"
            return Measure(None, n_positive=len(positive), n_negative=len(negative), why=why)
        right = sum(positive) / len(positive) + (1 - sum(negative) / len(negative))
        return Measure(right / 2, n_positive=len(positive), n_negative=len(negative))


def _marks(context: TopContext) -> set[int]:
    """The tokens that the feature fires on, weak ones left out."""
    if not context.activations:
        return set() if context.peak is None else {context.peak}
    least = _MARKED * max(map(abs, context.activations))
    return {i for i, a in enumerate(context.activations) if abs(a) > least}


def _pieces(tokens: Sequence[str], marked: set[int]) -> list[object]:
    """A text in pieces; marked tokens are objects, so that no text can look like a mark."""
    pieces: list[object] = []
    for i, token in enumerate(tokens):
        if i in marked:
            pieces.append({"marked": token})
        elif pieces and isinstance(pieces[-1], str):
            pieces[-1] += token
        else:
            pieces.append(token)
    return pieces
