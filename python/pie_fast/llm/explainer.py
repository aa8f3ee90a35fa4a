"""Labels of features by a language model, from contexts, tokens and what fires with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pie_fast.errors import PieFastError
from pie_fast.interpretation import Interpretation, TopContext
from pie_fast.llm.answers import Explanation
from pie_fast.llm.client import Chat
from pie_fast.llm.prompts import render
from pie_fast.llm.request import Request
from pie_fast.progress import Advance

_TEMPLATE = "explain.v1"


class LlmExplainer:
    """Explains features that have been looked at already.

    Args:
        chat: The language model.
        n_contexts: At most so many contexts of each kind.
        before: Tokens shown before the peak.
        after: Tokens shown after it.
        n_tokens: Promoted and suppressed tokens shown.
        n_coactive: Labels shown of features that fire with it.

    Raises:
        PieFastError: A number below 0.
    """

    def __init__(
        self,
        chat: Chat,
        *,
        n_contexts: int = 12,
        before: int = 48,
        after: int = 16,
        n_tokens: int = 8,
        n_coactive: int = 3,
    ) -> None:
        counts = {"n_contexts": n_contexts, "before": before, "after": after}
        counts |= {"n_tokens": n_tokens, "n_coactive": n_coactive}
        for name, count in counts.items():
            if count < 0:
                raise PieFastError(f"{name} is {count}, must be at least 0")
        self.chat, self._n_contexts, self._window = chat, n_contexts, (before, after)
        self._n_tokens, self._n_coactive = n_tokens, n_coactive

    def explain(
        self, interpretations: Sequence[Interpretation], advance: Advance | None = None
    ) -> list[Interpretation]:
        """The same interpretations with labels of the language model.

        The label so far, and its quality, go into ``rule`` where there is one. Where the model
        gives no label the interpretation stays as it is, and the chat's ``failures`` say why.

        Args:
            interpretations: With contexts; their labels are shown to neighbours as hints.
            advance: Told how many of how many are done.

        Raises:
            UnusableError: The endpoint answers nothing.
        """
        labels = {one.feature: one.label for one in interpretations}
        answers = self.chat.ask_all([self.request(i, labels) for i in interpretations], advance)
        return [
            one if answer is None else _labelled(one, answer.label, self.chat.model)
            for one, answer in zip(interpretations, answers, strict=True)
        ]

    def request(
        self, interpretation: Interpretation, labels: Mapping[Any, str]
    ) -> Request[Explanation]:
        """What is asked about one feature; `labels` are those of features that may fire with it."""
        kinds: dict[str, list[TopContext]] = {}
        for context in interpretation.contexts:
            kinds.setdefault(context.kind, []).append(context)
        shown = [context for kind in kinds.values() for context in kind[: self._n_contexts]]
        strongest = max((_strongest(context) for context in shown), default=0.0)
        fires_with = [
            labels[link.feature] for link in interpretation.coactive if link.feature in labels
        ]
        feature = {
            "contexts": [shown_context(context, strongest, *self._window) for context in shown],
            "promoted": [t.token for t in interpretation.promoted[: self._n_tokens]],
            "suppressed": [t.token for t in interpretation.suppressed[: self._n_tokens]],
            "fires_with": fires_with[: self._n_coactive],
        }
        return Request(
            template=_TEMPLATE,
            about=str(interpretation.feature),
            messages=render(_TEMPLATE, feature=feature),
            schema=Explanation,
            answer_tokens=80,
        )


def shown_context(context: TopContext, strongest: float, before: int, after: int) -> dict[str, Any]:
    """A context as data: around its peak, strengths in ninths of the strongest activation.

    Args:
        context: With a peak, or silent.
        strongest: The ``|activation|`` that is 9; every firing token has at least 1.
        before: Tokens kept before the peak; of a silent context, its first ``before + after``.
        after: Tokens kept after it.
    """
    tokens, peak = context.tokens, context.peak
    if peak is None:
        return {"kind": context.kind, "text": "".join(tokens[: before + after])}
    first, last = max(0, peak - before), peak + 1 + after
    activations = context.activations or tuple(
        context.activation if i == peak else 0.0 for i in range(len(tokens))
    )
    strengths = [
        [token, strength(a, strongest)]
        for token, a in zip(tokens[first:last], activations[first:last], strict=True)
        if a
    ]
    return {
        "kind": context.kind,
        "before": "".join(tokens[first:peak]),
        "peak": tokens[peak],
        "after": "".join(tokens[peak + 1 : last]),
        "strengths": strengths,
    }


def strength(activation: float, strongest: float) -> int:
    """0 where it is silent, else 1 to 9: ninths of the strongest ``|activation|``, rounded up."""
    if not activation:
        return 0
    return max(1, min(9, math.ceil(9 * abs(activation) / strongest)))


def _strongest(context: TopContext) -> float:
    return max(abs(a) for a in (context.activation, *context.activations))


def _labelled(one: Interpretation, label: str, model: str) -> Interpretation:
    """`one` with a language model's label; what the rule said is kept in ``rule``."""
    rule = one.rule
    if rule is not None:
        rule = {"label": one.label, "label_quality": one.label_quality} | dict(rule)
    return replace(one, label=label, label_quality=None, explainer=f"openai:{model}", rule=rule)
