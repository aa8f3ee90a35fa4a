"""All of PIE in one run: capture, prune, rerank, interpret the K, evaluate them.

RUN/dump/          activations and attributions of the selection prompts, and their synergies
RUN/result.json    features, interpretations, evaluation, curves, settings, timings, versions
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pie_fast._native import __version__ as pie_fast_version
from pie_fast.attribution import Patcher
from pie_fast.behaviors import Behavior
from pie_fast.capture import capture, default_switches
from pie_fast.dump import FeatureDump
from pie_fast.errors import BudgetError, PieFastError
from pie_fast.evaluate import evaluate_circuit, fidelity_curve
from pie_fast.interpret import interpret_features
from pie_fast.model import Replacer, Switches
from pie_fast.outputs import new_folder, write_json
from pie_fast.progress import Reporter
from pie_fast.selectors import Options, Ranked, extend_by_rank, select_features
from pie_fast.synergy_matrix import SynergyMatrix
from pie_fast.synergy_pool import measure_synergy

#: budgets of the fidelity curve
CURVE = (5, 10, 20, 35, 50, 75, 100, 150, 200, 400, 800)

#: selectors that every curve compares
COMPARED = ("random", "magnitude", "fap", "fap-synergy")


@dataclass(frozen=True)
class Plan:
    """The choices of a run; all of them are in its result.

    Attributes:
        budget: K.
        options: Of the selector.
        metric: Of the behaviour when None.
        baseline: Counterfactual where the behaviour has one, else mean, when None.
        error, attention, activations: See `Switches`.
        gradient: `full` or `frozen`.
        direction: Of the synergy.
        estimator: Of the synergy: `gradient-difference` or `exact`.
        pool_factor: The pool holds `max(pool_factor * K, 200)` features, or all active ones.
        synergy_prompts: At most so many prompts measure synergy.
        ablation_prompts: At most so many prompts measure the exact effect of what is kept.
        curve: Also evaluate the selectors over budgets.
        batch_size: Prompts a batch.
    """

    budget: int
    options: Options = field(default_factory=Options)
    metric: str | None = None
    baseline: str | None = None
    error: str = "keep"
    attention: str = "recompute"
    activations: str = "recompute"
    gradient: str = "full"
    direction: str = "noising"
    estimator: str = "gradient-difference"
    pool_factor: float = 4
    synergy_prompts: int = 32
    ablation_prompts: int = 32
    curve: bool = True
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise BudgetError(f"budget {self.budget} is not valid; budgets start at 1")
        if not self.pool_factor >= 1:
            raise PieFastError(f"pool_factor {self.pool_factor} is not a number of at least 1")

    def switches(self, behavior: Behavior) -> Switches:
        """Of every replacement run."""
        baseline = self.baseline or default_switches(behavior).baseline
        return Switches(baseline, self.error, self.attention, self.activations)

    def pool_size(self, n_active: int) -> int:
        """M; with a factor of 1 the budget itself, which shows that reranking K to K is a no-op."""
        wanted = (
            self.budget if self.pool_factor == 1 else max(int(self.pool_factor * self.budget), 200)
        )
        return min(wanted, n_active)


def discover(
    model: Replacer,
    behavior: Behavior,
    plan: Plan,
    out: Path,
    *,
    reporter: Reporter | None = None,
    force: bool = False,
    resume: bool = False,
) -> dict[str, Any]:
    """Find, interpret and evaluate the circuit of a behaviour.

    Args:
        model: The replacement model.
        behavior: Selection prompts find the circuit, held-out prompts judge it.
        plan: Every choice.
        out: The run's folder; it appears when the run is complete.
        reporter: Shows and times the stages.
        force: Replace a run that is there.
        resume: Go on with a run that was stopped.

    Returns:
        What `result.json` holds.

    Raises:
        BudgetError: The budget exceeds the active features.
        OutputExistsError: `out` exists and `force` was not given.
    """
    reporter = reporter or Reporter()
    metric, switches = plan.metric or behavior.metric, plan.switches(behavior)
    with new_folder(out, force=force, resume=resume) as folder:
        with reporter.stage("capture") as advance:
            dump = capture(
                model,
                behavior,
                folder / "dump",
                metric=metric,
                switches=switches,
                gradient=plan.gradient,
                batch_size=plan.batch_size,
                resume=(folder / "dump").exists(),
                progress=advance,
            )
        synergy = _synergy(model, behavior, plan, dump, switches, metric, reporter)
        with reporter.stage("select"):
            chosen = select_features(dump, plan.budget, plan.options, synergy)
        with reporter.stage("interpret"):
            interpretations = _interpret(model, behavior, dump, chosen)
        with reporter.stage("ablate"):
            ablation = _ablate(model, behavior, plan, chosen, switches, metric)
        with reporter.stage("evaluate"):
            evaluation = evaluate_circuit(
                model,
                chosen.ids.tolist(),
                behavior.held_out or behavior.selection,
                metric=metric,
                switches=switches,
                mean_of=behavior.selection,
                seed=plan.options.seed,
            )
        evaluation["split"] = "held_out" if behavior.held_out else "selection"
        curves = {}
        if plan.curve:
            curves = _curves(model, behavior, plan, dump, switches, metric, synergy, reporter)
        result: dict[str, Any] = {
            "features": chosen.listed(),
            "interpretations": interpretations,
            "ablation": ablation,
            "evaluation": evaluation,
            "selector": chosen.selector,
            "curves": curves,
            "n_interpreted": len(interpretations),
            "n_active": len(dump.active_features()),
            "n_dictionary": model.clt.n_layers * model.clt.n_features,
            "settings": {
                **asdict(plan),
                **chosen.settings,
                "metric": metric,
                **switches.to_dict(),
                "model": model.host.name,
                "clt": model.clt.name,
                "behavior": behavior.name,
                "behavior_hash": behavior.hash,
                "behavior_seed": behavior.seed,
                "n_selection": len(behavior.selection),
                "n_held_out": len(behavior.held_out),
            },
            "timings": {name: round(spent, 4) for name, spent in reporter.timings.items()},
            "versions": versions(),
        }
        result["settings"].pop("options")
        write_json(folder / "result.json", result)
    return result


def versions() -> dict[str, str]:
    """What made a result."""
    names = ("torch", "transformers", "transformer-lens", "numpy", "safetensors")
    return {
        "python": platform.python_version(),
        "pie-fast": pie_fast_version,
        **{name: version(name) for name in names},
    }


def _synergy(
    model: Replacer,
    behavior: Behavior,
    plan: Plan,
    dump: FeatureDump,
    switches: Switches,
    metric: str,
    reporter: Reporter,
) -> SynergyMatrix | None:
    if not plan.curve and plan.options.regime(plan.budget) != "fap-synergy":
        return None
    n_active = len(dump.active_features())
    if plan.budget > n_active:
        raise BudgetError(f"budget {plan.budget} exceeds the {n_active} active features")
    with reporter.stage("synergy") as advance:
        return measure_synergy(
            model,
            behavior.selection[: plan.synergy_prompts],
            dump,
            plan.pool_size(n_active),
            rank_by=plan.options.rank_by,
            metric=metric,
            switches=switches,
            estimator=plan.estimator,
            direction=plan.direction,
            batch_size=plan.batch_size,
            mean_of=behavior.selection,
            progress=advance,
        )


def _interpret(
    model: Replacer, behavior: Behavior, dump: FeatureDump, chosen: Ranked
) -> list[dict[str, Any]]:
    """Only the features kept; their cost is the cost of the run that grows with K."""
    signed = dump.score("signed")[chosen.ids].tolist()
    found = interpret_features(model, dump, chosen.ids.tolist(), behavior.selection, signed)
    return [one.to_dict() for one in found]


def _ablate(
    model: Replacer,
    behavior: Behavior,
    plan: Plan,
    chosen: Ranked,
    switches: Switches,
    metric: str,
) -> dict[str, Any]:
    """The ground truth beside the first-order scores: each kept feature alone set to baseline."""
    prompts = behavior.selection[: plan.ablation_prompts]
    patcher = Patcher(
        model,
        prompts,
        model.make_pool(chosen.ids.tolist()),
        metric,
        switches,
        batch_size=plan.batch_size,
        mean_of=behavior.selection,
    )
    place = np.argsort(np.argsort(chosen.ids))
    exact = patcher.effects([(i,) for i in range(len(place))])[place]
    first_order = patcher.first_order(plan.gradient)[place]
    spread = exact.std() * first_order.std()
    agreement = float(np.corrcoef(exact.ravel(), first_order.ravel())[0, 1]) if spread else None
    return {
        "direction": "noising",
        "n_prompts": len(prompts),
        "mean_effect": exact.mean(1).tolist(),
        "mean_abs_effect": np.abs(exact).mean(1).tolist(),
        "first_order_mean_effect": first_order.mean(1).tolist(),
        "first_order_mean_abs_effect": np.abs(first_order).mean(1).tolist(),
        "pearson_per_prompt": agreement,
    }


def _curves(
    model: Replacer,
    behavior: Behavior,
    plan: Plan,
    dump: FeatureDump,
    switches: Switches,
    metric: str,
    synergy: SynergyMatrix | None,
    reporter: Reporter,
) -> dict[str, list[dict[str, float | None]]]:
    with reporter.stage("curve") as advance:
        return fidelity_curve(
            model,
            selector_orders(dump, synergy, plan.options, COMPARED, max(CURVE)),
            sorted({*CURVE, plan.budget}),
            behavior.held_out or behavior.selection,
            metric=metric,
            switches=switches,
            mean_of=behavior.selection,
            progress=advance,
        )


def selector_orders(
    dump: FeatureDump,
    synergy: SynergyMatrix | None,
    options: Options,
    methods: Sequence[str],
    longest: int,
) -> dict[str, list[int]]:
    """Each selector's features in order, up to `longest`; synergy goes on by rank past its pool."""
    longest = min(longest, len(dump.active_features()))
    orders = {}
    for method in methods:
        one = replace(options, method=method)
        if method != "fap-synergy":
            orders[method] = select_features(dump, longest, one).ids.tolist()
        elif synergy is not None:
            whole = select_features(dump, min(longest, len(synergy.pool)), one, synergy)
            orders[method] = extend_by_rank(dump, whole, longest, one.rank_by).ids.tolist()
    return orders
