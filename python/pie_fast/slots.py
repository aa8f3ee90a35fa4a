"""Slots: the places of a behaviour's template, by which positions of different prompts are aligned.

A token that has a role stands in the slot of that name ("IO", "S1", "END"); one that has none in
"after <the last role before it>", or "start" before the first. A prompt without any role has the
slots "-1", "-2", ...: its positions counted from the end, where answers are read.

    node id = global id of the feature * n_slots + slot

No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pie_fast.behaviors import Prompt
from pie_fast.errors import PieFastError
from pie_fast.types import FeatureId

#: what a circuit can be made of
UNITS = ("feature", "node")

#: the slot of what stands before the first role
START = "start"

#: of a position that is in no known slot, and of padding
NO_SLOT = -1


class Node(NamedTuple):
    """A feature at a slot, shown as ``L5:42 at S2``."""

    feature: FeatureId
    slot: str

    def __str__(self) -> str:
        return f"{self.feature} at {self.slot}"


@dataclass(frozen=True)
class Slots:
    """The slots of a behaviour, numbered.

    Attributes:
        names: In the order in which prompts first have them.

    Raises:
        PieFastError: There is none, or a name twice.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise PieFastError(f"slots {list(self.names)} must be at least 1 name, none twice")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, prompts: Iterable[Prompt]) -> Slots:
        """All that some prompt has."""
        return cls(tuple(dict.fromkeys(name for p in prompts for name in slot_names(p))))

    @classmethod
    def having(cls, names: Iterable[str], prompts: Iterable[Prompt]) -> Slots:
        """`Slots.of` the prompts, which have all of `names`.

        Raises:
            PieFastError: No prompt has one of them.
        """
        found = cls.of(prompts)
        for name in names:
            if name not in found.names:
                raise PieFastError(
                    f"slot {name!r} is in no prompt of the behavior; there are: "
                    f"{', '.join(found.names)}"
                )
        return found

    def numbers(self, prompts: Sequence[Prompt], width: int) -> NDArray[np.int64]:
        """The slot of every position: `[n_prompts, width]`.

        Padding, and slots that are not among `names`, have `NO_SLOT`.
        """
        known = {name: number for number, name in enumerate(self.names)}
        found = np.full((len(prompts), width), NO_SLOT, dtype=np.int64)
        for row, prompt in zip(found, prompts, strict=True):
            row[: len(prompt)] = [known.get(name, NO_SLOT) for name in slot_names(prompt)]
        return found


def slot_names(prompt: Prompt) -> tuple[str, ...]:
    """The slot of every token of a prompt, in order."""
    if prompt.roles is None or not any(prompt.roles):
        return tuple(str(at - len(prompt)) for at in range(len(prompt)))
    names, here = [], START
    for role in prompt.roles:
        names.append(role or here)
        here = f"after {role}" if role else here
    return tuple(names)


def read_nodes(ids: ArrayLike, slots: Slots, n_features: int) -> list[Node]:
    """Node ids as features and names of slots, in their order."""
    features, at = np.divmod(np.asarray(ids, dtype=np.int64), len(slots))
    return [
        Node(FeatureId.from_global(feature, n_features), slots.names[slot])
        for feature, slot in zip(features.tolist(), at.tolist(), strict=True)
    ]


def node_ids(nodes: Iterable[Node], slots: Slots, n_features: int) -> list[int]:
    """The inverse of `read_nodes`."""
    return [
        node.feature.to_global(n_features) * len(slots) + slots.names.index(node.slot)
        for node in nodes
    ]
