"""What a language model says, and stored answers: refused with a reason, or of the schema."""

from __future__ import annotations

from _fuzzing import folder, fuzz, instrumented

with instrumented():
    from pie_fast.llm.answers import (
        Explanation,
        InvalidAnswerError,
        Narration,
        Ratings,
        Texts,
        parse,
    )
    from pie_fast.llm.cache import AnswerCache

SCHEMAS = (Explanation, Texts, Ratings, Narration)
NOTES: list[str] = []
CACHE = AnswerCache(folder(), NOTES.append)
REQUEST = {"model": "m"}


def one(data: bytes) -> None:
    schema = SCHEMAS[data[0] % len(SCHEMAS)] if data else Texts
    text = data[1:].decode(errors="surrogateescape")  # JSON can spell half a character
    try:
        found = parse(text, schema)
    except InvalidAnswerError as error:
        assert str(error)
    else:
        assert isinstance(found, schema)
        found.model_dump_json()
    CACHE.path(REQUEST).write_bytes(data[1:])
    NOTES.clear()
    if CACHE.read(REQUEST, schema) is None:
        assert NOTES


fuzz(one)
