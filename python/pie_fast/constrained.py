"""A selection from a dump under constraints, improved by swaps, and with its reasons. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast.errors import PieFastError
from pie_fast.select import explain_selection, improve_by_swaps
from pie_fast.selectors import Options, Ranked, pool_candidates, required
from pie_fast.types import FeatureId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pie_fast.dump import FeatureDump
    from pie_fast.synergy_matrix import SynergyMatrix

_METHODS = ("fap", "fap-synergy")


@dataclass(frozen=True)
class Constraints:
    """What a selection must meet.

    Attributes:
        must_include: Global ids that are taken first, in this order.
        must_exclude: Global ids that are never taken.
        max_per_layer: At most so many features of a layer.
        swaps: At most so many exchanges afterwards, see :func:`pie_fast.improve_by_swaps`.
    """

    must_include: tuple[int, ...] = ()
    must_exclude: tuple[int, ...] = ()
    max_per_layer: int | None = None
    swaps: int = 0


def select_constrained(
    dump: FeatureDump,
    budget: int,
    options: Options,
    synergy: SynergyMatrix | None,
    constraints: Constraints,
) -> tuple[Ranked, list[dict[str, Any]]]:
    """As `pie_fast.selectors.select_features`, under constraints.

    Args:
        dump: Scores come from here.
        budget: How many.
        options: How; `fap` chooses among all features of the dump, `fap-synergy` in the pool.
        synergy: Needed by `fap-synergy`.
        constraints: What the selection must meet.

    Returns:
        The selection, and why the greedy steps before any exchange took what they took.

    Raises:
        BudgetError: More than the constraints leave.
        PieFastError: Another method; an id that is no feature, or to be included and no candidate.
    """
    method = options.regime(budget)
    if options.method == "auto" and synergy is None:
        method = "fap"
    if method not in _METHODS:
        raise PieFastError(f"method {method!r} knows no constraints, {' and '.join(_METHODS)} do")
    ids, scores, values = (
        pool_candidates(dump, budget, options, required(synergy))
        if method == "fap-synergy"
        else _active(dump, options)
    )
    limits: dict[str, Any] = {
        "must_include": _places(dump, ids, "must_include", constraints.must_include),
        "must_exclude": _places(dump, ids, "must_exclude", constraints.must_exclude, absent=True),
    }
    if constraints.max_per_layer is not None:
        limits["layers"] = ids // dump.n_features
        limits["max_per_layer"] = constraints.max_per_layer
    steps = explain_selection(scores, values, budget, bonus=options.bonus, **limits)
    chosen = np.array([step.id for step in steps], np.int64)
    settings = {**vars(options), "budget": budget, **vars(constraints)}
    if constraints.swaps:
        done = improve_by_swaps(
            scores, values, chosen, bonus=options.bonus, max_swaps=constraints.swaps, **limits
        )
        chosen = done.ids
        settings["swapped"] = [[int(ids[out]), int(ids[in_])] for out, in_ in done.swaps]
    ranked = Ranked(ids[chosen], scores[chosen], method, dump.n_features, settings)
    return ranked, [_told(step, ids, dump.n_features) for step in steps]


def _active(
    dump: FeatureDump, options: Options
) -> tuple[NDArray[np.int64], NDArray[np.float64], Any]:
    """Ids, ascending, of all features with entries, their scores, and no synergy of any pair."""
    # The best of each layer, as many as it has: all features with entries.
    ids, scores = dump.top_k(dump.n_features, options.rank_by, per_layer=True)
    order = np.argsort(ids)
    none = np.zeros(len(ids) + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
    return ids[order], scores[order], none


def _places(
    dump: FeatureDump,
    candidates: NDArray[np.int64],
    name: str,
    wanted: Sequence[int],
    *,
    absent: bool = False,
) -> NDArray[np.int64]:
    """Where among the candidates some ids are; with `absent` those that are none are left out."""
    ids = np.array(wanted, np.int64)
    n_ids = dump.n_layers * dump.n_features
    at = np.searchsorted(candidates, ids).astype(np.int64)
    there = at < len(candidates)
    there[there] = candidates[at[there]] == ids[there]
    for id_, found in zip(wanted, there, strict=True):
        if not 0 <= id_ < n_ids:
            raise PieFastError(f"{name}: feature {id_} is outside [0, {n_ids})")
        if not (found or absent):
            feature = FeatureId.from_global(id_, dump.n_features)
            raise PieFastError(f"{name}: {feature} is not among the {len(candidates)} candidates")
    return at[there]


def _told(step: Any, ids: NDArray[np.int64], n_features: int) -> dict[str, Any]:
    """A step as plain JSON, with features in place of positions."""

    def name(at: int | None) -> str | None:
        return None if at is None else str(FeatureId.from_global(int(ids[at]), n_features))

    return {
        "feature": name(step.id),
        "score": step.score,
        "bonus": step.bonus,
        "gain": step.gain,
        "runner_up": name(step.runner_up),
        "runner_up_value": step.runner_up_value,
    }
