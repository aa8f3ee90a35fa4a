"""Prompts, answers and the two splits of a behaviour: what circuits are found for and judged on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import index
from typing import Any, Literal, SupportsIndex, get_args, overload

from pie_fast.errors import BehaviorError

Metric = Literal["logit-diff", "logprob", "prob-diff", "kl", "logit"]

#: the metrics a behaviour can be measured by
METRICS: tuple[str, ...] = get_args(Metric)

#: metrics that compare the answer with a foil
NEEDS_FOIL = ("logit-diff", "prob-diff")


def _plain(value: Any) -> Any:
    """An integer of any library as a plain int; bools and everything else as they are."""
    return value if isinstance(value, bool) or not hasattr(value, "__index__") else index(value)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt with its answer.

    Attributes:
        tokens: ``[n]`` token ids, special tokens included.
        answer: Token id that should follow ``tokens[answer_position]``.
        foil: Token id the answer is compared with, if the metric compares.
        counterfactual: ``[n]`` token ids of a prompt that differs where it matters, or None.
        answer_position: Index of the token whose logits are read; the last one by default
            (negative values count from the end and are stored resolved).
        text: The prompt as text, where it was made from text.
        roles: ``[n]`` the part each token plays in its template ("S1", "END", ...), or None.
    """

    tokens: tuple[int, ...]
    answer: int
    foil: int | None = None
    counterfactual: tuple[int, ...] | None = None
    answer_position: int = -1
    text: str | None = None
    roles: tuple[str | None, ...] | None = None

    def __post_init__(self) -> None:
        # lists and numpy integers are welcome; anything else stays for `problem` to name
        for name in ("tokens", "counterfactual", "roles"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(map(_plain, getattr(self, name))))
        for name in ("answer", "foil", "answer_position"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        n = len(self.tokens)
        if -n <= self.answer_position < 0:
            object.__setattr__(self, "answer_position", self.answer_position + n)

    def __len__(self) -> int:
        return len(self.tokens)

    def problem(self) -> str | None:
        """What is wrong with this prompt, naming field, value and valid range; None if nothing."""
        n = len(self.tokens)
        if n == 0:
            return "tokens is empty; a prompt needs at least one token"
        if not 0 <= self.answer_position < n:
            return f"answer_position {self.answer_position} is outside [{-n}, {n - 1}]"
        if self.counterfactual is not None and len(self.counterfactual) != n:
            return (
                f"counterfactual has {len(self.counterfactual)} tokens where the prompt has {n}; "
                "the two need equal lengths"
            )
        if self.roles is not None and len(self.roles) != n:
            return f"roles has {len(self.roles)} entries where the prompt has {n} tokens"
        if self.foil is not None and self.foil == self.answer:
            return f"foil {self.foil} is the answer itself; they must differ"
        for name, ids in self._ids():
            for token in ids:
                if isinstance(token, bool) or not isinstance(token, int):
                    return f"{name} holds {token!r}, which is not an integer token id"
                if token < 0:
                    return f"{name} holds token id {token}; ids are >= 0"
        return None

    def _ids(self) -> list[tuple[str, tuple[int, ...]]]:
        return [
            ("tokens", self.tokens),
            ("answer", (self.answer,)),
            ("foil", () if self.foil is None else (self.foil,)),
            ("counterfactual", self.counterfactual or ()),
        ]

    def _content(self) -> list[object]:
        """What decides results, in a fixed order: text and roles only describe."""
        cf = None if self.counterfactual is None else list(self.counterfactual)
        return [list(self.tokens), self.answer, self.foil, cf, self.answer_position]


class Prompts(tuple[Prompt, ...]):
    """Prompts that know what they are measured by.

    Attributes:
        metric: One of :data:`METRICS`.
    """

    metric: str

    def __new__(cls, prompts: Iterable[Prompt], metric: str) -> Prompts:
        """Freeze ``prompts``."""
        self = super().__new__(cls, tuple(prompts))
        self.metric = metric
        return self

    @overload
    def __getitem__(self, at: SupportsIndex, /) -> Prompt: ...
    @overload
    def __getitem__(self, at: slice, /) -> Prompts: ...
    def __getitem__(self, at: SupportsIndex | slice, /) -> Prompt | Prompts:
        """One prompt, or some that know the same."""
        if isinstance(at, slice):
            return Prompts(super().__getitem__(at), self.metric)
        return super().__getitem__(at)


@dataclass(frozen=True)
class Behavior:
    """A set of prompts, split into what selection may look at and what only evaluation may.

    Attributes:
        name: Name of the generator or the file it came from.
        selection: Prompts that finding a circuit may use.
        held_out: Prompts that only judge it; disjoint from ``selection`` when generated.
        metric: One of :data:`METRICS`.
        seed: Seed it was generated with (0 for files).
        counterfactual: Name of the kind of counterfactual, or None.

    Raises:
        BehaviorError: It has no prompts, an unknown metric, or a prompt that is not valid; the
            message names split, prompt number (from 0), field, value and valid range.
    """

    name: str
    selection: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...] = ()
    metric: str = "logit-diff"
    seed: int = 0
    counterfactual: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise BehaviorError(f"unknown metric {self.metric!r}; known: {', '.join(METRICS)}")
        if not self.selection and not self.held_out:
            raise BehaviorError(f"behavior {self.name!r} is empty; it needs at least one prompt")
        for split, number, prompt in self._numbered():
            problem = prompt.problem()
            if problem is None and prompt.foil is None and self.metric in NEEDS_FOIL:
                problem = f"foil is missing; metric {self.metric!r} compares the answer with a foil"
            if problem is not None:
                raise BehaviorError(f"behavior {self.name!r}, {split} prompt {number}: {problem}")

    @property
    def behaviors(self) -> Prompts:
        """What selection may look at."""
        return Prompts(self.selection, self.metric)

    @property
    def test_set(self) -> Prompts:
        """What only evaluation may look at."""
        return Prompts(self.held_out, self.metric)

    @property
    def has_counterfactuals(self) -> bool:
        """Whether every prompt has a counterfactual."""
        return all(p.counterfactual is not None for _, _, p in self._numbered())

    @cached_property
    def hash(self) -> str:
        """sha256 (hex) of name, metric, seed and the ids of both splits; stable across machines."""
        content = {
            "name": self.name,
            "metric": self.metric,
            "seed": self.seed,
            "counterfactual": self.counterfactual,
            "selection": [p._content() for p in self.selection],
            "held_out": [p._content() for p in self.held_out],
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def take(self, n_selection: int, n_held_out: int) -> Behavior:
        """The first ``n_selection`` and ``n_held_out`` prompts of the two splits.

        Raises:
            BehaviorError: A count is negative or above what the split has.
        """
        for split, have, want in (
            ("selection", len(self.selection), n_selection),
            ("held_out", len(self.held_out), n_held_out),
        ):
            if not 0 <= want <= have:
                raise BehaviorError(
                    f"cannot take {want} {split} prompts of {self.name!r}; valid: 0 to {have}"
                )
        return replace(
            self, selection=self.selection[:n_selection], held_out=self.held_out[:n_held_out]
        )

    def check_fits(self, vocab_size: int, context_length: int) -> None:
        """Check every prompt against a model's vocabulary and context.

        Args:
            vocab_size: Number of token ids the model knows.
            context_length: Longest prompt the model can read, in tokens.

        Raises:
            BehaviorError: A prompt is longer than the context, or an id is not in the vocabulary.
        """
        for split, prompts in (("selection", self.selection), ("held_out", self.held_out)):
            check_prompts(
                prompts, vocab_size, context_length, where=f"behavior {self.name!r}, {split} "
            )

    def _numbered(self) -> list[tuple[str, int, Prompt]]:
        return [("selection", i, p) for i, p in enumerate(self.selection)] + [
            ("held_out", i, p) for i, p in enumerate(self.held_out)
        ]


def check_prompts(
    prompts: Sequence[Prompt], vocab_size: int, context_length: int, *, where: str = ""
) -> None:
    """Check that a model can read prompts.

    Args:
        prompts: The prompts; none at all is fine.
        vocab_size: Number of token ids the model knows.
        context_length: Longest prompt the model can read, in tokens.
        where: What a message begins with.

    Raises:
        BehaviorError: A prompt is longer than the context, or an id is not in the vocabulary.
    """
    for number, prompt in enumerate(prompts):
        if len(prompt) > context_length:
            raise BehaviorError(
                f"{where}prompt {number}: {len(prompt)} tokens exceed the model's context of "
                f"{context_length}"
            )
        for name, ids in prompt._ids():
            for token in ids:
                if token >= vocab_size:
                    raise BehaviorError(
                        f"{where}prompt {number}: {name} holds token id {token}; the model's ids "
                        f"are 0 to {vocab_size - 1}"
                    )
