"""Backward elimination on logits that are linear in the gates (METHODS.md 3.4).

At a circuit S0, once and for all: the logits z of the likeliest tokens and J, how each moves with
the gate of each feature, one backward pass a token. With a set R of S0 set to its baseline

    z(R) ~ z - sum over i in R of J_i
    KL(R)  =  KL(model || softmax z(R))                                            LinKL
           ~  KL(0) - sum over R of b_i + 1/2 sum over R x R of G_ij               Fisher-Gram

    b = J^T (q - p)      G = J^T (diag q - q q^T) J      p the model's, q the circuit's own

both as means over prompts; at the full model q = p and b = 0, which is the form of METHODS.md. G is
positive semidefinite, a signed matrix of pair synergies without one pair patched: G_ij > 0 where
losing both costs more than twice, < 0 where the two cancel.

The feature whose loss costs least goes first; reversed, the order of elimination holds every
budget. Tokens other than those chosen are one more outcome, whose logit is the log of the sum of
their exponentials, so that p sums to 1 and the KL of these outcomes is at most that of all tokens.

What saturates at S0 is invisible: of two features that back each other up both go early.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pie_fast.cost import Cost
from pie_fast.errors import PieFastError
from pie_fast.ground import Ground
from pie_fast.methods.selector import Order, ranked
from pie_fast.model import Setup

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Linear:
    """Logits of a circuit and how they move with its gates.

    Attributes:
        members: `[n]` positions among the candidates, ascending.
        model: `[n_prompts, m]` log probabilities of the outcomes in the model itself.
        logits: `[n_prompts, m]` of the circuit.
        slopes: `[n_prompts, m, n]` d logit / d gate, `J`.
        weights: `[n_prompts]`, sum 1.
    """

    members: NDArray[np.int64]
    model: Floats
    logits: Floats
    slopes: Floats
    weights: Floats

    def gram(self) -> tuple[Floats, Floats]:
        """`b` `[n]` and `G` `[n, n]`."""
        q = np.exp(log_softmax(self.logits))
        gap = self.weights[:, None] * (q - np.exp(self.model))
        middle = np.einsum("pm,pmn->pn", q, self.slopes)[:, None]
        root = np.sqrt(self.weights[:, None] * q)[..., None] * (self.slopes - middle)
        root = root.reshape(q.size, self.slopes.shape[-1])
        return np.einsum("pm,pmn->n", gap, self.slopes), root.T @ root


def log_softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def fisher_gram(ground: Ground, k: int, *, tokens: int = 16, pool: int = 2048) -> Order:
    """Eliminate by the quadratic form.

    Args:
        tokens: The likeliest so many, answer and foil among them, are outcomes of their own.
        pool: Where there are more candidates, only the best so many by mean |effect| are
            linearised, the others being at their baseline, and ranked; 0: all.
    """
    return _eliminated(ground, tokens, pool, by_gram)


def linkl(ground: Ground, k: int, *, tokens: int = 16, pool: int = 2048) -> Order:
    """Eliminate by the KL of the linear logits; arguments as of `fisher_gram`."""
    return _eliminated(ground, tokens, pool, by_kl)


def linearise(ground: Ground, members: NDArray[np.int64], tokens: int) -> Linear:
    """The circuit of `members`, all other candidates at their baseline.

    One forward pass, and a backward pass for each of `tokens` + 1 outcomes.

    Raises:
        PieFastError: `tokens` is below 2.
    """
    if tokens < 2:
        raise PieFastError(f"tokens is {tokens}, must be at least 2")
    parts = [_linearised(ground, setup, members, tokens) for _, setup in ground.setups]
    model, logits, slopes = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Linear(members, model, logits, slopes, ground.weights / ground.weights.sum())


def _linearised(
    ground: Ground, setup: Setup, members: NDArray[np.int64], tokens: int
) -> tuple[Floats, Floats, Floats]:
    """`model`, `logits` and `slopes` of `Linear` on one batch."""
    model = ground.model
    pool = model.make_pool(ground.pool.global_ids[members].tolist())
    run = model.run(setup, pool, rest="baseline", gradient="full")
    chosen = _likeliest(setup, tokens)
    found = _outcomes(run.logits[0], chosen)
    terms = [columns.values for columns in run.terms]
    counted = setup.counted[..., None]
    slopes = []
    for column in found.T:
        model.spent += Cost(backward=len(column))
        grads = torch.autograd.grad(
            column.sum(), terms, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        each = [(g * d * counted).sum(1) for g, d in zip(grads, run.deltas, strict=True)]
        slopes.append(torch.cat(each, 1))
    own = torch.log_softmax(_outcomes(setup.logits, chosen).double(), -1)
    stacked = torch.stack(slopes, 1).double()
    return own.cpu().numpy(), found.detach().cpu().double().numpy(), stacked.cpu().numpy()


def _likeliest(setup: Setup, tokens: int) -> Tensor:
    """The tokens that are outcomes of their own, answer and foil among them: `[batch, m]`."""
    p = torch.softmax(setup.logits, -1)
    rows = torch.arange(len(p), device=p.device)
    for forced in (setup.batch.answer, setup.batch.foil):
        there = forced >= 0
        p[rows[there], forced[there]] = 2.0
    return p.topk(min(tokens, p.shape[-1]), -1).indices


def _outcomes(logits: Tensor, chosen: Tensor) -> Tensor:
    """Logits of the chosen tokens, and of all others together where there are any."""
    own = logits.gather(1, chosen)
    if chosen.shape[-1] == logits.shape[-1]:
        return own
    others = logits.scatter(1, chosen, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([own, others], 1)


def by_gram(linear: Linear) -> tuple[list[int], Floats]:
    """Columns of `linear` in the order of elimination, with what each added to the KL.

    The loss of i, when R is lost, costs `-b_i + sum over j in R of G_ij + G_ii / 2`.
    """
    slope, gram = linear.gram()
    cost = 0.5 * gram.diagonal() - slope
    order, costs = [], np.zeros(len(cost))
    for step in range(len(cost)):
        out = int(np.argmin(cost))
        order.append(out)
        costs[step] = cost[out]
        cost += gram[out]
        cost[order] = np.inf
    return order, costs


def by_kl(linear: Linear) -> tuple[list[int], Floats]:
    """Columns of `linear` in the order of elimination, with what each added to the KL.

    With `E = exp(-J)` made once, a step's logarithms of sums of exponentials are a product:
    `log sum over v of exp(z_v) E_vi`.
    """
    slopes, weights = linear.slopes, linear.weights
    p = np.exp(linear.model)
    # d KL / d z does not depend on z but for the normaliser: what p says of each J_i is fixed.
    fixed = np.einsum("p,pm,pmn->n", weights, p, slopes)
    lowest = slopes.min(1)
    factors = np.exp(lowest[:, None] - slopes)
    z = log_softmax(linear.logits)
    left = np.arange(slopes.shape[-1])
    order, costs = [], np.zeros(len(left))
    for step in range(len(left)):
        sums = np.einsum("pm,pmn->pn", np.exp(z), factors, optimize=True)
        cost = fixed[left] + weights @ (np.log(sums) - lowest[:, left])
        place = int(np.argmin(cost))
        out = int(left[place])
        order.append(out)
        costs[step] = cost[place]
        z = log_softmax(z - slopes[..., out])
        left, factors = np.delete(left, place), np.delete(factors, place, -1)
    return order, costs


def _reversed(linear: Linear, rule: Callable[[Linear], tuple[list[int], Floats]]) -> Order:
    """What `rule` eliminates last first, as positions among the candidates."""
    order, costs = rule(linear)
    return linear.members[order[::-1]], costs[::-1]


def _eliminated(
    ground: Ground, tokens: int, pool: int, rule: Callable[[Linear], tuple[list[int], Floats]]
) -> Order:
    """Every candidate: those of the pool by elimination, then the others by |effect|."""
    if pool < 0:
        raise PieFastError(f"pool is {pool}, must be at least 0")
    everything = np.arange(len(ground))
    if not 0 < pool < len(ground):
        return _reversed(linearise(ground, everything, tokens), rule)
    by_effect, effects = ranked(ground.mean(np.abs(ground.effects())))
    best = np.sort(by_effect[:pool])
    order, scores = _reversed(linearise(ground, best, tokens), rule)
    return np.concatenate([order, by_effect[pool:]]), np.concatenate([scores, effects[pool:]])
