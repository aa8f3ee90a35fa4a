"""Where a feature fires: its contexts among the prompts looked at. numpy only.

A prompt counts with its peak, the position where the feature is strongest. Strength is
``|activation|``, so that the rare negative activation (a JumpReLU with a threshold below 0) is
seen too; the sign is kept. An entry of activation 0 (only its baseline is not 0) is no firing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pie_fast.errors import PieFastError

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


class PromptLike(Protocol):
    """What is needed of a prompt."""

    @property
    def tokens(self) -> Sequence[int]:
        """``[n]`` token ids."""

    @property
    def roles(self) -> Sequence[str | None] | None:
        """``[n]`` the part each token plays in its template, or None."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """Prompts as flat arrays.

    Attributes:
        tokens: ``[n_tokens]`` int64, the prompts one after another.
        ptr: ``[n_prompts + 1]`` int64, where each starts.
        roles: ``[n_tokens]`` roles, or None where no prompt has any.
        sources: ``[n_prompts]`` where each comes from (a behaviour, a file), or None.
        counted: ``[n_tokens]`` bool, the positions that have features; None where all do.
    """

    tokens: Ints
    ptr: Ints
    roles: tuple[str | None, ...] | None = None
    sources: tuple[str, ...] | None = None
    counted: Bools | None = None

    @classmethod
    def of(cls, prompts: Sequence[PromptLike]) -> Corpus:
        """The corpus of a behaviour's prompts.

        Raises:
            PieFastError: There are no prompts, or one has no tokens.
        """
        lengths = [len(prompt.tokens) for prompt in prompts]
        if not lengths or min(lengths) == 0:
            raise PieFastError("interpretation needs at least one prompt, and no empty ones")
        roles: list[str | None] = []
        for prompt, length in zip(prompts, lengths, strict=True):
            roles += prompt.roles or [None] * length
        return cls(
            np.concatenate([np.asarray(p.tokens, dtype=np.int64) for p in prompts]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            tuple(roles) if any(role is not None for role in roles) else None,
        )

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return len(self.ptr) - 1

    @cached_property
    def prompt(self) -> Ints:
        """``[n_tokens]`` int64, the prompt of each token."""
        return np.repeat(np.arange(self.n_prompts), np.diff(self.ptr))

    @cached_property
    def position(self) -> Ints:
        """``[n_tokens]`` int64, the position of each token in its prompt."""
        return np.arange(len(self.tokens)) - self.ptr[self.prompt]

    @cached_property
    def counted_mask(self) -> Bools:
        """``[n_tokens]`` bool, the positions that have features."""
        every = np.ones(len(self.tokens), dtype=bool)
        return every if self.counted is None else self.counted

    def tokens_of(self, prompt: int) -> Ints:
        """``[n]`` int64, the tokens of one prompt."""
        return self.tokens[self.ptr[prompt] : self.ptr[prompt + 1]]

    def take(self, prompts: ArrayLike) -> Corpus:
        """Some of the prompts, in the order given.

        Args:
            prompts: ``[n]`` integers, indices of prompts.

        Raises:
            PieFastError: A prompt that is not there.
        """
        chosen = np.asarray(prompts, dtype=np.int64)
        outside = (chosen < 0) | (chosen >= self.n_prompts)
        if outside.any():
            bad, last = _first(chosen, outside), self.n_prompts - 1
            raise PieFastError(f"prompt {bad} is not in the corpus; the prompts are 0 to {last}")
        lengths = np.diff(self.ptr)[chosen]
        ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        at = np.arange(ptr[-1]) + np.repeat(self.ptr[chosen] - ptr[:-1], lengths)
        roles, sources, counted = self.roles, self.sources, self.counted
        return Corpus(
            self.tokens[at],
            ptr,
            None if roles is None else tuple(roles[i] for i in at.tolist()),
            None if sources is None else tuple(sources[i] for i in chosen.tolist()),
            None if counted is None else counted[at],
        )


@dataclass(frozen=True)
class Context:
    """A prompt with the peak of one feature in it.

    Attributes:
        prompt: Index of the prompt.
        peak: Position of the strongest activation (the first one of equals).
        activation: The activation there.
    """

    prompt: int
    peak: int
    activation: float


@dataclass(frozen=True, eq=False)
class Activity:
    """One feature's activations over a corpus.

    Attributes:
        corpus: The prompts.
        at: ``[n]`` int64, ascending indices into ``corpus.tokens`` where it fires.
        activation: ``[n]`` float32, none of them 0.
        n_zero: Entries whose activation is 0: there only the feature's baseline counts.
    """

    corpus: Corpus
    at: Ints
    activation: Floats
    n_zero: int = 0

    @classmethod
    def of(
        cls, corpus: Corpus, prompt: ArrayLike, position: ArrayLike, activation: ArrayLike
    ) -> Activity:
        """Check the entries of one feature and leave out those whose activation is 0.

        Args:
            corpus: The prompts.
            prompt: ``[n]`` integers, prompt of each entry.
            position: ``[n]`` integers, its position there.
            activation: ``[n]`` floats.

        Raises:
            PieFastError: Unequal lengths, a prompt or position that is not there, an activation
                that is not finite, or two entries for one position.
        """
        prompts = np.asarray(prompt, dtype=np.int64)
        positions = np.asarray(position, dtype=np.int64)
        values = np.asarray(activation, dtype=np.float32)
        if not len(prompts) == len(positions) == len(values):
            raise PieFastError(
                f"{len(prompts)} prompts, {len(positions)} positions and {len(values)} "
                "activations; the three must be equally many"
            )
        _check(corpus, prompts, positions, values)
        fires = values != 0
        at = (corpus.ptr[prompts] + positions)[fires]
        order = np.argsort(at, kind="stable")
        at = at[order]
        if (at[1:] == at[:-1]).any():
            raise PieFastError("two entries of one feature share a prompt and position")
        return cls(corpus, at, values[fires][order], int((~fires).sum()))

    @cached_property
    def peaks(self) -> tuple[Context, ...]:
        """One context for each prompt it fires in, strongest first, then by prompt."""
        prompt, strength = self.corpus.prompt[self.at], np.abs(self.activation)
        order = np.lexsort((self.at, -strength, prompt))  # by prompt, then strength, then place
        first = np.ones(len(order), dtype=bool)
        first[1:] = prompt[order][1:] != prompt[order][:-1]
        best = order[first]
        best = best[np.argsort(-strength[best], kind="stable")]
        position = self.corpus.position[self.at]
        return tuple(
            Context(int(prompt[i]), int(position[i]), float(self.activation[i])) for i in best
        )

    @property
    def n_active_prompts(self) -> int:
        """Number of prompts it fires in."""
        return len(self.peaks)

    @property
    def share_of_prompts(self) -> float:
        """Share of the prompts it fires in."""
        return self.n_active_prompts / self.corpus.n_prompts

    @property
    def density(self) -> float:
        """Share of the counted positions that it fires at."""
        return len(self.at) / max(int(self.corpus.counted_mask.sum()), 1)

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions it fires at in any prompt, ascending."""
        return tuple(np.unique(self.corpus.position[self.at]).tolist())

    @cached_property
    def fires(self) -> Bools:
        """``[n_tokens]`` bool, whether it fires there."""
        fires = np.zeros(len(self.corpus.tokens), dtype=bool)
        fires[self.at] = True
        return fires

    def top(self, n: int) -> tuple[Context, ...]:
        """The ``n`` strongest prompts; ties go to the smaller prompt."""
        return self.peaks[:n]

    def quantiles(self, n: int) -> tuple[Context, ...]:
        """``n`` prompts spread evenly from the strongest to the weakest it fires in."""
        return tuple(self.peaks[i] for i in spread(len(self.peaks), n))

    def silent(self, n: int) -> tuple[int, ...]:
        """``n`` prompts it does not fire in, spread evenly over their indices."""
        quiet = np.setdiff1d(np.arange(self.corpus.n_prompts), self.corpus.prompt[self.at])
        return tuple(quiet[spread(len(quiet), n)].tolist())


def spread(n_items: int, n: int) -> list[int]:
    """At most ``n`` distinct indices below ``n_items``, evenly spread, both ends among them."""
    if n >= n_items or n_items < 2 or n < 2:
        return list(range(min(n, n_items)))
    return [i * (n_items - 1) // (n - 1) for i in range(n)]


def _check(corpus: Corpus, prompt: Ints, position: Ints, activation: Floats) -> None:
    def refuse(bad: NDArray[Any], what: str, values: NDArray[Any], valid: str) -> None:
        if bad.any():
            raise PieFastError(f"an entry has {what} {values[bad][0]}; {valid}")

    n = corpus.n_prompts
    refuse((prompt < 0) | (prompt >= n), "prompt", prompt, f"the prompts are 0 to {n - 1}")
    length = np.diff(corpus.ptr)[prompt]
    outside = (position < 0) | (position >= length)
    refuse(outside, "position", position, f"its prompt has {_first(length, outside)} tokens")
    refuse(~np.isfinite(activation), "activation", activation, "it must be finite")


def _first(values: Ints, where: NDArray[Any]) -> int | None:
    return int(values[where][0]) if where.any() else None
