"""What a selection cost: prompts through forward and backward passes of the model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Model calls, counted in prompts: a batch of 32 through one forward pass is 32.

    A run that starts from saved activations of lower layers counts as a whole one.

    Attributes:
        forward: Prompts through a forward pass.
        backward: Prompts through a backward pass.
    """

    forward: int = 0
    backward: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.forward - other.forward, self.backward - other.backward)

    def times(self, n: int) -> Cost:
        """So many times the cost."""
        return Cost(n * self.forward, n * self.backward)

    def passes(self, n_prompts: int) -> dict[str, float]:
        """In passes over all of `n_prompts`: `{"forward", "backward"}`."""
        return {"forward": self.forward / n_prompts, "backward": self.backward / n_prompts}
