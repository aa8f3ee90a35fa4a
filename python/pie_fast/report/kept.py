"""The kept features or nodes of a run, each with its effect and its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pie_fast.report.run import Run
from pie_fast.types import FeatureId

#: an effect whose mean is a smaller share than this of the mean magnitude has no sign
_NEUTRAL = 0.1


@dataclass(frozen=True)
class Kept:
    """A kept feature or node.

    Attributes:
        feature: The feature.
        rank: From 0, in the order of selection.
        score: The selector's.
        stability: Share of the resamples that select it again; None if not measured.
        effect: Its signed effect on the metric, mean over prompts: by ablation where the run has
            that, else first-order.
        size: Its effect whatever its sign: of ablation the mean of magnitudes over prompts.
        place: The column of the graph it stands in: the token position where its effect is
            largest, or its slot.
        position: The token position where its feature's effect is largest, below 0 where it is
            counted from the end (`counted_from_end`); None if not known.
    """

    feature: FeatureId
    rank: int
    score: float
    stability: float | None
    effect: float
    size: float
    place: str
    position: int | None = None

    @property
    def sign(self) -> int:
        """Of the effect; 0 where it raises on some prompts about as much as it lowers on others."""
        if abs(self.effect) < _NEUTRAL * self.size:
            return 0
        return int(np.sign(self.effect))


def kept_units(run: Run) -> list[Kept]:
    """What the run kept, in the order of selection."""
    rows = run.result["features"]
    features = [FeatureId(int(row["layer"]), int(row["index"])) for row in rows]
    ablation = run.result.get("ablation")
    positions = _main_positions(run, features)
    from_end = counted_from_end(run)
    kept = []
    for at, (row, feature) in enumerate(zip(rows, features, strict=True)):
        told = run.interpretations.get(str(feature), {})
        effect = float(told.get("fap_score", 0.0))
        size = abs(effect)
        if ablation:
            effect, size = ablation["mean_effect"][at], ablation["mean_abs_effect"][at]
        # A context's position is counted from its start.
        position = positions.get(feature, None if from_end else _position_of_contexts(told))
        place = row.get("slot") or ("?" if position is None else str(position))
        score, stability = float(row["score"]), row.get("stability")
        kept.append(Kept(feature, at, score, stability, effect, size, place, position))
    return kept


def counted_from_end(run: Run) -> bool:
    """Whether positions are counted from the prompt's end, its last token -1.

    So they are where the dump's prompts differ in length: counted from the start, one number
    would then be several places.
    """
    return run.dump is not None and len(np.unique(np.diff(run.dump.prompts.prompt_ptr))) > 1


def _main_positions(run: Run, features: list[FeatureId]) -> dict[FeatureId, int]:
    """The position of each feature's largest sum of ``|attribution|``, from the dump."""
    if run.dump is None or not features:
        return {}
    width = run.dump.n_features
    ids = np.unique([feature.to_global(width) for feature in features])
    entries = run.dump.entries_of(ids)
    if not len(entries.position):
        return {}
    weight = entries.activation if entries.attribution is None else entries.attribution
    position = entries.position.astype(np.int64)
    if counted_from_end(run):
        position -= np.diff(run.dump.prompts.prompt_ptr)[entries.prompt]
    first = int(position.min())
    total = np.zeros((len(ids), int(position.max()) - first + 1))
    np.add.at(total, (np.searchsorted(ids, entries.feature), position - first), np.abs(weight))
    return {
        FeatureId.from_global(int(i), width): int(row.argmax()) + first
        for i, row in zip(ids, total, strict=True)
        if row.any()
    }


def _position_of_contexts(told: Mapping[str, Any]) -> int | None:
    """The position of the strongest context's peak."""
    peaks = (one.get("peak") for one in told.get("contexts") or ())
    return next((int(peak) for peak in peaks if peak is not None), None)
