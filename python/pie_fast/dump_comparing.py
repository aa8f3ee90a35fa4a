"""Two dumps of the same prompts side by side: do they hold the same entries, and how far apart?

Machines of different kinds add in different orders, so their captures differ in the last bits. A
feature whose pre-activation stands at its threshold is then active on one of them only: such
entries are listed, not forgiven. All others have two values, whose difference is measured by the
largest value of its kind in either dump.

    agrees    no difference of activations, attributions or metrics is above `TOLERANCE` of the
              largest, and no more than `LONE` of the entries stand in one dump only
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.dump import Entries, FeatureDump
from pie_fast.dump_prompts import PromptTable
from pie_fast.errors import DumpError
from pie_fast.types import FeatureId

#: largest difference of a value, of the largest value; between AVX-512 and no vector instructions
#: at all the demo model's float32 is 1.2e-6 apart
TOLERANCE = 1e-4

#: share of entries that may stand in one dump only
LONE = 1e-4

#: lone entries that are kept, the strongest of them
LISTED = 1000

#: prompts compared at once
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class LoneEntry:
    """An entry that only one dump has.

    Attributes:
        where: 1 or 2.
        prompt: Its number.
        feature: Global id.
        name: The feature as people read it.
        position: In the prompt.
        activation: Of the dump that has it; in the other the feature is silent there.
        attribution: None in a dump without attributions.
    """

    where: int
    prompt: int
    feature: int
    name: str
    position: int
    activation: float
    attribution: float | None


@dataclass(frozen=True, slots=True)
class Apart:
    """How far values that both dumps have are apart.

    Attributes:
        largest: Of either dump, without its sign.
        difference: The largest one.
    """

    largest: float = 0.0
    difference: float = 0.0

    @property
    def share(self) -> float:
        """The largest difference as a share of the largest value."""
        return self.difference / self.largest if self.largest else 0.0

    def and_of(self, first: NDArray[Any], second: NDArray[Any]) -> Apart:
        """The same with more values, `[n]` of each dump."""
        if not len(first):
            return self
        a, b = first.astype(np.float64), second.astype(np.float64)
        largest = max(self.largest, float(np.abs(a).max()), float(np.abs(b).max()))
        return Apart(largest, max(self.difference, float(np.abs(a - b).max())))


@dataclass(frozen=True)
class DumpComparison:
    """What two dumps have in common.

    Attributes:
        n_prompts: Of each.
        n_first: Entries of the first.
        n_second: Of the second.
        n_shared: That both have.
        activation, attribution, metric: How far those are apart that both have.
        lone: The strongest entries that one dump has and the other has not.
    """

    n_prompts: int
    n_first: int
    n_second: int
    n_shared: int
    activation: Apart
    attribution: Apart
    metric: Apart
    lone: tuple[LoneEntry, ...]

    @property
    def n_lone(self) -> int:
        """Entries that only one has, those that are not listed too."""
        return self.n_first + self.n_second - 2 * self.n_shared

    @property
    def lone_share(self) -> float:
        """As a share of the entries of both."""
        return self.n_lone / max(self.n_first + self.n_second, 1)

    @property
    def agrees(self) -> bool:
        """Whether they are the same to `TOLERANCE`, but for `LONE` of the entries."""
        apart = max(one.share for one in (self.activation, self.attribution, self.metric))
        return apart <= TOLERANCE and self.lone_share <= LONE

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        shares = {
            name: asdict(one) | {"share": one.share}
            for name, one in (
                ("activation", self.activation),
                ("attribution", self.attribution),
                ("metric", self.metric),
            )
        }
        said = {"agrees": self.agrees, "n_lone": self.n_lone, "lone_share": self.lone_share}
        limits = {"tolerance": TOLERANCE, "lone_limit": LONE}
        return asdict(self) | shares | said | limits


def compare_dumps(first: FeatureDump, second: FeatureDump) -> DumpComparison:
    """Compare two dumps entry by entry, 256 prompts at a time.

    Raises:
        DumpError: They are of different prompts or dictionaries, or a shard is broken.
    """
    ours, theirs = first.prompts, second.prompts
    _check_alike(first, second, ours, theirs)
    metric, activation, attribution = Apart(), Apart(), Apart()
    for name in ("metric_clean", "metric_baseline"):
        metric = metric.and_of(getattr(ours, name), getattr(theirs, name))
    n_shared, lone = 0, list[LoneEntry]()
    for at in range(0, first.n_prompts, _BLOCK):
        n = min(_BLOCK, first.n_prompts - at)
        a, b = first.entries(at, n), second.entries(at, n)
        _, in_a, in_b = np.intersect1d(_keys(a), _keys(b), assume_unique=True, return_indices=True)
        n_shared += len(in_a)
        activation = activation.and_of(a.activation[in_a], b.activation[in_b])
        if a.attribution is not None and b.attribution is not None:
            attribution = attribution.and_of(a.attribution[in_a], b.attribution[in_b])
        for where, some, shared in ((1, a, in_a), (2, b, in_b)):
            lone += _lone(where, at, some, shared, first.n_features)
        lone = sorted(lone, key=_strongest_first)[:LISTED]
    return DumpComparison(
        first.n_prompts,
        int(first.n_active),
        int(second.n_active),
        n_shared,
        activation,
        attribution,
        metric,
        tuple(lone),
    )


def _check_alike(
    first: FeatureDump, second: FeatureDump, ours: PromptTable, theirs: PromptTable
) -> None:
    """Refuse dumps that cannot hold the same entries."""
    for name in ("n_prompts", "n_layers", "n_features", "has_attribution"):
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            raise DumpError(f"{second.path}: {name} is {other}, of {first.path} it is {one}")
    for name in ("tokens", "prompt_ptr"):
        if not np.array_equal(getattr(ours, name), getattr(theirs, name)):
            raise DumpError(f"{second.path}: its prompts are not those of {first.path}")


def _keys(entries: Entries) -> NDArray[np.uint64]:
    """A number for each entry that both dumps would give it: `[nnz]`, ascending."""
    # 8 bits of prompt, 32 of feature, 24 of position
    key = _prompts(entries).astype(np.uint64) << np.uint64(56)
    key |= entries.feature.astype(np.uint64) << np.uint64(24)
    return key | entries.position.astype(np.uint64)


def _prompts(entries: Entries) -> NDArray[np.int64]:
    """Of each entry, within the block: `[nnz]`."""
    lengths = np.diff(entries.prompt_ptr)
    return np.repeat(np.arange(len(lengths)), lengths)


def _lone(
    where: int, at: int, entries: Entries, shared: NDArray[np.int64], n_features: int
) -> Iterator[LoneEntry]:
    mine = np.ones(len(entries.feature), dtype=bool)
    mine[shared] = False
    prompts = _prompts(entries)
    for i in np.flatnonzero(mine).tolist():
        feature = int(entries.feature[i])
        effect = None if entries.attribution is None else float(entries.attribution[i])
        yield LoneEntry(
            where,
            at + int(prompts[i]),
            feature,
            str(FeatureId.from_global(feature, n_features)),
            int(entries.position[i]),
            float(entries.activation[i]),
            effect,
        )


def _strongest_first(one: LoneEntry) -> tuple[float, int, int, int, int]:
    return -abs(one.activation), one.prompt, one.feature, one.position, one.where
