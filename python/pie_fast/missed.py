"""Missed mass: how much features do that a selection left out.

What all rejected features do together is known exactly: it is what separates the circuit from the
model. It says little of each, for they may cancel. Between circuit and model lie the states with
only some of them. Split the rejected features R at random into two halves, S and the others, and
run the circuit with the one half and with the other on top (which is the model with the other and
with the one half at its baseline: noising and denoising ask the same here). On prompt p

    x_p(S) = m_p(C + S) - m_p(C + R without S)           each feature in S with probability 1/2
    X(S)   = mean over p of x_p(S)^2                     two forward runs

Where rejected features add up, with effects e_fp, x_p is a sum of +-e_fp with random signs, and

    E X = mean over p of sum over f of e_fp^2 = mass^2

exactly: features that cancel are seen. Where they interact, E X is 4 times the sum of the squared
Fourier coefficients of odd order, hence at least the sum of squared *average* effects: of f with
every other rejected feature in or out at random (its Banzhaf value). Either way no single rejected
feature has a root mean square effect above the mass, and all |effects| together are at most
sqrt(|R|) * mass.

The bound. n draws of X have mean Q. A sum with random signs has a fourth moment of at most 3 times
its squared second moment (Khinchine), so E X^2 <= 3 (E X)^2. Of the non-negative variables of such
moments the one with the largest E exp(-t X) is 3 E X times a coin of probability 1/3, whence
(Chernoff), with kl(a || b) = a log(a / b) + (1 - a) log((1 - a) / (1 - b)),

    P(Q <= r E X) <= exp(-n kl(r / 3 || 1 / 3))          0 <= r <= 1

and E X <= Q / r with confidence 1 - exp(-n kl(r / 3 || 1 / 3)). No range, no variance and no normal
distribution is assumed; that effects add up is, for E X^2 <= 3 (E X)^2. The confidence is over the
draws of halves, on these very prompts; it says nothing of other prompts. The diagnostic that it
grew from is that of AtP* (arXiv 2403.00745): patch random subsets of what was not found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pie_fast.behaviors import Prompt
from pie_fast.budget import check_between
from pie_fast.errors import PieFastError
from pie_fast.ground import Ground, Progress
from pie_fast.model import Replacer, Switches

CONFIDENCE = 0.95


@dataclass(frozen=True)
class MissedMass:
    """What the rejected features do, in units of the metric.

    Attributes:
        metric: That was measured; `logprob` where the behaviour's is `kl`, whose effects do not
            add up.
        mass: The estimate: root of the sum of squared effects of the rejected features, root mean
            square over prompts.
        upper: Its upper bound: no rejected feature has a larger effect (root mean square).
        together: All rejected features at once, exactly: mean over prompts of m(model) -
            m(circuit), signed.
        whole: m(model) - m(empty), to compare with.
        confidence: Of the bound.
        n_rejected: Features that differ from their baseline on these prompts and are not in the
            circuit.
        n_subsets: Random halves that were drawn.
        n_prompts: That it was measured on.
    """

    metric: str
    mass: float
    upper: float
    together: float
    whole: float
    confidence: float
    n_rejected: int
    n_subsets: int
    n_prompts: int

    @property
    def absolute_upper(self) -> float:
        """Upper bound of the sum of all |effects|, mean over prompts (Cauchy-Schwarz)."""
        return math.sqrt(self.n_rejected) * self.upper

    def to_dict(self) -> dict[str, Any]:
        """For results."""
        return {**asdict(self), "absolute_upper": self.absolute_upper}


def missed_mass(
    model: Replacer,
    circuit: Iterable[int],
    prompts: Sequence[Prompt],
    *,
    metric: str,
    switches: Switches | None = None,
    mean_of: Sequence[Prompt] = (),
    n_subsets: int = 32,
    confidence: float = CONFIDENCE,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> MissedMass:
    """Estimate and bound what a circuit left out, by `2 * n_subsets + 3` forward runs.

    Args:
        model: The replacement model.
        circuit: Global ids of the features kept.
        prompts: On which; held-out ones, as of an evaluation.
        metric: See `pie_fast.metrics`.
        switches: Baseline and the rest; the default `Switches` when None.
        mean_of: Prompts that `baseline="mean"` averages over; `prompts` when empty.
        n_subsets: Random halves; at least `fewest_subsets(confidence)`.
        confidence: Of the bound, between 0 and 1.
        batch_size: Prompts a batch.
        seed: Of the halves.
        progress: Called after each batch of runs.

    Raises:
        BehaviorError: There are no prompts.
        PieFastError: Too few subsets for this confidence.
    """
    factor = shrinkage(n_subsets, confidence)
    metric = "logprob" if metric == "kl" else metric
    ground = Ground(model, prompts, metric, switches, batch_size=batch_size, mean_of=mean_of)
    kept = np.unique(np.fromiter(circuit, dtype=np.int64))
    # A kept feature that does not move here by itself may once others are at their baseline.
    ground.pool = model.make_pool(np.union1d(ground.pool.global_ids, kept).tolist())
    inside = np.isin(ground.pool.global_ids, kept)
    half = np.random.default_rng(seed).random((n_subsets, len(ground))) < 0.5
    bounds = [inside, np.ones_like(inside), np.zeros_like(inside)]
    states = np.concatenate([half | inside, ~half | inside, bounds])
    gates = ground.gates(*(np.flatnonzero(row) for row in states))
    one, other, ends = np.split(
        ground.values(gates, metric, progress=progress), [n_subsets, 2 * n_subsets]
    )
    of_circuit, of_model, of_empty = ends.mean(1)
    mass = math.sqrt(((one - other) ** 2).mean())
    return MissedMass(
        metric=metric,
        mass=mass,
        upper=mass / math.sqrt(factor),
        together=float(of_model - of_circuit),
        whole=float(of_model - of_empty),
        confidence=confidence,
        n_rejected=int((~inside).sum()),
        n_subsets=n_subsets,
        n_prompts=len(prompts),
    )


def shrinkage(n: int, confidence: float) -> float:
    """The `r` of the bound: the mean of n draws is surely not below r times its expectation.

    Raises:
        PieFastError: `n` is too small for any bound, or `confidence` is not between 0 and 1.
    """
    check_between("confidence", confidence, 0.0)
    enough = fewest_subsets(confidence)
    if n < enough:
        raise PieFastError(
            f"n_subsets is {n}, must be at least {enough} for a confidence of {confidence:g}"
        )
    wanted = -math.log1p(-confidence) / n
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        r = (low + high) / 2
        low, high = (r, high) if _divergence(r / 3) > wanted else (low, r)
    return low


def fewest_subsets(confidence: float = CONFIDENCE) -> int:
    """The smallest n for which there is a bound: 8 for a confidence of 0.95."""
    return math.floor(-math.log1p(-confidence) / _divergence(0.0)) + 1


def _divergence(a: float) -> float:
    """kl(a || 1/3) of two coins."""
    head = a * math.log(3 * a) if a > 0 else 0.0
    return head + (1 - a) * math.log1p(-a) - (1 - a) * math.log(2 / 3)
