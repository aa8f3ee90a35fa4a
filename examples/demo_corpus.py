"""The text the demo model learns from: the package's own task generators, mixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from pie_fast.behaviors import TASKS as SHIPPED
from pie_fast.behaviors.docstring import Docstring
from pie_fast.behaviors.drafting import Draft, Draws, Task
from pie_fast.behaviors.ioi import IOI
from pie_fast.behaviors.pools import ARGUMENTS, NAMES

BOS, PAD = "<|bos|>", "<|pad|>"

#: The narrow tasks here are somewhat wider than the shipped ones: how narrow those are was tuned
#: on the trained model, so that 50 features are neither enough nor hopeless for them.
TASKS: dict[str, Task] = SHIPPED | {
    "ioi": IOI(names=NAMES[:6], templates=IOI.templates[:2]),
    "docstring": Docstring(arguments=ARGUMENTS[:12]),
}

#: task -> share, by length class, so that a batch wastes little on padding
MIXTURE = {
    "long": {"docstring-wide": 0.6, "docstring": 0.4},
    "short": {
        "ioi-wide": 0.32,
        "ioi": 0.2,
        "greater-than": 0.11,
        "successor": 0.11,
        "induction": 0.15,
        "pronoun": 0.11,
    },
}
BATCH = {"long": 16, "short": 48}


@dataclass(frozen=True)
class Batch:
    """Padded documents.

    Attributes:
        ids: ``[batch, pos]`` int64, padded at the right.
        mask: ``[batch, pos]`` bool, False on padding.
        answer_at: ``[batch]`` position whose logits should give the answer, -1 if none.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    answer_at: torch.Tensor


def document(draws: Draws, name: str) -> tuple[str, str]:
    """A prompt and what follows it.

    One document in eight is a counterfactual prompt and stops there, so that counterfactuals are
    known text to model and transcoder.
    """
    draft = TASKS[name].draft(draws, draws.index(2))
    if draws.chance(0.125):
        return draft.counterfactual, ""
    if name.startswith("docstring"):
        return vary(draft, draws), f"{draft.answer}:"
    if name == "induction":
        # go on to the end of the row: one repeated word a document is too little to learn from
        words = draft.text.split()[1:]
        at = words.index(words[-1])
        return draft.text, "".join(f" {word}" for word in words[at + 1 : -1])
    return draft.text, f"{draft.answer}."


def vary(draft: Draft, draws: Draws) -> str:
    """Leave out some arguments of half the docstrings, so that no fixed position has the answer."""
    text = draft.text
    if draws.chance(0.5):
        for start, end, role in reversed(draft.spans):
            if role in ("P1", "P2", "S1") and draws.chance(0.4):
                text = text[: start - 2] + text[end:]
    return text


def pick(draws: Draws, shares: dict[str, float]) -> str:
    """A task name by its share."""
    at = draws.index(1_000_000) / 1_000_000 * sum(shares.values())
    for name, share in shares.items():
        at -= share
        if at < 0:
            return name
    return name


def corpus(seed: int, n: int) -> Iterator[str]:
    """Documents for the tokenizer, in equal parts of every task."""
    draws = Draws(f"corpus/{seed}")
    for i in range(n):
        name = list(TASKS)[i % len(TASKS)]
        yield "".join(document(draws, name))


def batch(tokenizer: PreTrainedTokenizerFast, kind: str, name: str) -> Batch:
    """A batch that depends on nothing but its name."""
    draws = Draws(f"batch/{kind}/{name}")
    pairs = [document(draws, pick(draws, MIXTURE[kind])) for _ in range(BATCH[kind])]
    ids = tokenizer([a + b for a, b in pairs])["input_ids"]
    heads = tokenizer([a for a, _ in pairs])["input_ids"]
    longest = max(map(len, ids))
    rows = [row + [tokenizer.pad_token_id] * (longest - len(row)) for row in ids]
    lengths = torch.tensor([len(row) for row in ids])
    answers = [len(head) - 1 if tail else -1 for head, (_, tail) in zip(heads, pairs, strict=True)]
    return Batch(
        ids=torch.tensor(rows),
        mask=torch.arange(longest)[None, :] < lengths[:, None],
        answer_at=torch.tensor(answers),
    )
