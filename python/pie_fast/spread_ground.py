"""Grounds whose prompts are spread over a crew: each worker answers for the batches it is given.

A shard is one batch of prompts, and on a worker a ground of these prompts alone with the same
candidates. Answers are per prompt and are put together in the order of the prompts, so what is made
of them - means, selections - has the same bytes for any number of workers. A worker prepares a
shard when it first gets it and keeps it; one preparation is charged, wherever it ran.

Effects, marginals and values run on the workers. Whatever else a selector asks runs in this
process, on prompts that are prepared here when that first happens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pie_fast.behaviors import Prompt
from pie_fast.cost import Cost
from pie_fast.crew import Crew, Held
from pie_fast.ground import Ground, Progress
from pie_fast.model import MeanOf, Means, Switches
from pie_fast.nodes import NodeGround
from pie_fast.slots import Slots

#: the number of its first prompt, and its prompts
Shard = tuple[int, Sequence[Prompt]]

_numbers = count()


class SpreadGround(Ground):
    """A `Ground` whose effects, marginals and values a crew measures.

    Args:
        crew: Workers that hold the model.
        prompts, metric, switches: As of `Ground`.
        options: As of `Ground`; without `candidates` the prompts are prepared in this process too,
            to find them.
    """

    def __init__(
        self,
        crew: Crew,
        prompts: Sequence[Prompt],
        metric: str,
        switches: Switches | None = None,
        **options: Any,
    ) -> None:
        self._crew, self._number = crew, next(_numbers)
        super().__init__(crew.model, prompts, metric, switches, **options)

    def values(
        self,
        gates: Tensor,
        metric: str = "kl",
        *,
        rest: str = "baseline",
        progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        """As `Ground.values`; `progress` is called after each shard."""
        out = np.zeros((len(gates), len(self.prompts)))
        asked = _Question(self._shared, metric, gates.cpu(), rest=rest)
        done = 0
        for part in self._crew.map(_values, asked, self._shards()):
            out[:, done : done + part.shape[1]] = part
            done += part.shape[1]
            if progress is not None:
                progress(len(gates) * done, out.size)
        return out

    def gradients(
        self, metric: str, gradient: str, gates: Tensor | None = None
    ) -> NDArray[np.float64]:
        """As `Ground.gradients`."""
        on_cpu = None if gates is None else gates.cpu()
        asked = _Question(self._shared, metric, on_cpu, gradient=gradient)
        # Laid out as `Ground` does it: the order of a sum over prompts is a matter of layout.
        parts = [part.T for part in self._crew.map(_gradients, asked, self._shards())]
        return np.concatenate(parts).T

    def _prepare(self) -> None:
        for _ in self._crew.map(_prepare, self._shared_by_all, self._shards()):
            pass

    @cached_property
    def _shared_by_all(self) -> _Shared:
        means = self.mean_of
        if not isinstance(means, Means):
            of_mean = self.switches.baseline == "mean"
            means = self.model.mean_activations(means) if of_mean else ()
        return _Shared(self._number, self.switches, means, self.pool.global_ids, self.slots)

    @property
    def _shared(self) -> _Shared:
        return self._shared_by_all

    def _shards(self) -> Iterator[Shard]:
        for first in range(0, len(self.prompts), self.batch_size):
            yield first, self.prompts[first : first + self.batch_size]


class SpreadNodeGround(SpreadGround, NodeGround):
    """A `NodeGround` whose effects, marginals and values a crew measures; as `SpreadGround`."""

    def moved(self) -> NDArray[np.bool_]:
        """As `NodeGround.moved`."""
        parts = self._crew.map(_moved, self._shared_by_all, self._shards())
        found: NDArray[np.bool_] = np.any(list(parts), axis=0)
        return found

    @property
    def _shared(self) -> _Shared:
        return replace(self._shared_by_all, nodes=self.ids)


@dataclass(frozen=True, eq=False)
class _Shared:
    """What all shards of a ground share, in plain values.

    Attributes:
        number: Of the ground, in the process that asks.
        switches: Baseline and the rest.
        means: Of `baseline="mean"`.
        features: `[n]` int64 global ids of the candidates, or of their features.
        slots: Of nodes, where these are the candidates.
        nodes: `[n]` int64 node ids of the candidates, once they are known.
    """

    number: int
    switches: Switches
    means: MeanOf
    features: NDArray[np.int64]
    slots: Slots | None
    nodes: NDArray[np.int64] | None = None

    def kept(self, held: Held, shard: Shard) -> tuple[Ground, Cost]:
        """The ground of a shard on a worker, and what its preparation cost."""
        return held.keep(("ground", self.number, shard[0]), partial(self._made, held, shard[1]))

    def _made(self, held: Held, prompts: Sequence[Prompt]) -> Ground:
        given = held.model, prompts, "kl", self.switches
        options: dict[str, Any] = {"candidates": self.features, "mean_of": self.means}
        options["batch_size"] = len(prompts)
        if self.slots is None:
            return Ground(*given, **options)
        return NodeGround(*given, slots=self.slots, **options)


@dataclass(frozen=True, eq=False)
class _Question:
    """What is asked of every shard.

    Attributes:
        shared: What they share.
        metric: See `pie_fast.metrics`.
        gates: `[n_sets, n]` of the candidates; None: the model itself.
        gradient: A rule of `pie_fast.gradients`.
        rest: As of `Ground.values`.
    """

    shared: _Shared
    metric: str
    gates: Tensor | None
    gradient: str = "full"
    rest: str = "baseline"

    def ground(self, held: Held, shard: Shard) -> Ground:
        """The ground of a shard, with these candidates."""
        ground = self.shared.kept(held, shard)[0]
        if isinstance(ground, NodeGround) and self.shared.nodes is not None:
            return ground.having(self.shared.nodes)
        return ground


def _prepare(held: Held, shared: _Shared, shard: Shard) -> None:
    held.model.spent += shared.kept(held, shard)[1]


def _moved(held: Held, shared: _Shared, shard: Shard) -> NDArray[np.bool_]:
    ground = shared.kept(held, shard)[0]
    assert isinstance(ground, NodeGround), "only these are asked"
    return ground.moved()


def _values(held: Held, asked: _Question, shard: Shard) -> NDArray[np.float64]:
    assert asked.gates is not None, "values are of gates"
    gates = asked.gates.to(held.model.device)
    return asked.ground(held, shard).values(gates, asked.metric, rest=asked.rest)


def _gradients(held: Held, asked: _Question, shard: Shard) -> NDArray[np.float64]:
    gates = None if asked.gates is None else asked.gates.to(held.model.device)
    return asked.ground(held, shard).gradients(asked.metric, asked.gradient, gates)
