"""Activation patching in either direction, each set measured once.

With I(S) the importance of a set, noising is I(S) = m(all) - m(all without S) and denoising is
m(only S) - m(none). A model that offers only ``importance`` measures noising; denoising follows
from it, because m(only S) - m(none) = I(all) - I(all without S). The signed pair synergy is
I({f, g}) - I(f) - I(g): singles are shared by all pairs, which leaves one measurement per pair
where the literal rule makes three.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.attributed import as_float64
from pie_fast.errors import PieFastError
from pie_fast.options import Settings, check_finite
from pie_fast.protocols import (
    Feature,
    ModelLike,
    SupportsDirections,
    SupportsImportances,
    SupportsJointImportances,
    SupportsSynergies,
)


class Patching:
    """Importances on one collection of prompts, in one direction, singles remembered.

    Args:
        model: The model to patch.
        prompts: A sized collection of prompts.
        direction: ``"noising"`` or ``"denoising"``.
    """

    def __init__(self, model: ModelLike, prompts: Any, direction: str) -> None:
        self.model = model
        self.prompts = prompts
        self.direction = direction
        directed = isinstance(model, SupportsDirections) and direction in model.directions
        self._derived = direction != "noising" and not directed
        self._keyword = {} if direction == "noising" else {"direction": direction}
        self._everything: tuple[set[Feature], float] | None = None
        self._singles: dict[Feature, float] = {}

    def of_set(self, features: Collection[Feature]) -> float:
        """Signed importance of the set, the mean over prompts."""
        chosen = set(features)
        if self._derived:
            everything, whole = self._whole()
            effect = whole - float(self.model.importance(everything - chosen, self.prompts))
        else:
            effect = float(self.model.importance(chosen, self.prompts, **self._keyword))
        return check_finite(effect, chosen)

    def singles(self, features: Sequence[Feature]) -> NDArray[np.float64]:
        """``[n]`` float64: importance of each feature alone; measured once per feature."""
        new = [feature for feature in features if feature not in self._singles]
        if new and isinstance(self.model, SupportsImportances) and not self._derived:
            measured = self.model.importances(new, self.prompts, **self._keyword)
            self._singles.update(zip(new, _checked(measured, new), strict=True))
        else:
            self._singles.update((feature, self.of_set({feature})) for feature in new)
        return np.array([self._singles[feature] for feature in features], dtype=np.float64)

    def joint(self, pairs: Sequence[tuple[Feature, Feature]]) -> NDArray[np.float64]:
        """``[n]`` float64: importance of each pair together."""
        if pairs and isinstance(self.model, SupportsJointImportances) and not self._derived:
            measured = self.model.joint_importances(pairs, self.prompts, **self._keyword)
            return np.array(_checked(measured, pairs), dtype=np.float64)
        return np.array([self.of_set(pair) for pair in pairs], dtype=np.float64)

    def mean_absolute(self, features: Sequence[Feature]) -> NDArray[np.float64]:
        """``[n]`` float64: mean over prompts of \\|importance on that prompt alone\\|."""
        total = np.zeros(len(features))
        for prompt in self.prompts:
            alone = Patching(self.model, [prompt], self.direction)
            with np.errstate(all="ignore"):  # an overflow is refused by name, later
                total += np.abs(alone.singles(features))
        return total / len(self.prompts)

    def synergies(self, features: Sequence[Feature], settings: Settings) -> NDArray[np.float64]:
        """``[n, n]`` float64, symmetric, zero on the diagonal: synergy of each pair.

        Raises:
            PieFastError: The model cannot measure by ``settings.estimator``.
        """
        if isinstance(self.model, SupportsSynergies):
            matrix = self._measured_by_model(self.model, features, settings.estimator)
        elif settings.estimator != "exact":
            raise PieFastError(
                f"estimator {settings.estimator!r} needs a model with synergies(...); "
                f"{type(self.model).__name__} has none"
            )
        else:
            matrix = self._measured_by_pairs(features)
        return np.maximum(matrix, 0.0) if settings.synergy == "clipped" else matrix

    def pair_synergies(self, features: Sequence[Feature]) -> NDArray[np.float64]:
        """``[n * (n - 1) / 2]`` float64: signed, pairs in the order of combinations()."""
        pairs = list(combinations(features, 2))
        if not pairs:
            return np.zeros(0)
        alone, joint = self.singles(features), self.joint(pairs)
        rows, columns = np.triu_indices(len(features), 1)  # the order of combinations()
        with np.errstate(all="ignore"):
            signed = joint - alone[rows] - alone[columns]
        for i in np.flatnonzero(~np.isfinite(signed)):
            check_finite(float(signed[i]), pairs[i])
        return signed

    def _measured_by_pairs(self, features: Sequence[Feature]) -> NDArray[np.float64]:
        n = len(features)
        matrix = np.zeros((n, n))
        rows, columns = np.triu_indices(n, 1)
        matrix[rows, columns] = matrix[columns, rows] = self.pair_synergies(features)
        return matrix

    def _measured_by_model(
        self, model: SupportsSynergies, features: Sequence[Feature], estimator: str
    ) -> NDArray[np.float64]:
        measured = model.synergies(
            features, self.prompts, direction=self.direction, estimator=estimator
        )
        matrix = np.array(as_float64(measured))
        if matrix.shape != (len(features), len(features)):
            raise PieFastError(
                f"synergies of {len(features)} features came with shape {matrix.shape}"
            )
        np.fill_diagonal(matrix, 0.0)
        if not np.isfinite(matrix).all():
            raise PieFastError("the model measured a synergy that is not finite")
        return matrix

    def _whole(self) -> tuple[set[Feature], float]:
        if self._everything is None:
            everything = set(self.model.clt_features)
            whole = float(self.model.importance(everything, self.prompts))
            self._everything = everything, whole
        return self._everything


def _checked(measured: Any, what: Sequence[Any]) -> list[float]:
    """One finite number for each of ``what``."""
    values = as_float64(measured)
    if values.shape != (len(what),):
        raise PieFastError(f"importances of {len(what)} sets came with shape {values.shape}")
    return [check_finite(v, w) for v, w in zip(values.tolist(), what, strict=True)]
