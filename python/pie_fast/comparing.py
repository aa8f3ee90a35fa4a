"""Two runs side by side: which features both keep, how ranks moved, and which is more faithful.

The difference in fidelity is the second run's less the first's. Its interval is a bootstrap over
prompts in which both runs are drawn the same prompts, so what makes a prompt hard for both cancels;
it is there only where both were judged on the same prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.errors import PieFastError

N_BOOTSTRAP = 1000

#: settings that say where a run was, not what it did, and a hash that says nothing to people
_UNSAID = ("device", "batch_size", "places", "behavior_hash")


@dataclass(frozen=True, slots=True)
class Moved:
    """A feature that both runs keep, with its rank in each, from 0."""

    feature: str
    rank_first: int
    rank_second: int

    @property
    def by(self) -> int:
        """How many ranks it went down; negative where it went up."""
        return self.rank_second - self.rank_first


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two runs have in common.

    Attributes:
        n_first: Features or nodes of the first run.
        n_second: Of the second.
        shared: How many both keep.
        jaccard: The share of all kept by any that both keep; None where none is kept.
        only_first: What only the first keeps, in its order.
        only_second: What only the second keeps, in its order.
        moved: What both keep, those whose ranks differ most first.
        rank_correlation: Spearman's, of what both keep; None of fewer than two.
        fidelity_first: `1 - min(mean KL, 1)`.
        fidelity_second: Of the second run.
        difference: Second less first.
        interval: Of the difference, 95%; None where there is none.
        why: Why there is no interval.
        settings: What was set differently: name -> values of the first and the second run.
    """

    n_first: int
    n_second: int
    shared: int
    jaccard: float | None
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    moved: tuple[Moved, ...]
    rank_correlation: float | None
    fidelity_first: float
    fidelity_second: float
    difference: float
    interval: tuple[float, float] | None
    why: str | None
    settings: Mapping[str, tuple[Any, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return asdict(self)


def compare_runs(
    first: Mapping[str, Any], second: Mapping[str, Any], *, seed: int = 0
) -> Comparison:
    """Compare what two runs' `result.json` hold.

    Args:
        first: A run.
        second: Another one.
        seed: Of the bootstrap.

    Raises:
        PieFastError: One is no result of a run, or one keeps features and the other nodes.
    """
    settings = [_settings(of, which) for of, which in ((first, "first"), (second, "second"))]
    names = [_named(result, which) for result, which in ((first, "first"), (second, "second"))]
    units = [result.get("unit", "feature") for result in (first, second)]
    if units[0] != units[1]:
        raise PieFastError(
            f"the first run keeps {units[0]}s and the second {units[1]}s; runs of one unit compare"
        )
    ranks = [{name: rank for rank, name in enumerate(of)} for of in names]
    shared = [name for name in names[0] if name in ranks[1]]
    moved = [Moved(name, ranks[0][name], ranks[1][name]) for name in shared]
    every = {*names[0], *names[1]}
    kl = [_divergences(result, which) for result, which in ((first, "first"), (second, "second"))]
    fidelity = [float(_fidelity(values.mean())) for values in kl]
    why = _why_not_paired(settings, (first["evaluation"], second["evaluation"]))
    return Comparison(
        n_first=len(names[0]),
        n_second=len(names[1]),
        shared=len(shared),
        jaccard=len(shared) / len(every) if every else None,
        only_first=tuple(name for name in names[0] if name not in ranks[1]),
        only_second=tuple(name for name in names[1] if name not in ranks[0]),
        moved=tuple(sorted(moved, key=lambda m: (-abs(m.by), m.rank_first))),
        rank_correlation=_spearman(moved),
        fidelity_first=fidelity[0],
        fidelity_second=fidelity[1],
        difference=fidelity[1] - fidelity[0],
        interval=None if why else _interval(kl[0], kl[1], seed),
        why=why,
        settings=_differing(*settings),
    )


def _settings(result: Mapping[str, Any], which: str) -> Mapping[str, Any]:
    found = result.get("settings", {})
    if not isinstance(found, Mapping):
        raise PieFastError(f"the {which} result's settings is {found!r}, must be an object")
    return found


def _named(result: Mapping[str, Any], which: str) -> list[str]:
    """Features as `L0:1`, nodes as `L0:1@slot`, in the order of selection."""
    try:
        listed = sorted(result["features"], key=lambda one: one["rank"])
        names = [
            f"L{one['layer']}:{one['index']}" + (f"@{one['slot']}" if "slot" in one else "")
            for one in listed
        ]
    except (KeyError, TypeError) as error:
        raise PieFastError(
            f"the {which} result lists no features with layer, index and rank: it is of no run"
        ) from error
    if len(set(names)) < len(names):
        raise PieFastError(f"the {which} result lists a feature twice")
    return names


def _divergences(result: Mapping[str, Any], which: str) -> NDArray[np.float64]:
    """KL of each prompt: `[n_prompts]` float64."""
    try:
        found = np.asarray(result["evaluation"]["kl_divergences"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise PieFastError(f"the {which} result holds no KL of its prompts") from error
    if found.ndim != 1 or len(found) == 0 or not np.isfinite(found).all():
        raise PieFastError(f"the {which} result's KL must be at least one finite number")
    return found


def _why_not_paired(
    settings: Sequence[Mapping[str, Any]], evaluated: Sequence[Mapping[str, Any]]
) -> str | None:
    """What keeps the KLs of two runs from being of the same prompts and of one meaning."""
    hashes = [of.get("behavior_hash") for of in settings]
    if None in hashes:
        return "not both say which prompts they were judged on"
    if hashes[0] != hashes[1]:
        return "judged on different prompts"
    for name in ("split", "kl_direction"):
        one, other = (of.get(name) for of in evaluated)
        if one is None or one != other:
            return f"{name} is {one!r} and {other!r}"
    numbers = [len(one["kl_divergences"]) for one in evaluated]
    if numbers[0] != numbers[1]:
        return f"judged on {numbers[0]} and {numbers[1]} prompts"
    return None


def _fidelity(mean_kl: Any) -> Any:
    """`1 - min(mean KL, 1)`, of one mean or of many."""
    return 1.0 - np.minimum(mean_kl, 1.0)


def _interval(
    first: NDArray[np.float64], second: NDArray[np.float64], seed: int
) -> tuple[float, float]:
    draws = np.random.default_rng(seed).integers(0, len(first), (N_BOOTSTRAP, len(first)))
    spread = _fidelity(second[draws].mean(1)) - _fidelity(first[draws].mean(1))
    low, high = np.quantile(spread, [0.025, 0.975])
    return float(low), float(high)


def _spearman(moved: list[Moved]) -> float | None:
    """Correlation of the orders in which two runs have what both keep; there are no ties."""
    n = len(moved)
    if n < 2:
        return None
    ranks = np.asarray([(m.rank_first, m.rank_second) for m in moved])
    first, second = np.argsort(np.argsort(ranks, axis=0), axis=0).T
    return 1 - 6 * float(((first - second) ** 2).sum()) / (n * (n * n - 1))


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    pairs = {name: (first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])}
    return {
        name: pair
        for name, pair in pairs.items()
        if name not in _UNSAID and pair[0] != pair[1] and not _moved_only(*pair)
    }


def _moved_only(first: Any, second: Any) -> bool:
    """Whether these are paths, one absolute, that end alike: machines differ in what is before."""
    if not isinstance(first, str) or not isinstance(second, str):
        return False
    paths = (Path(first), Path(second))
    return any(path.is_absolute() for path in paths) and paths[0].name == paths[1].name
