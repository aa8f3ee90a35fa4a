"""Behaviours as JSON Lines: one prompt a line.

Each line is an object with these fields (and no others):

* ``prompt`` (text, tokenised with the model's tokenizer, special tokens first) or ``tokens`` (ids,
  used as they are);
* ``answer`` (text of exactly one token) or ``answer_id``;
* optional ``foil`` or ``foil_id``; optional ``counterfactual`` or ``counterfactual_tokens``, of the
  prompt's length in tokens;
* optional ``answer_position`` (the last token if missing; negative counts from the end);
* optional ``split``: ``"selection"`` or ``"held_out"``, on every line or on none. Without it
  every second prompt of a seeded shuffle is held out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pie_fast.behaviors.behavior import METRICS, NEEDS_FOIL, Behavior, Prompt
from pie_fast.behaviors.drafting import Draws, check_tokenizer, encode
from pie_fast.errors import BehaviorError
from pie_fast.storage import write_text
from pie_fast.untrusted import load_json, shown

SPLITS = ("selection", "held_out")

_PAIRS = (
    ("prompt", "tokens"),
    ("answer", "answer_id"),
    ("foil", "foil_id"),
    ("counterfactual", "counterfactual_tokens"),
)
FIELDS = (*(name for pair in _PAIRS for name in pair), "answer_position", "split")


def read_jsonl(
    path: str | os.PathLike[str],
    *,
    tokenizer: Any = None,
    seed: int = 0,
    metric: str | None = None,
) -> Behavior:
    """Read a behaviour.

    Args:
        path: The file.
        tokenizer: HuggingFace tokenizer; not needed where the file holds only ids.
        seed: Seed of the split, where the file names none.
        metric: One of ``METRICS``; by default logit-diff if every prompt has a foil, else logprob.

    Raises:
        BehaviorError: The file is missing, empty or not what the format promises; the message
            names file, line (from 1), field and value.
    """
    lines = _lines(path)
    if tokenizer is not None:
        check_tokenizer(tokenizer)
    prompts: list[Prompt] = []
    splits: list[str | None] = []
    for number, line in lines:
        where = f"{path}, line {number}"
        prompt, split = _parse(where, line, tokenizer)
        if splits and (split is None) != (splits[0] is None):
            raise BehaviorError(
                f"{where}: field 'split' is {split!r} here but not on other lines; "
                "give it on every line or on none"
            )
        prompts.append(prompt)
        splits.append(split)
    if metric is None:
        metric = "logit-diff" if all(p.foil is not None for p in prompts) else "logprob"
    _check_metric(path, metric, lines, prompts)
    if splits[0] is None:
        splits = _split(len(prompts), seed)
    selection, held_out = (
        tuple(p for p, split in zip(prompts, splits, strict=True) if split == name)
        for name in SPLITS
    )
    return Behavior(Path(path).name, selection, held_out, metric, seed)


def write_jsonl(
    path: str | os.PathLike[str], behavior: Behavior, *, text: bool = False, tokenizer: Any = None
) -> None:
    """Write a behaviour, with its splits; the file appears whole or not at all.

    Args:
        path: The file; replaced if it exists.
        behavior: What to write, in order: selection, then held out.
        text: Write prompts as text where they carry it, instead of ids. Such a file depends on
            the tokenizer that reads it; needs ``tokenizer`` to write the other fields.
        tokenizer: HuggingFace tokenizer, needed only with ``text``.

    Raises:
        BehaviorError: ``text`` without a tokenizer, or a prompt that does not carry its text.
    """
    if text and tokenizer is None:
        raise BehaviorError("writing a behavior as text needs the tokenizer")
    lines = []
    for split, prompts in (("selection", behavior.selection), ("held_out", behavior.held_out)):
        for number, prompt in enumerate(prompts):
            if text and prompt.text is None:
                raise BehaviorError(f"{split} prompt {number} of {behavior.name!r} carries no text")
            record = _as_text(prompt, tokenizer) if text else _as_ids(prompt)
            record["split"] = split
            lines.append(json.dumps(record, ensure_ascii=False))
    write_text(Path(path), "\n".join(lines) + "\n")


def _as_ids(prompt: Prompt) -> dict[str, Any]:
    record: dict[str, Any] = {"tokens": list(prompt.tokens), "answer_id": prompt.answer}
    if prompt.foil is not None:
        record["foil_id"] = prompt.foil
    if prompt.counterfactual is not None:
        record["counterfactual_tokens"] = list(prompt.counterfactual)
    if prompt.answer_position != len(prompt) - 1:
        record["answer_position"] = prompt.answer_position
    return record


def _as_text(prompt: Prompt, tokenizer: Any) -> dict[str, Any]:
    record = _as_ids(prompt)
    del record["tokens"], record["answer_id"]
    texts = {"prompt": prompt.text, "answer": tokenizer.decode([prompt.answer])}
    if prompt.foil is not None:
        del record["foil_id"]
        texts["foil"] = tokenizer.decode([prompt.foil])
    return texts | record


def _lines(path: str | os.PathLike[str]) -> list[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BehaviorError(f"cannot read behavior file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BehaviorError(f"{path} is not UTF-8 text: byte {error.start} is invalid") from error
    # not splitlines(): it also cuts at characters that JSON allows inside strings
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise BehaviorError(f"behavior file {path} is empty; it needs at least one line")
    return lines


def _parse(where: str, line: str, tokenizer: Any) -> tuple[Prompt, str | None]:
    """One line as a prompt and the split it names."""
    try:
        record = load_json(line)
    except json.JSONDecodeError as error:
        raise BehaviorError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    except ValueError as error:
        raise BehaviorError(f"{where}: not JSON that can be read: {error}") from error
    if not isinstance(record, dict):
        raise BehaviorError(f"{where}: expected an object, found {type(record).__name__}")
    for name in record:
        if name not in FIELDS:
            raise BehaviorError(f"{where}: unknown field {name!r}; known: {', '.join(FIELDS)}")
    for as_text, as_ids in _PAIRS:
        if record.get(as_text) is not None and record.get(as_ids) is not None:
            raise BehaviorError(f"{where}: both {as_text!r} and {as_ids!r} are given; keep one")
    split = record.get("split")
    if split is not None and split not in SPLITS:
        raise BehaviorError(f"{where}: field 'split' is {shown(split)}; valid: {', '.join(SPLITS)}")
    tokens = _sequence(where, record, "prompt", "tokens", tokenizer)
    answer = _single(where, record, "answer", "answer_id", tokenizer)
    if tokens is None or answer is None:
        missing = "'prompt' or 'tokens'" if tokens is None else "'answer' or 'answer_id'"
        raise BehaviorError(f"{where}: field {missing} is missing")
    position = record.get("answer_position", -1)
    if isinstance(position, bool) or not isinstance(position, int):
        raise BehaviorError(
            f"{where}: field 'answer_position' is {shown(position)}, not an integer"
        )
    prompt = Prompt(
        tokens=tokens,
        answer=answer,
        foil=_single(where, record, "foil", "foil_id", tokenizer),
        counterfactual=_sequence(
            where, record, "counterfactual", "counterfactual_tokens", tokenizer
        ),
        answer_position=position,
        text=record.get("prompt"),
    )
    problem = prompt.problem()
    if problem is not None:
        raise BehaviorError(f"{where}: {problem}")
    return prompt, split


def _sequence(
    where: str, record: dict[str, Any], as_text: str, as_ids: str, tokenizer: Any
) -> tuple[int, ...] | None:
    """Token ids of a prompt given as text or as ids; None if neither is given."""
    if record.get(as_ids) is not None:
        ids = record[as_ids]
        if not isinstance(ids, list):
            raise BehaviorError(
                f"{where}: field {as_ids!r} is {shown(ids)}, not a list of token ids"
            )
        return tuple(_id(where, as_ids, token) for token in ids)
    if record.get(as_text) is None:
        return None
    return tuple(encode(tokenizer, _text(where, record, as_text, tokenizer)))


def _single(
    where: str, record: dict[str, Any], as_text: str, as_ids: str, tokenizer: Any
) -> int | None:
    """Token id of an answer or foil given as text or as id; None if neither is given."""
    if record.get(as_ids) is not None:
        return _id(where, as_ids, record[as_ids])
    if record.get(as_text) is None:
        return None
    word = _text(where, record, as_text, tokenizer)
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(ids) == 1:
        return int(ids[0])
    hint = ""
    if len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1:
        hint = f"; {f' {word}'!r} with a leading space is one token"
    raise BehaviorError(
        f"{where}: field {as_text!r} is {word!r}, which is {len(ids)} tokens; it must be 1{hint}"
    )


def _text(where: str, record: dict[str, Any], field: str, tokenizer: Any) -> str:
    value = record[field]
    if not isinstance(value, str):
        raise BehaviorError(f"{where}: field {field!r} is {shown(value)}, not text")
    if tokenizer is None:
        raise BehaviorError(f"{where}: field {field!r} is text and needs the model's tokenizer")
    return value


def _id(where: str, field: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BehaviorError(
            f"{where}: field {field!r} holds {shown(value)}; token ids are integers >= 0"
        )
    return value


def _check_metric(
    path: str | os.PathLike[str],
    metric: str,
    lines: Iterable[tuple[int, str]],
    prompts: list[Prompt],
) -> None:
    """An unknown metric, or the first line that lacks the foil its metric needs."""
    if metric not in METRICS:
        raise BehaviorError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}")
    for (number, _), prompt in zip(lines, prompts, strict=True):
        if metric in NEEDS_FOIL and prompt.foil is None:
            raise BehaviorError(
                f"{path}, line {number}: field 'foil' or 'foil_id' is missing; "
                f"metric {metric!r} compares the answer with a foil"
            )


def _split(n: int, seed: int) -> list[str | None]:
    """Half and half by a seeded shuffle; an odd prompt goes to selection."""
    order = Draws(f"pie_fast/split/{seed}").sample(range(n), n)
    splits: list[str | None] = [SPLITS[0]] * n
    for i in order[: n // 2]:
        splits[i] = SPLITS[1]
    return splits
