"""The switches of a replacement run, each named in every result."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pie_fast.errors import PieFastError

_VALID = {
    "baseline": ("zero", "mean", "counterfactual"),
    "error": ("keep", "drop"),
    "attention": ("recompute", "freeze"),
    "activations": ("recompute", "freeze"),
}


@dataclass(frozen=True)
class Switches:
    """What happens to everything that is not a kept feature.

    Attributes:
        baseline: Value of features that are not kept: 0, their mean over the selection prompts,
            or their value on the prompt's counterfactual.
        error: What the CLT misses: kept as a constant of the clean run, or dropped.
        attention: Patterns recomputed, or frozen to the clean run's.
        activations: Kept features recomputed from what they read, or frozen to their clean value.
    """

    baseline: str = "counterfactual"
    error: str = "keep"
    attention: str = "recompute"
    activations: str = "recompute"

    def __post_init__(self) -> None:
        for key, valid in _VALID.items():
            value = getattr(self, key)
            if value not in valid:
                raise PieFastError(f"{key} is {value!r}, must be one of {', '.join(valid)}")

    def to_dict(self) -> dict[str, str]:
        """For results and manifests."""
        return asdict(self)
