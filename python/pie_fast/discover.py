"""All of PIE in one run: capture, prune, rerank, interpret the K, evaluate them.

RUN/dump/          activations and attributions of the selection prompts, and their synergies
RUN/result.json    features, interpretations, evaluation, curves, settings, versions, the command
RUN/run.toml       the options of the command that made it, for `pie-fast discover --config`
RUN/journal.jsonl  when, by which process, in what time and with how many model calls

A run that was stopped goes on with what is saved: a dump's shards, rows of synergies, passes of the
conditional gradient, and every stage after them as a whole. It ends in the same bytes as one that
was never stopped, but for the journal.

Where the unit is the node, `features` lists nodes, each with its slot, and K, `n_active` and the
curves count nodes; each feature of them is interpreted once. Curves are of what selects nodes, so
of no selector that needs a dump only; what one node does alone (`ablation`) is not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pie_fast.attribution import Patcher
from pie_fast.behaviors import Behavior, Prompt
from pie_fast.budget import BudgetChoice, choose_budget
from pie_fast.capture import split_prompts
from pie_fast.checkpoints import Checkpoints
from pie_fast.crew import Crew
from pie_fast.errors import BehaviorError
from pie_fast.evaluate import evaluate_circuit, fidelity_curve
from pie_fast.identity import identity_of, versions
from pie_fast.interpret import interpret_features
from pie_fast.journal import Journal, begin
from pie_fast.knee import KneeChoice, choose_knee
from pie_fast.missed import missed_mass
from pie_fast.model import Replacer
from pie_fast.outputs import new_folder, write_json
from pie_fast.plan import Plan
from pie_fast.progress import Reporter
from pie_fast.reconstruction import LOOKED_AT, measure_reconstruction
from pie_fast.run_files import RESULT, RUN_FILE
from pie_fast.selecting import Selecting
from pie_fast.selectors import Ranked, selector_orders
from pie_fast.storage import write_text

#: budgets of the fidelity curve
CURVE = (5, 10, 20, 35, 50, 75, 100, 150, 200, 400, 800)

#: the conditional gradient grows so far for the curve: beyond, every selector is close to the model
GROWN_CURVE = 100

#: an automatic budget goes no further
LARGEST_AUTO = 800


def discover(
    model: Replacer,
    behavior: Behavior,
    plan: Plan,
    out: Path,
    *,
    reporter: Reporter | None = None,
    force: bool = False,
    resume: bool = False,
    command: Sequence[str] | None = None,
    config: str | None = None,
    asked: Mapping[str, Any] | None = None,
    crew: Crew | None = None,
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
        command: The command line that asks for it, to be recorded.
        config: What `run.toml` holds; None writes none.
        asked: What `pie-fast resume` needs to ask for it again.
        crew: Workers that hold the model, for capture, synergy and conditional gradient; None: all
            of it in this process.

    Returns:
        What `result.json` holds, with `timings` and `model_calls` of this process.

    Raises:
        BudgetError: The budget exceeds the active features.
        OutputExistsError: `out` exists and `force` was not given.
        JournalError: What is resumed was begun with another model, CLT, behaviour or version.
        RunInUseError: Another process works on the run.
    """
    reporter = reporter or Reporter()
    reporter.count(lambda: model.spent)
    before = model.spent
    with new_folder(out, force=force, resume=resume, note=reporter.note) as folder:
        journal = Journal(folder)
        with reporter.stage("fit"):
            fit = measure_reconstruction(model, split_prompts(behavior, "selection")[:LOOKED_AT])
        if fit.warning is not None:
            reporter.note(fit.warning)
        begun = begin(
            journal,
            "discover",
            identity_of(model, behavior, plan, fit),
            command=command,
            asked=asked,
            threads=torch.get_num_threads(),
            resume=True,
            note=reporter.note,
            free="plan",  # a budget that was too large should not cost the capture
        )
        saved = Checkpoints(journal, reporter.note, of=begun["identity"])
        stages = _Stages(model, behavior, plan, folder, reporter, saved, crew)
        result = stages.result() | {
            "reconstruction": fit.to_dict(),
            "versions": versions(),
            "command": begun["command"],
        }
        spent = {
            "timings": {name: round(seconds, 4) for name, seconds in reporter.timings.items()},
            "model_calls": {
                **{name: asdict(calls) for name, calls in reporter.calls.items()},
                "total": asdict(model.spent - before),
            },
        }
        if config is not None:
            write_text(folder / RUN_FILE, config)
        write_json(folder / RESULT, result)
        saved.clear()
        journal.write("finished", name="discover", spent=spent)
    return {**result, **spent}


class _Stages(Selecting):
    """All stages of one run: the budget, the selection, and what is said about it."""

    def __init__(
        self,
        model: Replacer,
        behavior: Behavior,
        plan: Plan,
        folder: Path,
        reporter: Reporter,
        saved: Checkpoints,
        crew: Crew | None,
    ) -> None:
        super().__init__(model, behavior, plan, folder, reporter, saved, crew)
        self.choice: dict[str, Any] | None = None
        if plan.budget is None:
            chosen = saved.once("budget", lambda: self.with_known(self._choose_budget().to_dict()))
            self.choice = self.know(chosen)
        self.budget: int = self.choice["budget"] if self.choice else plan.budget or 0

    def result(self) -> dict[str, Any]:
        """What the stages find; each is saved when it is finished."""
        once, plan = self.saved.once, self.plan
        chosen = self.select()
        of = chosen.ids.tolist()
        return {
            "features": once("stability", lambda: self.listed(chosen), of),
            "interpretations": once("interpret", lambda: self.interpret(chosen), of),
            "ablation": once("ablate", lambda: self.ablate(chosen), of),
            "evaluation": once("evaluate", lambda: self.evaluate(chosen), of),
            "missed_mass": once("missed", lambda: self.missed(chosen), of),
            "selector": chosen.selector,
            "cost": chosen.cost,
            "budget_choice": self.choice,
            "curves": once("curves", self.curves, of) if plan.curve else {},
            "unit": plan.unit,
            "n_features": len(chosen.features()),
            "n_interpreted": len(chosen.features()),
            "n_active": self.n_active,
            "n_dictionary": self.model.clt.n_layers * self.model.clt.n_features,
            "settings": self.settings(chosen),
        }

    @property
    def judged_on(self) -> tuple[Prompt, ...]:
        """Held-out prompts that chose nothing; those of selection where there are no others."""
        return (self.behavior.held_out or self.behavior.selection)[self._n_choosing :]

    @property
    def _n_choosing(self) -> int:
        """Held-out prompts that choose the budget."""
        return len(self.behavior.held_out) // 2 if self.plan.budget is None else 0

    def select(self) -> Ranked:
        """The K features or nodes, by the plan's method."""
        once = self.saved.once
        found = once("select", lambda: self.with_known(self.first(self.budget).to_dict()))
        return Ranked.from_dict(self.know(found), self.slots)

    def _choose_budget(self) -> BudgetChoice | KneeChoice:
        """The K that surely reaches the target, or the knee, on half of the held-out prompts."""
        choosing = self.behavior.held_out[: self._n_choosing]
        if not choosing:
            raise BehaviorError(
                f"behaviour {self.behavior.name} has {len(self.behavior.held_out)} held-out "
                "prompts; an automatic budget needs at least 2"
            )
        largest = min(LARGEST_AUTO, self.n_active)
        if self.plan.method == "fap-synergy":
            largest = self.plan.pool_size(self.n_active)
        how: dict[str, Any] = {
            "switches": self.switches,
            "mean_of": self.behavior.selection,
            "batch_size": self.plan.batch_size,
            "seed": self.plan.options.seed,
            "slots": self.slots,
        }
        asked = (self.model, lambda k: self.first(k).ids, choosing, largest)
        if self.plan.knee:
            return choose_knee(*asked, **how)
        return choose_budget(*asked, target_fidelity=self.plan.target_fidelity, **how)

    def listed(self, chosen: Ranked) -> list[dict[str, Any]]:
        """The features or nodes kept, with the share of resamples that keep each."""
        shares = self.stability(chosen)
        if shares is None:
            return chosen.listed()
        rows = zip(chosen.listed(), shares.tolist(), strict=True)
        return [{**row, "stability": share} for row, share in rows]

    def interpret(self, chosen: Ranked) -> list[dict[str, Any]]:
        """Only the features kept: the cost of the run that grows with K."""
        with self.reporter.stage("interpret"):
            ids = [feature.to_global(chosen.n_features) for feature in chosen.features()]
            signed = self.dump.score("signed")[ids].tolist()
            found = interpret_features(self.model, self.dump, ids, self.behavior.selection, signed)
        return [one.to_dict() for one in found]

    def ablate(self, chosen: Ranked) -> dict[str, Any] | None:
        """The ground truth beside first-order effects: each kept feature alone at its baseline.

        None of nodes.
        """
        if self.plan.unit == "node":
            return None
        prompts = self.behavior.selection[: self.plan.ablation_prompts]
        place = np.argsort(np.argsort(chosen.ids))
        with self.reporter.stage("ablate") as advance:
            patcher = Patcher(
                self.model,
                prompts,
                self.model.make_pool(chosen.ids.tolist()),
                self.metric,
                self.switches,
                batch_size=self.plan.batch_size,
                mean_of=self.behavior.selection,
            )
            exact = patcher.effects([(i,) for i in range(len(place))], progress=advance)[place]
            first_order = patcher.first_order(self.plan.gradient)[place]
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

    def evaluate(self, chosen: Ranked) -> dict[str, Any]:
        """The circuit against the model, on prompts that nothing before has seen."""
        with self.reporter.stage("evaluate") as advance:
            found = evaluate_circuit(
                self.model,
                chosen.ids.tolist(),
                self.judged_on,
                metric=self.metric,
                switches=self.switches,
                mean_of=self.behavior.selection,
                batch_size=self._without_gradient,
                seed=self.plan.options.seed,
                slots=self.slots,
                progress=advance,
            )
        return {**found, "split": "held_out" if self.behavior.held_out else "selection"}

    def missed(self, chosen: Ranked) -> dict[str, Any] | None:
        """What the features do that were not kept; None where it was not asked for."""
        if self.plan.missed == 0:
            return None
        with self.reporter.stage("missed mass") as advance:
            found = missed_mass(
                self.model,
                chosen.ids.tolist(),
                self.judged_on,
                metric=self.metric,
                switches=self.switches,
                mean_of=self.behavior.selection,
                n_subsets=self.plan.missed,
                batch_size=self.plan.batch_size,
                seed=self.plan.options.seed,
                progress=advance,
            )
        return found.to_dict()

    def curves(self) -> dict[str, list[dict[str, Any]]]:
        """Fidelity over budgets of every selector; of nodes, of those that ran on nodes."""
        orders: dict[str, list[int]] = {}
        if self.plan.unit == "feature":
            longest = min(max(*CURVE, self.budget), self.n_active)
            orders = selector_orders(self.dump, self.synergy, self.plan.options, longest)
        grown = self.grown(min(max(GROWN_CURVE, self.budget), self.n_active))
        orders["conditional-gradient"] = grown.ids.tolist()
        own: dict[str, list[int]] = {}
        budgets = budgets_of_own = sorted({*CURVE, self.budget})
        if self.plan.by_registry:
            name = self.selections.selector.name
            own = {name: self.selections.longest(self.budget).ids.tolist()}
            orders.pop(name, None)
            if not self.selections.selector.nested:
                budgets_of_own = [self.budget]
        curves = self._curve(orders, budgets)
        return {**curves, **self._curve(own, budgets_of_own)}

    def _curve(
        self, orders: dict[str, list[int]], budgets: list[int]
    ) -> dict[str, list[dict[str, Any]]]:
        if not orders:
            return {}
        with self.reporter.stage("curve") as advance:
            return fidelity_curve(
                self.model,
                orders,
                budgets,
                self.judged_on,
                metric=self.metric,
                switches=self.switches,
                mean_of=self.behavior.selection,
                batch_size=self._without_gradient,
                seed=self.plan.options.seed,
                progress=advance,
                slots=self.slots,
            )

    @property
    def _without_gradient(self) -> int:
        """Prompts a batch where nothing is kept for a backward pass."""
        return 2 * self.plan.batch_size

    def settings(self, chosen: Ranked) -> dict[str, Any]:
        """Every choice of the run."""
        behavior = self.behavior
        plan = {key: value for key, value in asdict(self.plan).items() if key != "options"}
        return {
            **plan,
            **vars(self.plan.options),
            **chosen.settings,
            "budget": self.budget,
            "metric": self.metric,
            **self.switches.to_dict(),
            "model": self.model.host.name,
            "device": str(self.model.device),
            "dtypes": self.model.host.dtypes,
            "clt": self.model.clt.name,
            "places": _places(
                model=self.model.host.name, clt=self.model.clt.name, behavior=behavior.name
            ),
            "ignore_positions": self.model.ignore_positions,
            "hooks": [self.model.read_hook, self.model.write_hook],
            "behavior": behavior.name,
            "behavior_hash": behavior.hash,
            "behavior_seed": behavior.seed,
            "n_selection": len(behavior.selection),
            "n_held_out": len(behavior.held_out),
        }


def _places(**names: str) -> dict[str, str]:
    """Where those are that are files and folders, from whichever folder one looks for them."""
    return {kind: str(Path(name).resolve()) for kind, name in names.items() if Path(name).exists()}
