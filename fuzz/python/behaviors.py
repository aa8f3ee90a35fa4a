"""Behaviours in JSON Lines: a `BehaviorError`, or what is written and read again."""

from __future__ import annotations

from _fuzzing import folder, fuzz, instrumented

with instrumented():
    from pie_fast.behaviors import read_jsonl, write_jsonl
    from pie_fast.errors import BehaviorError


class Words:
    """A tokenizer: a token for each word, by its length."""

    bos_token_id = None
    all_special_ids = ()

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [len(word) for word in text.split(" ")]}


FILE = folder() / "b.jsonl"


def one(data: bytes) -> None:
    FILE.write_bytes(data[1:])
    try:
        found = read_jsonl(FILE, tokenizer=Words() if data[:1] == b"t" else None)
    except BehaviorError as error:
        assert str(FILE) in str(error), error
        return
    write_jsonl(FILE, found)
    again = read_jsonl(FILE, metric=found.metric)
    assert again.selection == tuple(map(without_text, found.selection)), found
    assert again.held_out == tuple(map(without_text, found.held_out)), found


def without_text(prompt: object) -> object:
    from dataclasses import replace

    return replace(prompt, text=None)


fuzz(one)
