"""Labels from Neuronpedia: its exports and the answers of its API.

An explanation there is an object with `modelId`, `layer` (the id of a source: `5-clt-hp` is layer
5 of the set `clt-hp`), `index` (text or number), `description`, and mostly `explanationModelName`,
`typeName` and `scores` (objects with `explanationScoreTypeName` and `value`). It comes

* in exports `{model}/{source}/explanations/batch-N.jsonl.gz`, one a line,
* in older exports `explanations-only/*.json`, as one list,
* in the API's features, in the list `explanations` of an object that names the feature.

Other fields are passed over. Field names are those of Neuronpedia's database schema
(`apps/webapp/prisma/schema.prisma` at 008d5040) and of exports of 2024 to 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pie_fast.exchange.checked import LARGEST_INT, Record, is_integer, read_objects
from pie_fast.exchange.explanations import Explanation
from pie_fast.interpretation import Measure

_SOURCE = re.compile(r"(\d{1,6})(?:-(.+))?", re.ASCII | re.DOTALL)
_NAMED = ("modelId", "layer", "index")


def read_neuronpedia(path: str | Path) -> list[Explanation]:
    """Read the explanations of a file from Neuronpedia.

    Several explanations of a feature are common there. Of those by the same explainer (model and
    kind of explanation) the last in the file counts. Explanations with no words are passed over.

    Args:
        path: JSON or JSON Lines, gzipped or not.

    Returns:
        Explanations in the order in which their features come, by explainers named
        `neuronpedia:{explanationModelName}/{typeName}`. Scores become measures
        `neuronpedia_{type}_llm`: language models of others judged them.

    Raises:
        DumpError: An explanation lacks `modelId`, `layer`, `index` or `description`, or one of
            them is not valid; the message names file, line, field and value.
    """
    found: dict[tuple[str, str, int, int, str], Explanation] = {}
    for record in read_objects(path):
        for one in _explanations(record):
            if one.label:
                found[one.key] = one
    return list(found.values())


def _explanations(record: Record) -> Iterator[Explanation]:
    """What an object holds: itself an explanation, or a feature with a list of them."""
    if "description" in record.fields or "explanations" not in record.fields:
        yield _explanation(record)
        return
    named = {name: record.fields[name] for name in _NAMED if name in record.fields}
    for one in record.records("explanations"):
        yield _explanation(Record(one.where, {**named, **one.fields}))


def _explanation(record: Record) -> Explanation:
    match = _SOURCE.fullmatch(record.text("layer"))
    if match is None:
        record.refuse("layer", "a layer and the name of a set, like '5-clt-hp'")
    names = (record.text(name, default="") for name in ("explanationModelName", "typeName"))
    by = "/".join(name for name in names if name)
    return Explanation(
        layer=int(match[1]),
        index=_index(record),
        label=record.text("description").strip(),
        explainer=f"neuronpedia:{by}" if by else "neuronpedia",
        model=record.text("modelId", empty=False),
        clt=match[2] or "",
        quality=dict(_score(score) for score in record.records("scores")),
    )


def _index(record: Record) -> int:
    value = record.fields.get("index")
    if isinstance(value, str) and re.fullmatch(r"\d{1,15}", value, re.ASCII):
        return int(value)
    if not is_integer(value) or not 0 <= value < LARGEST_INT:
        record.refuse("index", f"an integer from 0 to {LARGEST_INT - 1}, as number or text")
    return value


def _score(score: Record) -> tuple[str, Measure]:
    name = score.text("explanationScoreTypeName", empty=False)
    value = score.number("value", optional=True)
    why = "Neuronpedia gives no value" if value is None else None
    return f"neuronpedia_{name}_llm", Measure(value, why=why)
