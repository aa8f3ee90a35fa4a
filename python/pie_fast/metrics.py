"""What a behaviour is measured by, and how far a circuit is from its model.

Every metric grows with the behaviour: `logit-diff` = logit(answer) - logit(foil), `logprob` =
log p(answer), `prob-diff` = p(answer) - p(foil), `kl` = -KL(model || circuit), `logit` =
logit(answer) - the mean logit (circuit-tracer's logit target). Logits are those at the answer
position.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pie_fast.behaviors.behavior import METRICS, NEEDS_FOIL
from pie_fast.errors import BehaviorError


def metric_values(
    name: str, logits: Tensor, answer: Tensor, foil: Tensor, reference: Tensor | None = None
) -> Tensor:
    """The metric of each prompt.

    Args:
        name: One of `METRICS`.
        logits: `[n, vocab]`.
        answer: `[n]` int64.
        foil: `[n]` int64, -1 where there is none.
        reference: `[n, vocab]` logits of the model itself, for `kl`.

    Returns:
        `[n]`, in nats for `logprob` and `kl`, in logits or probability otherwise.

    Raises:
        BehaviorError: Unknown metric, or a foil or reference is missing.
    """
    check_metric(name)
    if name in NEEDS_FOIL and bool((foil < 0).any()):
        raise BehaviorError(f"metric {name} needs a foil for every prompt")
    if name == "kl":
        if reference is None:
            raise BehaviorError("metric kl needs the model's own logits as its reference")
        return -kl_divergence(reference, logits)
    rows = torch.arange(len(logits), device=logits.device)
    if name == "logit-diff":
        return logits[rows, answer] - logits[rows, foil]
    if name == "logit":
        return logits[rows, answer] - logits.mean(-1)
    logp = torch.log_softmax(logits, -1)
    if name == "logprob":
        return logp[rows, answer]
    return logp[rows, answer].exp() - logp[rows, foil].exp()


def check_metric(name: str, *, for_gradient_at_clean: bool = False) -> None:
    """Refuse an unknown metric, and `kl` where its gradient is exactly 0.

    Raises:
        BehaviorError: With the names that are known.
    """
    if name not in METRICS:
        raise BehaviorError(f"unknown metric {name!r}, known: {', '.join(METRICS)}")
    if for_gradient_at_clean and name == "kl":
        raise BehaviorError(
            "metric kl has gradient 0 at the clean run, so attributions would all be 0: "
            "use logit-diff, logprob, prob-diff or logit"
        )


def kl_divergence(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p || q) of each row in nats, summed (not averaged) over the vocabulary: `[n]`."""
    wide = torch.float32 if p_logits.device.type == "mps" else torch.float64  # all that MPS has
    p, q = (torch.log_softmax(logits.to(wide), -1) for logits in (p_logits, q_logits))
    # Where p underflows to 0 its term is 0, also when q does.
    terms = torch.where(p.exp() > 0, p.exp() * (p - q), torch.zeros_like(p))
    return terms.sum(-1).clamp(min=0)
