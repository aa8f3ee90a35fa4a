"""Circuits of features beside circuits of nodes: how many units a person reads at the same KL.

    python examples/study_nodes.py [--behaviors ioi docstring] [--seeds 3] [--update README.md]

Both are grown by the same selector on the same prompts and judged on the same held-out ones. A
node is a feature at a slot of the template (`pie_fast.nodes`), so a circuit of nodes says where,
and its features are fewer than its nodes. KLs between budgets are interpolated in log KL.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marked import update
from pie_fast.behaviors import Behavior, load_behavior
from pie_fast.curves import budget_reaching
from pie_fast.data import demo_clt_path, demo_model_path
from pie_fast.evaluate import measure
from pie_fast.ground import Ground
from pie_fast.methods import select_on
from pie_fast.model import Switches
from pie_fast.nodes import NodeGround, node_kl
from pie_fast.replacement_model import ReplacementModel, load_model

BUDGETS = (10, 20, 35, 50, 75, 100, 150, 200)

#: mean KLs, in nats, at which the units are counted
TARGETS = (1.0, 0.5, 0.2, 0.1, 0.05)

SWITCHES = Switches("counterfactual")


@dataclass(frozen=True)
class Grown:
    """Both circuits of a behaviour on the prompts of one seed.

    Attributes:
        features: Budget -> mean held-out KL of a circuit of features.
        nodes: The same of nodes.
        distinct: How many features the first so many nodes are of: `[k]`.
        places: How many candidate nodes the first so many features are: `[k]`.
    """

    features: dict[int, float]
    nodes: dict[int, float]
    distinct: NDArray[np.int64]
    places: NDArray[np.int64]

    def units(self, kl: float) -> tuple[float | None, ...]:
        """At that KL: features, the nodes that they are, nodes, the features that these are of."""
        k, n = budget_reaching(self.features, kl), budget_reaching(self.nodes, kl)
        return k, _at(self.places, k), n, _at(self.distinct, n)


def grow_both(model: ReplacementModel, behavior: Behavior, most: int, seed: int) -> Grown:
    """Grow circuits of both units up to a budget, and judge them."""
    options = {"share": 0.1, "batch": 5}
    prompts, metric = behavior.behaviors, behavior.metric
    by_feature = Ground(model, prompts, metric, SWITCHES, seed=seed)
    by_node = NodeGround(model, prompts, metric, SWITCHES, seed=seed)
    budgets = [k for k in BUDGETS if k <= most]
    features, nodes = (
        select_on(ground, "conditional-gradient", budgets[-1], **options).ids
        for ground in (by_feature, by_node)
    )
    held_out = behavior.test_set
    measured = measure(
        model,
        [features[:k].tolist() for k in budgets],
        held_out,
        metric=metric,
        switches=SWITCHES,
        completeness=False,
    )
    kl = node_kl(model, [nodes[:k] for k in budgets], by_node.slots, held_out, switches=SWITCHES)
    of = np.bincount(by_node.ids // len(by_node.slots), minlength=int(features.max()) + 1)
    first = np.unique(nodes // len(by_node.slots), return_index=True)[1]
    return Grown(
        {k: float(one.kl.mean()) for k, one in zip(budgets, measured, strict=True)},
        dict(zip(budgets, kl.mean(1).tolist(), strict=True)),
        np.cumsum(np.isin(np.arange(len(nodes)), first)),
        np.cumsum(of[features]),
    )


def table(found: dict[str, list[Grown]]) -> Iterator[str]:
    """Markdown: KL over budgets, then units at the same KL."""
    budgets = list(next(iter(found.values()))[0].features)
    yield "| mean KL, nats | " + " | ".join(f"K = {k}" for k in budgets) + " |"
    yield "|---" * (1 + len(budgets)) + "|"
    for name, seeds in found.items():
        for unit in ("features", "nodes"):
            cells = [_spread([getattr(one, unit)[k] for one in seeds], "{:.2g}") for k in budgets]
            yield f"| {name}: {unit} | " + " | ".join(cells) + " |"
    yield ""
    units = ("features", "the nodes that they are", "nodes", "the features that these are of")
    yield "| at a mean KL of | " + " | ".join(units) + " |"
    yield "|---" * (1 + len(units)) + "|"
    for name, seeds in found.items():
        for kl in TARGETS:
            counts = zip(*(one.units(kl) for one in seeds), strict=True)
            cells = [_spread(each, "{:.0f}") for each in counts]
            yield f"| {name}: {kl:g} | " + " | ".join(cells) + " |"


def made_by(args: argparse.Namespace) -> str:
    """What the table is of."""
    return (
        "Made by `python examples/study_nodes.py`: the demo model, conditional gradient on "
        f"{args.prompts} prompts, judged on {args.held_out} held-out ones, counterfactual "
        f"baseline; mean ± standard deviation over {args.seeds} seeds. The nodes that features "
        "are: all places where they differ from their baseline on the prompts of the selection. "
        "KLs between budgets are interpolated in log KL."
    )


def _at(counts: NDArray[np.int64], budget: float | None) -> float | None:
    """A count at a budget between two integers."""
    if budget is None:
        return None
    return float(np.interp(budget, np.arange(1, len(counts) + 1), counts))


def _spread(values: Sequence[float | None], form: str) -> str:
    """Mean and standard deviation over seeds; what some seed does not reach is said."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "not reached"
    if len(known) == 1:
        return form.format(known[0])
    return f"{form} ± {form}".format(np.mean(known), np.std(known, ddof=1))


def main(argv: Sequence[str] | None = None) -> None:
    """Grow, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--behaviors", nargs="+", default=["ioi", "docstring"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=96, help="to select on")
    parser.add_argument("--held-out", type=int, default=128, help="to report")
    parser.add_argument(
        "--most", type=int, default=BUDGETS[-1], help="units of the longest circuit"
    )
    parser.add_argument("--update", type=Path, help="a file whose marked table is replaced")
    args = parser.parse_args(argv)
    model = load_model(demo_model_path(), demo_clt_path(), device="cpu")
    found: dict[str, list[Grown]] = {name: [] for name in args.behaviors}
    for name in args.behaviors:
        for seed in range(args.seeds):
            behavior = load_behavior(
                name,
                tokenizer=model.host.tokenizer,
                n_selection=args.prompts,
                n_held_out=args.held_out,
                seed=seed,
            )
            found[name].append(grow_both(model, behavior, args.most, seed))
    text = "\n".join([made_by(args), "", *table(found)])
    print(text)
    if args.update is not None:
        update(args.update, "nodes", text)


if __name__ == "__main__":
    main()
