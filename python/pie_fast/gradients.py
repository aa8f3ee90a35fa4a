"""Gradient rules: what a backward pass through the replacement model takes for a constant.

    full      nothing: the derivative itself
    frozen    norm scales, attention patterns, the features, and the softcap of the logits:
              circuit-tracer's linear model
    relp      norm scales                         (RelP: the LN rule)
    relp-ah   norm scales and attention patterns  (RelP: the LN and the AH rule)
    gim       norm scales; attention as below     (GIM, arXiv 2505.17630)

A rule changes the backward pass only, never a value of the forward pass. (A CLT that reads
`ln2.hook_normalized` of an RMSNorm excepted: what it reads differs by rounding in float32.)

RelP's rule for an activation is f(x) / x in place of f'(x). A JumpReLU is the identity above its
threshold and 0 below, where both are the same, so features need nothing; and the features stand
for the MLPs, so its rule for gated MLPs has nothing to apply to. RelP leaves it open whether
patterns are constants (its AH rule): `relp` differentiates them, `relp-ah` does not. `frozen` goes
one step further than `relp-ah`: features downstream of a feature do not react to it.

GIM mends two faults of the derivative of attention. A peaked softmax has next to none: the
backward pass uses the softmax at temperature 2. And where two factors of a product both depend on
a feature, their gradients count the same effect twice: each factor of a product of two gets half.
The pattern and the values are one such product, queries and keys in the scores another, so that
1/2 flows through the values and 1/4 through queries and keys each. Where patterns are frozen to the
clean run's (`attention="freeze"`) there is one factor only, and `gim` is `relp`.

Norms of queries and keys (Gemma 3, Qwen 3) count as norms wherever patterns are differentiated, and
so do those behind the MLP (Gemma 2 and 3) where features write before them.

Metrics are of the logits that the model gives, after the final softcap of Gemma 2. Their gradient
goes through it, but by `frozen`: circuit-tracer injects its gradient before the softcap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pie_fast.errors import PieFastError


@dataclass(frozen=True)
class Rule:
    """What the backward pass does with the parts of the model that are not linear.

    Attributes:
        norms: Norm scales are differentiated; constants otherwise.
        features: Features react to features of lower layers; constants otherwise.
        attention: Patterns are differentiated (`exact`), constants (`constant`), or as GIM has it.
        softcap: The softcap of the logits (Gemma 2) is differentiated; the identity otherwise.
    """

    norms: bool = False
    features: bool = True
    attention: Literal["exact", "constant", "gim"] = "exact"
    softcap: bool = True


RULES = {
    "full": Rule(norms=True),
    "frozen": Rule(features=False, attention="constant", softcap=False),
    "relp": Rule(),
    "relp-ah": Rule(attention="constant"),
    "gim": Rule(attention="gim"),
}

#: names of the rules
GRADIENTS = tuple(RULES)


def check_gradient(gradient: str) -> None:
    """Refuse an unknown gradient rule.

    Raises:
        PieFastError: With the rules that are known.
    """
    if gradient not in RULES:
        raise PieFastError(f"gradient is {gradient!r}, must be one of {', '.join(GRADIENTS)}")
