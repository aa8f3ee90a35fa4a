"""What interventions did: results that can be read as they are printed. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast import display
from pie_fast.types import FeatureId

#: changes that are printed
SHOWN = 20

#: a token id as text
Decode = Callable[[int], str]


@dataclass(frozen=True)
class Change:
    """One feature at one position.

    Attributes:
        feature: Which.
        position: Where.
        clean: Its activation in the model itself.
        current: What its encoder made of the run, the interventions below it included.
        value: What it was set to.
    """

    feature: FeatureId
    position: int
    clean: float
    current: float
    value: float


@dataclass(frozen=True)
class TokenChange:
    """A next token, with its probability in the model itself and under the interventions."""

    token: int
    text: str
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Intervened:
    """A prompt run under interventions, and the model itself beside.

    Attributes:
        tokens: Of the prompt.
        answer_position: Whose logits count as the answer.
        logits: `[vocab]` float32 at the answer position, `[n_pos, vocab]` where all were asked for.
        original_logits: The same of the model itself.
        changes: What was set, ascending by feature and position.
        settings: What was frozen.
    """

    tokens: tuple[int, ...]
    answer_position: int
    logits: NDArray[np.float32]
    original_logits: NDArray[np.float32]
    changes: tuple[Change, ...]
    settings: dict[str, Any]
    decode: Decode = field(repr=False)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """`[vocab]` at the answer position."""
        return _softmax(self._answer(self.logits))

    @property
    def original_probabilities(self) -> NDArray[np.float64]:
        """`[vocab]` at the answer position, of the model itself."""
        return _softmax(self._answer(self.original_logits))

    def top(self, k: int = 5) -> list[TokenChange]:
        """The k likeliest next tokens before and after together, likeliest after first."""
        before, after = self.original_probabilities, self.probabilities
        ids = {int(i) for p in (before, after) for i in np.argsort(-p, kind="stable")[:k]}
        order = sorted(ids, key=lambda i: (-after[i], i))
        return [TokenChange(i, self.decode(i), float(before[i]), float(after[i])) for i in order]

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        """Without the logits, for JSON."""
        changes = [
            {
                "layer": c.feature.layer,
                "index": c.feature.index,
                "position": c.position,
                "clean": c.clean,
                "current": c.current,
                "value": c.value,
            }
            for c in self.changes
        ]
        top = [
            {"token": t.token, "text": t.text, "before": t.before, "after": t.after}
            for t in self.top(k)
        ]
        return {
            "tokens": list(self.tokens),
            "answer_position": self.answer_position,
            "changes": changes,
            "top": top,
            "settings": self.settings,
        }

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return display.intervened(self)

    def table(self, k: int = 5) -> str:
        """The next tokens of `top`, and what was changed."""
        lines = [f"{'token':<20} {'before':>8} {'after':>8}"]
        lines += [f"{t.text!r:<20} {t.before:8.4f} {t.after:8.4f}" for t in self.top(k)]
        lines += ["", f"{'feature':<12} {'position':>8} {'clean':>9} {'current':>9} {'set to':>9}"]
        moved = [c for c in self.changes if c.value != c.current]
        lines += [
            f"{c.feature!s:<12} {c.position:>8} {c.clean:9.4f} {c.current:9.4f} {c.value:9.4f}"
            for c in moved[:SHOWN]
        ]
        more, same = len(moved[SHOWN:]), len(self.changes) - len(moved)
        if more:
            lines.append(f"and {more} more")
        if same:
            lines.append(f"and {same} that had this activation already")
        return "\n".join(lines)

    def _answer(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = logits if logits.ndim == 1 else logits[self.answer_position]
        return answer


@dataclass(frozen=True)
class Generated:
    """A continuation under interventions, and that of the model itself beside.

    Attributes:
        tokens: Of the prompt.
        new_tokens: That followed under the interventions.
        original_new_tokens: That followed in the model itself, by the same draws.
        text: `new_tokens` as text, or their ids where there is no tokenizer.
        original_text: The same of `original_new_tokens`.
    """

    tokens: tuple[int, ...]
    new_tokens: tuple[int, ...]
    original_new_tokens: tuple[int, ...]
    text: str
    original_text: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "new_tokens": list(self.new_tokens),
            "original_new_tokens": list(self.original_new_tokens),
            "text": self.text,
            "original_text": self.original_text,
        }

    def __str__(self) -> str:
        return f"before: {self.original_text!r}\nafter:  {self.text!r}"

    def _repr_html_(self) -> str:
        return display.generated(self)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    probabilities: NDArray[np.float64] = shifted / shifted.sum()
    return probabilities
