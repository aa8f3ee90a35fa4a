"""What an intervention says: a feature, where, and its new activation. No torch.

    (feature, positions, value)

* `positions`: an int, a slice, or None for every position; negative ones count from the end of the
  prompt. A slice without an end, and None, reach to the tokens that are generated.
* `value`: the new activation; 0 ablates. Or `times(m)`: m times the activation that the feature has
  in that very run. To steer a feature that may be inactive, set it to a share of the largest
  activation it is known to reach: `m * a_max`.

Where several interventions are on one feature at one position, the last one holds. First positions
that have no features (`ignore_positions` of the model: the BOS by default) cannot be named, and are
left out of slices and None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

from pie_fast.errors import PieFastError
from pie_fast.types import FeatureId

Positions = int | slice | None


@dataclass(frozen=True)
class Times:
    """So many times the activation that a feature has."""

    factor: float

    def __str__(self) -> str:
        return f"times({self.factor:g})"


def times(factor: float) -> Times:
    """The value of an intervention that scales: 0 ablates, 1 changes nothing, 2 doubles."""
    return Times(factor)


#: as a user writes it
Intervention = tuple[FeatureId, Positions, float | Times]


@dataclass(frozen=True)
class Edit:
    """An intervention that has been checked.

    Attributes:
        feature: Whose activation is changed.
        positions: Where.
        value, factor: The new activation is `value + factor * a`.
    """

    feature: FeatureId
    positions: Positions
    value: float
    factor: float

    def covered(self, n_prompt: int, n_now: int | None = None) -> range:
        """The positions that it is on.

        Args:
            n_prompt: Tokens of the prompt, from whose end negative positions count.
            n_now: Tokens that there are by now; `n_prompt` when None.

        Raises:
            PieFastError: An int outside of the prompt.
        """
        n_now = n_prompt if n_now is None else n_now
        at = self.positions
        if isinstance(at, int):
            if not -n_prompt <= at < n_prompt:
                raise PieFastError(
                    f"position {at} of {self.feature} is outside the prompt: {-n_prompt} to "
                    f"{n_prompt - 1}"
                )
            return range(at % n_prompt, at % n_prompt + 1)
        at = slice(None) if at is None else at
        start, stop = (None if end is None else _whole(end) for end in (at.start, at.stop))
        # Not slice.indices alone: a start behind the prompt waits for tokens that are generated.
        first = 0 if start is None else start if start >= 0 else max(start + n_prompt, 0)
        last = n_now if stop is None else slice(stop).indices(n_prompt)[1]
        return range(first, last, 1 if at.step is None else at.step)


def check_interventions(
    interventions: Iterable[Sequence[Any]], n_layers: int, n_features: int
) -> list[Edit]:
    """Interventions as edits.

    Args:
        interventions: `(feature, positions, value)` each.
        n_layers: Of the CLT.
        n_features: Of the CLT, a layer.

    Raises:
        PieFastError: There are none, or one is not of this form, names a feature that the CLT does
            not have, or a value that is not finite; the message says which, counted from 0.
    """
    edits = []
    for number, given in enumerate(interventions):
        try:
            edits.append(_edit(given, n_layers, n_features))
        except PieFastError as error:
            raise PieFastError(f"intervention {number}: {error}") from None
    if not edits:
        raise PieFastError("there are 0 interventions; at least 1 is needed")
    return edits


def _edit(given: Sequence[Any], n_layers: int, n_features: int) -> Edit:
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 3:
        raise PieFastError(f"{given!r} is not (feature, positions, value)")
    feature, positions, value = given
    if not isinstance(feature, FeatureId):
        raise PieFastError(f"feature is {feature!r}, must be a FeatureId as FeatureId(5, 42)")
    if not (0 <= feature.layer < n_layers and 0 <= feature.index < n_features):
        raise PieFastError(
            f"{feature} is not in the CLT: layers 0 to {n_layers - 1}, indices 0 to "
            f"{n_features - 1}"
        )
    if isinstance(value, Times):
        return Edit(feature, _place(positions), 0.0, _finite("factor", value.factor))
    return Edit(feature, _place(positions), _finite("value", value), 0.0)


def _place(positions: Any) -> Positions:
    if positions is None:
        return None
    if isinstance(positions, slice):
        if positions.step is not None and _whole(positions.step) < 1:
            raise PieFastError(f"the step of {positions} is not at least 1")
        return positions
    return _whole(positions)


def _whole(position: Any) -> int:
    if isinstance(position, bool) or not hasattr(position, "__index__"):
        raise PieFastError(f"positions are an int, a slice or None, not {position!r}")
    return index(position)


def _finite(what: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise PieFastError(f"{what} is {value!r}, must be a number or times(number)") from None
    if not math.isfinite(number):
        raise PieFastError(f"{what} is {number}, must be finite")
    return number
