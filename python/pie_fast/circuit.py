"""A circuit: the features that are kept, and what becomes of everything else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pie_fast.errors import PieFastError

#: switch -> its values; a baseline of None leaves the choice to the model
SWITCHES: dict[str, tuple[str | None, ...]] = {
    "baseline": (None, "zero", "mean", "counterfactual"),
    "error": ("keep", "drop"),
    "attention": ("recompute", "freeze"),
    "activations": ("recompute", "freeze"),
}


@dataclass(frozen=True, slots=True)
class Circuit:
    """Features kept; every other feature of the model is set to a baseline.

    Attributes:
        features: The features kept, each once, in the order they were selected.
        baseline: What the others are set to: ``"zero"``, ``"mean"`` or ``"counterfactual"``;
            None is the counterfactual where the behaviour has one, else the mean.
        error: What the transcoder misses is kept (``"keep"``, a constant of the clean run) or
            dropped (``"drop"``).
        attention: Attention patterns are recomputed from the circuit's own stream
            (``"recompute"``) or those of the clean run (``"freeze"``).
        activations: The same for the kept features' activations.
    """

    features: tuple[Any, ...]
    baseline: str | None = None
    error: str = "keep"
    attention: str = "recompute"
    activations: str = "recompute"

    def __init__(
        self,
        features: Iterable[Any],
        baseline: str | None = None,
        error: str = "keep",
        attention: str = "recompute",
        activations: str = "recompute",
    ) -> None:
        values = {
            "baseline": baseline,
            "error": error,
            "attention": attention,
            "activations": activations,
        }
        for name, value in values.items():
            if value not in SWITCHES[name]:
                valid = ", ".join(str(choice) for choice in SWITCHES[name])
                raise PieFastError(f"{name} {value!r} is not one of {valid}")
            object.__setattr__(self, name, value)
        # a set has no order of its own: sort it, so that equal circuits are equal objects
        ordered = sorted(features) if isinstance(features, set | frozenset) else features
        object.__setattr__(self, "features", tuple(dict.fromkeys(ordered)))

    @property
    def n_features(self) -> int:
        """How many features are kept."""
        return len(self.features)

    @property
    def switches(self) -> dict[str, str | None]:
        """The four switches by name, for a result's settings."""
        return {name: getattr(self, name) for name in SWITCHES}

    def __len__(self) -> int:
        return len(self.features)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.features)

    def __contains__(self, feature: object) -> bool:
        return feature in self.features
