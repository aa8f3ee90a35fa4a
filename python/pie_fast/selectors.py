"""Selectors over a feature dump: which K features, in which order. No torch, no model.

random        active features in random order
magnitude     largest mean activation
fap           largest FAP score
fap-synergy   greedy: score plus the synergy with what is selected
paper         fap-synergy below K = 100, fap from there on

Those of `pie_fast.methods` need the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pie_fast import display
from pie_fast.dump import FeatureDump
from pie_fast.errors import BudgetError, PieFastError
from pie_fast.method_names import DUMP_METHODS, METHODS, MODEL_METHODS
from pie_fast.options import SMALLEST_POOL
from pie_fast.seals import unsealed
from pie_fast.select import greedy_select
from pie_fast.slots import Slots, read_nodes
from pie_fast.synergy_matrix import SynergyMatrix
from pie_fast.types import FeatureId
from pie_fast.untrusted import load_json, shown

__all__ = [
    "DUMP_METHODS",
    "METHODS",
    "MODEL_METHODS",
    "STRICT_BELOW",
    "Options",
    "Ranked",
    "as_asked",
    "check_pool",
    "extend_by_rank",
    "pool_candidates",
    "read_circuit",
    "required",
    "select_features",
    "selector_orders",
]

#: from this budget on the paper's method no longer reranks
STRICT_BELOW = 100


@dataclass(frozen=True)
class Options:
    """How features are selected; every choice is in the result.

    Attributes:
        method: One of `METHODS`.
        rank_by: `signed`, `abs` or `mean_abs`: how effects on prompts become a score.
        synergy: `clipped` at 0, the paper's, or `signed`.
        bonus: `mean`, the paper's, or `sum`.
        seed: Of `random`.
    """

    method: str = "auto"
    rank_by: str = "mean_abs"
    synergy: str = "clipped"
    bonus: Literal["mean", "sum"] = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, valid in (
            ("method", METHODS),
            ("rank_by", ("signed", "abs", "mean_abs")),
            ("synergy", ("clipped", "signed")),
            ("bonus", ("mean", "sum")),
        ):
            value = getattr(self, name)
            if value not in valid:
                raise PieFastError(f"{name} {value!r} is not one of {', '.join(valid)}")

    def regime(self, budget: int) -> str:
        """The selector that runs at this budget."""
        if self.method == "paper":
            return "fap-synergy" if budget < STRICT_BELOW else "fap"
        return "fap-synergy" if self.method == "auto" else self.method


@dataclass(frozen=True)
class Ranked:
    """Features in the order they were selected.

    Attributes:
        ids: `[k]` int64 global ids; of nodes where there are slots.
        scores: `[k]` float64, what ranked them: the FAP score (by `rank_by`) where it did.
        selector: The selector that ran.
        settings: Every choice behind it.
        cost: Forward and backward passes over all prompts, where the model was at hand.
        slots: Of the nodes, see `pie_fast.slots`.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    selector: str
    n_features: int
    settings: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] | None = None
    slots: Slots | None = None

    def first(self, k: int) -> Ranked:
        """The first k of them."""
        return replace(self, ids=self.ids[:k], scores=self.scores[:k])

    def to_dict(self) -> dict[str, Any]:
        """All but the slots as plain values."""
        return {
            "ids": self.ids.tolist(),
            "scores": self.scores.tolist(),
            "selector": self.selector,
            "n_features": self.n_features,
            "settings": self.settings,
            "cost": self.cost,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any], slots: Slots | None) -> Ranked:
        """What `to_dict` gave, with the slots."""
        ids, scores = np.array(saved["ids"], np.int64), np.array(saved["scores"], np.float64)
        return cls(**{**saved, "ids": ids, "scores": scores, "slots": slots})

    def _repr_html_(self) -> str:
        return display.ranked(self)

    def features(self) -> list[FeatureId]:
        """As feature ids, in order; of nodes each feature once, where its first node stands."""
        ids = self.ids if self.slots is None else self.ids // len(self.slots)
        return [FeatureId.from_global(g, self.n_features) for g in dict.fromkeys(ids.tolist())]

    def listed(self) -> list[dict[str, Any]]:
        """As every `--json` lists features, rank from 0; nodes with their slot."""
        if self.slots is None:
            units = [_row(feature) for feature in self.features()]
        else:
            nodes = read_nodes(self.ids, self.slots, self.n_features)
            units = [{**_row(node.feature), "slot": node.slot} for node in nodes]
        return [
            {**unit, "score": score, "rank": rank}
            for rank, (unit, score) in enumerate(zip(units, self.scores.tolist(), strict=True))
        ]


def _row(feature: FeatureId) -> dict[str, Any]:
    return {"layer": feature.layer, "index": feature.index}


def select_features(
    dump: FeatureDump,
    budget: int,
    options: Options | None = None,
    synergy: SynergyMatrix | None = None,
) -> Ranked:
    """The features that a selector keeps at a budget.

    Args:
        dump: Scores come from here, nothing else is read.
        budget: How many; 0 selects none.
        options: How.
        synergy: Needed by `fap-synergy`; its pool holds the candidates.

    Raises:
        BudgetError: Negative, above the number of active features, or above the pool.
        PieFastError: `fap-synergy` without a synergy matrix, or a method that needs the model.
    """
    options = options or Options()
    if budget < 0:
        raise BudgetError(f"budget {budget} is negative; valid budgets start at 0")
    selector = options.regime(budget)
    if options.method == "auto" and synergy is None:
        selector = "fap"
    settings = {**vars(options), "budget": budget}
    if selector == "fap-synergy":
        ids, scores, extra = _by_synergy(dump, budget, options, synergy)
        settings.update(extra)
    elif selector not in DUMP_METHODS:
        raise PieFastError(f"method {selector!r} needs the model: pie-fast discover")
    elif selector == "random":
        ids, scores = _at_random(dump, budget, options)
    else:
        ids, scores = dump.top_k(
            budget, "magnitude" if selector == "magnitude" else options.rank_by
        )
    return Ranked(ids, scores, selector, dump.n_features, settings)


def extend_by_rank(dump: FeatureDump, ranked: Ranked, budget: int, rank_by: str) -> Ranked:
    """A selection made longer with the best of what it left out, for curves beyond its pool."""
    ids, scores = dump.top_k(min(budget, len(dump.active_features())), rank_by)
    rest = ~np.isin(ids, ranked.ids)
    more = max(budget - len(ranked.ids), 0)
    return Ranked(
        np.concatenate([ranked.ids, ids[rest][:more]]),
        np.concatenate([ranked.scores, scores[rest][:more]]),
        ranked.selector,
        ranked.n_features,
        ranked.settings,
    )


def selector_orders(
    dump: FeatureDump, synergy: SynergyMatrix, options: Options, longest: int
) -> dict[str, list[int]]:
    """Features of each selector that needs a dump only, in order; past its pool synergy goes on
    by rank."""
    orders = {}
    for method in ("random", "magnitude", "fap"):
        one = replace(options, method=method)
        orders[method] = select_features(dump, longest, one).ids.tolist()
    one = replace(options, method="fap-synergy")
    pooled = select_features(dump, min(longest, len(synergy)), one, synergy)
    orders["fap-synergy"] = extend_by_rank(dump, pooled, longest, one.rank_by).ids.tolist()
    return orders


def check_pool(dump: FeatureDump, pool: int | None) -> int:
    """The size of a pool: what was asked for, or 200 as far as there are so many.

    Raises:
        BudgetError: More than the active features.
    """
    n_active = len(dump.active_features())
    if pool is None:
        return min(SMALLEST_POOL, n_active)
    if pool > n_active:
        raise BudgetError(f"pool {pool} exceeds the {n_active} active features of {dump.path}")
    return pool


def _by_synergy(
    dump: FeatureDump, budget: int, options: Options, synergy: SynergyMatrix | None
) -> tuple[NDArray[np.int64], NDArray[np.float64], dict[str, Any]]:
    synergy = required(synergy)
    pool, scores, values = pool_candidates(dump, budget, options, synergy)
    chosen = greedy_select(scores, values, budget, bonus=options.bonus).ids
    made = {"direction": synergy.direction, "estimator": synergy.estimator, "pool": len(pool)}
    return pool[chosen], scores[chosen], made


def required(synergy: SynergyMatrix | None) -> SynergyMatrix:
    """The synergies that `fap-synergy` cannot do without.

    Raises:
        PieFastError: There are none; says how they are made.
    """
    if synergy is None:
        raise PieFastError(
            "method 'fap-synergy' needs pair synergies, which this dump does not have yet; "
            "make them with: pie-fast synergy DUMP --model MODEL --clt CLT"
        )
    return synergy


def pool_candidates(
    dump: FeatureDump, budget: int, options: Options, synergy: SynergyMatrix
) -> tuple[NDArray[np.int64], NDArray[np.float64], Any]:
    """What `fap-synergy` chooses from.

    Returns:
        ``[M]`` global ids of the pool, ascending, their scores, and their synergies, dense or CSR.

    Raises:
        BudgetError: More than the pool has, or none of it is active in this dump.
        PieFastError: The synergies are of another dump, or a pair is not known yet.
    """
    pool = np.asarray(synergy.pool, dtype=np.int64)
    if budget > len(pool):
        raise BudgetError(f"budget {budget} exceeds the pool of {len(pool)} features")
    n_ids = dump.n_layers * dump.n_features
    if len(pool) and pool[-1] >= n_ids:
        raise PieFastError(
            f"the synergies are of another dump: their pool has feature {pool[-1]}, "
            f"ids of {dump.path} are in [0, {n_ids})"
        )
    # Some may have none: what only the baseline has is in the pool of a run.
    if budget > 0 and not np.isin(pool, dump.active_features()).any():
        raise BudgetError(f"none of the {len(pool)} features of the pool is active in {dump.path}")
    return pool, dump.score(options.rank_by)[pool], as_asked(synergy, options.synergy)


def as_asked(synergy: SynergyMatrix, form: str) -> Any:
    """The matrix, dense or CSR, signed or with what is negative set to 0.

    Raises:
        PieFastError: A pair that is not known yet, or signed values of a clipped matrix.
    """
    if synergy.form == "clipped" and form == "signed":
        raise PieFastError("synergy 'signed' is asked for, but the file holds clipped values")
    values = synergy.for_pool(synergy.pool)
    if form == "signed":
        return values
    if isinstance(values, np.ndarray):
        return np.maximum(values, 0.0)
    indptr, indices, weights = values
    return indptr, indices, np.maximum(weights, 0.0)


def _at_random(
    dump: FeatureDump, budget: int, options: Options
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    active = np.asarray(dump.active_features(), dtype=np.int64)
    if budget > len(active):
        raise BudgetError(f"budget {budget} exceeds the {len(active)} active features")
    ids = np.random.default_rng(options.seed).permutation(active)[:budget]
    return ids, dump.score(options.rank_by)[ids]


def read_circuit(path: Path) -> tuple[list[FeatureId], list[str] | None]:
    """The features that a selection or a result lists, in order, and of nodes the slot of each.

    Raises:
        PieFastError: Naming file, field and value.
    """
    try:
        data = path.read_bytes()
        content = load_json(data)
    except ValueError as error:
        raise PieFastError(f"{path}: not valid JSON: {error}") from error
    if isinstance(content, dict):
        content = unsealed(path, data, content)
    rows = content.get("features") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise PieFastError(f"{path}: has no list 'features'")
    features: list[FeatureId] = []
    slots: list[str] = []
    for number, row in enumerate(rows):
        values = [row.get(key) if isinstance(row, dict) else None for key in ("layer", "index")]
        if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values):
            raise PieFastError(
                f"{path}: features[{number}] is {shown(row)}; layer and index must be integers >= 0"
            )
        features.append(FeatureId(row["layer"], row["index"]))
        if ("slot" in row) != ("slot" in rows[0]) or not isinstance(row.get("slot", ""), str):
            raise PieFastError(
                f"{path}: features[{number}] is {shown(row)}; slot must be text, of all features "
                "or none"
            )
        slots += [row["slot"]] if "slot" in row else []
    units = list(zip(features, slots, strict=True)) if slots else features
    if len(set(units)) < len(units):
        raise PieFastError(f"{path}: features holds a {'node' if slots else 'feature'} twice")
    return features, slots or None
