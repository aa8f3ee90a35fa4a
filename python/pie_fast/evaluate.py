"""Evaluate: keep K features, set the rest to their baseline, and compare with the model.

    behavioral_fidelity = 1 - min(mean KL(model || circuit), 1)             PIE
    faithfulness        = (m(C) - m(empty)) / (m(M) - m(empty))             means before the ratio
    completeness        = (m(M without C) - m(empty)) / (m(M) - m(empty))   low is good

All of it with the CLT's errors kept (constants of the clean run) and, beside it, dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pie_fast.attribution import own_metric, run_metric
from pie_fast.behaviors import Prompt
from pie_fast.errors import PieFastError
from pie_fast.gated import gated_pool, with_slots
from pie_fast.metrics import kl_divergence
from pie_fast.model import Pool, Replacer, Setup, Switches, batches
from pie_fast.slots import Slots

N_BOOTSTRAP = 1000

#: called with the number of circuits done and the number there are
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Measured:
    """What one circuit does on each prompt, `[n_prompts]` float64 each.

    Attributes:
        kl: KL(model || circuit) in nats.
        kl_reverse: KL(circuit || model).
        top1: 1 where both put the same token first.
        metric: m(C).
        metric_model: m(M).
        metric_empty: m(empty).
        metric_without: m(M without C).
    """

    kl: NDArray[np.float64]
    kl_reverse: NDArray[np.float64]
    top1: NDArray[np.float64]
    metric: NDArray[np.float64]
    metric_model: NDArray[np.float64]
    metric_empty: NDArray[np.float64]
    metric_without: NDArray[np.float64]


def evaluate_circuit(
    model: Replacer,
    features: Sequence[int],
    prompts: Sequence[Prompt],
    *,
    metric: str,
    switches: Switches,
    mean_of: Sequence[Prompt] = (),
    kl_direction: str = "model||circuit",
    batch_size: int = 64,
    seed: int = 0,
    slots: Slots | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Everything that is said about one circuit, errors kept and dropped.

    Args:
        model: The replacement model.
        features: Global ids of the features kept; of nodes where there are slots.
        prompts: Held-out prompts.
        metric: See `pie_fast.metrics`.
        switches: Baseline and the rest; `error` decides which figures stand at the top level.
        mean_of: Prompts that `baseline="mean"` averages over.
        kl_direction: `model||circuit` or `circuit||model`, what fidelity is made of.
        batch_size: Prompts a batch.
        seed: Of the bootstrap.
        slots: Of the nodes, see `pie_fast.nodes`; where a prompt has others nothing is kept.
        progress: Called after each batch, with those of both kinds of errors counted.

    Returns:
        `behavioral_fidelity`, `kl_divergences` (one a prompt) and `mean_kl` in `kl_direction`,
        the same with `_reverse` in the other, `faithfulness`, ... with `intervals` (95%,
        bootstrap over prompts; None of a single prompt), and under `error_keep` / `error_drop` the
        summary of each.
    """
    if kl_direction not in ("model||circuit", "circuit||model"):
        raise PieFastError(
            f"kl_direction is {kl_direction!r}, must be 'model||circuit' or 'circuit||model'"
        )
    summaries = {}
    for before, error in enumerate(("keep", "drop")):
        measured = measure(
            model,
            [features],
            prompts,
            metric=metric,
            switches=replace(switches, error=error),
            mean_of=mean_of,
            batch_size=batch_size,
            slots=slots,
            progress=None if progress is None else _half(progress, before),
        )[0]
        summaries[error] = summarize(measured, kl_direction=kl_direction, seed=seed)
    chosen = summaries[switches.error]
    brief = {
        f"error_{error}": {k: v for k, v in summary.items() if not k.startswith("kl_divergences")}
        for error, summary in summaries.items()
    }
    return {
        **chosen,
        **brief,
        "metric": metric,
        "switches": switches.to_dict(),
        "ignore_positions": model.ignore_positions,
        "kl_direction": kl_direction,
        "n_prompts": len(prompts),
        "unit": "feature" if slots is None else "node",
        "n_units": len(features),
        "n_features": len(gated_pool(model, features, slots)[0]),
    }


def measure(
    model: Replacer,
    circuits: Sequence[ArrayLike],
    prompts: Sequence[Prompt],
    *,
    metric: str,
    switches: Switches,
    mean_of: Sequence[Prompt] = (),
    batch_size: int = 64,
    completeness: bool = True,
    progress: Progress | None = None,
    slots: Slots | None = None,
) -> list[Measured]:
    """Run several circuits on the same prompts; each batch is prepared once.

    Args:
        circuits: Global feature ids of each; of nodes where there are slots.
        completeness: Also run the model without each circuit (a full replacement run each).
        slots: As of `evaluate_circuit`.

    Returns:
        One `Measured` a circuit.
    """
    mean_of = mean_of or prompts
    kept = [gated_pool(model, ids, slots) for ids in circuits]
    nothing = gated_pool(model, [], slots)
    parts: list[list[dict[str, NDArray[np.float64]]]] = [[] for _ in circuits]
    total, done = len(circuits) * len(range(0, len(prompts), batch_size)), 0
    for first, batch in batches(prompts, batch_size, model.device):
        prepared = [(first, model.prepare(batch, switches, mean_of))]
        ((_, setup),) = with_slots(prepared, prompts, slots)
        own = own_metric(setup, metric).cpu().double().numpy()
        empty = _run_circuit(model, setup, *nothing, metric)["metric"]
        for circuit, part in zip(kept, parts, strict=True):
            found = _run_circuit(model, setup, *circuit, metric)
            without = _without(model, setup, *circuit, metric) if completeness else own * np.nan
            part.append(
                {**found, "metric_model": own, "metric_empty": empty, "metric_without": without}
            )
            done += 1
            if progress is not None:
                progress(done, total)
    return [
        Measured(**{key: np.concatenate([row[key] for row in part]) for key in part[0]})
        for part in parts
    ]


def _half(progress: Progress, before: int) -> Progress:
    """Progress through the first half of the work, or through the second."""
    return lambda done, total: progress(before * total + done, 2 * total)


def summarize(
    measured: Measured, *, kl_direction: str = "model||circuit", seed: int = 0
) -> dict[str, Any]:
    """Means and 95% bootstrap intervals of one circuit's figures; None of a single prompt."""
    kl, reverse = measured.kl, measured.kl_reverse
    if kl_direction != "model||circuit":
        kl, reverse = reverse, kl
    rows = np.stack(
        [
            kl,
            reverse,
            measured.top1,
            measured.metric,
            measured.metric_model,
            measured.metric_empty,
            measured.metric_without,
        ]
    )
    point = _figures(rows.mean(1))
    spread = [_figures(rows[:, draw].mean(1)) for draw in _draws(rows.shape[1], seed)]
    intervals = {key: _interval([s[key] for s in spread]) for key in point}
    return {
        **point,
        "kl_divergences": kl.tolist(),
        "kl_divergences_reverse": reverse.tolist(),
        "intervals": intervals,
    }


def fidelity(mean_kl: float) -> float:
    """`1 - min(mean KL, 1)`."""
    return 1.0 - min(mean_kl, 1.0)


def fidelity_curve(
    model: Replacer,
    orders: Mapping[str, Sequence[int]],
    budgets: Iterable[int],
    prompts: Sequence[Prompt],
    *,
    metric: str,
    switches: Switches,
    mean_of: Sequence[Prompt] = (),
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
    slots: Slots | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Fidelity over budgets for several selectors.

    Args:
        orders: Selector -> global feature ids, best first; a budget takes the first of them.
            Ids of nodes where there are slots.
        budgets: Those above the length of an order are left out for it.
        seed: Of the bootstrap, as of `evaluate_circuit`: equal circuits have equal intervals.
        slots: As of `evaluate_circuit`.

    Returns:
        Selector -> `[{"budget", "fidelity", "mean_kl", "faithfulness", "intervals"}]`, where
        `intervals` has those of `fidelity` and `mean_kl`: `[low, high]`, 95%, bootstrap over
        prompts, or None of a single prompt.
    """
    points = [(name, k) for name, order in orders.items() for k in budgets if k <= len(order)]
    found = measure(
        model,
        [orders[name][:k] for name, k in points],
        prompts,
        metric=metric,
        switches=switches,
        mean_of=mean_of,
        batch_size=batch_size,
        completeness=False,
        progress=progress,
        slots=slots,
    )
    draws = _draws(len(prompts), seed)
    curves: dict[str, list[dict[str, Any]]] = {name: [] for name in orders}
    for (name, k), measured in zip(points, found, strict=True):
        spread = measured.kl[draws].mean(1).tolist()
        whole = measured.metric_model.mean() - measured.metric_empty.mean()
        gained = measured.metric.mean() - measured.metric_empty.mean()
        curves[name].append(
            {
                "budget": k,
                "fidelity": fidelity(float(measured.kl.mean())),
                "mean_kl": float(measured.kl.mean()),
                "faithfulness": float(gained / whole) if whole else None,
                "intervals": {
                    "fidelity": _interval([fidelity(kl) for kl in spread]),
                    "mean_kl": _interval(spread),
                },
            }
        )
    return curves


def _figures(means: NDArray[np.float64]) -> dict[str, float | None]:
    kl, reverse, top1, metric, of_model, of_empty, without = (float(m) for m in means)
    whole = of_model - of_empty
    ratio = (lambda m: (m - of_empty) / whole) if whole else (lambda _: None)
    return {
        "behavioral_fidelity": fidelity(kl),
        "mean_kl": kl,
        "mean_kl_reverse": reverse,
        "top1_agreement": top1,
        "metric_circuit": metric,
        "metric_model": of_model,
        "metric_empty": of_empty,
        "faithfulness": ratio(metric),
        "completeness": None if np.isnan(without) else ratio(without),
    }


def _draws(n_prompts: int, seed: int) -> NDArray[np.int64]:
    """Prompts drawn with replacement, `[n_draws, n_prompts]`; a single one has no spread."""
    n_draws = N_BOOTSTRAP if n_prompts > 1 else 0
    return np.random.default_rng(seed).integers(0, n_prompts, (n_draws, n_prompts))


def _interval(values: Sequence[float | None]) -> list[float] | None:
    """The middle 95% of a bootstrap; None without draws, or where one has no value."""
    known = [v for v in values if v is not None]
    if not known or len(known) < len(values):
        return None
    low, high = np.quantile(np.asarray(known), [0.025, 0.975])
    return [float(low), float(high)]


def _run_circuit(
    model: Replacer, setup: Setup, pool: Pool, gates: Tensor, metric: str
) -> dict[str, NDArray[np.float64]]:
    with torch.no_grad():
        run = model.run(setup, pool, gates, rest="baseline")
        logits = run.logits[0]
        found = {
            "kl": kl_divergence(setup.logits, logits),
            "kl_reverse": kl_divergence(logits, setup.logits),
            "top1": (logits.argmax(-1) == setup.logits.argmax(-1)).cpu().double(),
            "metric": run_metric(setup, run, metric)[0].cpu().double(),
        }
    return {key: value.cpu().numpy() for key, value in found.items()}


def _without(
    model: Replacer, setup: Setup, pool: Pool, gates: Tensor, metric: str
) -> NDArray[np.float64]:
    with torch.no_grad():
        run = model.run(setup, pool, 1 - gates, rest="free")
        return run_metric(setup, run, metric)[0].cpu().double().numpy()
