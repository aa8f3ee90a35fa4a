"""What is planted, and how a selection compares with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from pie_fast.errors import PieFastError


@dataclass(frozen=True)
class Motifs:
    """How many of each motif to plant; pairs count once.

    Attributes:
        plain, suppressor, decoy: Single features.
        and_pair, or_pair, duplicate, cancelling: Pairs.
    """

    plain: int = 2
    suppressor: int = 1
    decoy: int = 3
    and_pair: int = 1
    or_pair: int = 1
    duplicate: int = 1
    cancelling: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            count = getattr(self, field.name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise PieFastError(f"{field.name} is {count!r}, must be an integer of at least 0")
        if not any(vars(self).values()):
            raise PieFastError("every count of motifs is 0; at least one must be planted")


@dataclass(frozen=True)
class Agreement:
    """A selection beside the planted circuit.

    Attributes:
        precision: Share of the selection that is in the circuit; 1 for an empty selection.
        recall: Share of the circuit that is selected; 1 for an empty circuit.
    """

    precision: float
    recall: float


@dataclass(frozen=True)
class Truth:
    """What was planted, as global ids (layer * n_features + index).

    Attributes:
        motifs: Motif name (a field of `Motifs`) -> its features, one tuple a motif. Pairs are in
            the order (original, copy) and (adds, takes off); others in no order that matters.
    """

    motifs: dict[str, tuple[tuple[int, ...], ...]]

    @property
    def circuit(self) -> frozenset[int]:
        """The smallest set that answers like the model: everything else adds nothing to it."""
        whole = ("plain", "suppressor", "and_pair", "or_pair")
        found = {i for name in whole for motif in self.motifs[name] for i in motif}
        return frozenset(found | {original for original, _ in self.motifs["duplicate"]})

    @property
    def everything(self) -> frozenset[int]:
        """All features that ever fire."""
        return frozenset(i for each in self.motifs.values() for motif in each for i in motif)

    def agreement(self, ids: Iterable[int]) -> Agreement:
        """Precision and recall of a selection."""
        chosen = {int(i) for i in ids}
        hits = len(chosen & self.circuit)
        return Agreement(
            hits / len(chosen) if chosen else 1.0,
            hits / len(self.circuit) if self.circuit else 1.0,
        )
