"""The features of a run as a table: csv, jsonl or parquet, one row a feature or node.

Columns are plain: numbers, text, true or false. A measure of quality is a column of its own name,
`ablation` and `ablation_abs` are the exact effects of taking the feature alone away.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pie_fast.errors import PieFastError
from pie_fast.exchange.checked import Record
from pie_fast.storage import replacing

Row = dict[str, Any]

#: of an interpretation, what is one value
_OF_INTERPRETATION = (
    "fap_score",
    "label",
    "explainer",
    "label_quality",
    "density",
    "n_active_prompts",
)

_OF_ABLATION = {"ablation": "mean_effect", "ablation_abs": "mean_abs_effect"}


def feature_rows(result: Mapping[str, Any], *, where: str = "the result") -> list[Row]:
    """A run's features as rows, in the order in which they were selected.

    Args:
        result: What a run's `result.json` holds.
        where: What errors call it.

    Returns:
        Rows with the same keys, None where something is not known: `feature`, `layer`, `index`,
        `slot` (of nodes), `rank`, `score` and what else is listed of the features; then of their
        interpretations `fap_score`, `label`, ..., the tokens `promoted` and `suppressed`, and one
        column a measure; then their ablations.

    Raises:
        PieFastError: The result lists no features, a field is of another type, or there are
            ablations of another number of features.
    """
    whole = Record(where, result)
    if result.get("features") is None:
        whole.refuse("features", "a list, as a whole run has it")
    features = [(_place(listed), listed.fields) for listed in whole.records("features")]
    told = {_place(one): _interpreted(one) for one in whole.records("interpretations")}
    unknown = _interpreted(Record(where, {}))
    ablated = _ablations(whole, len(features))
    rows = []
    for number, ((layer, index), listed) in enumerate(features):
        row = {"feature": f"L{layer}:{index}", **listed, **told.get((layer, index), unknown)}
        row |= {name: values[number] for name, values in ablated.items()}
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


def write_table(path: str | Path, rows: Sequence[Row], form: str | None = None) -> Path:
    """Write rows; the file appears whole or not at all.

    Args:
        path: The file; replaced if it exists.
        rows: With the same keys.
        form: `csv`, `jsonl` or `parquet`; by default what the file's name ends in.

    Returns:
        The file.

    Raises:
        PieFastError: Another form, rows with different keys, a value that is not plain, or
            parquet where pyarrow is not installed.
    """
    path = Path(path)
    form = path.suffix.removeprefix(".") if form is None else form
    if form not in _WRITERS:
        raise PieFastError(
            f"table {path} is of form {form!r}, must be one of {', '.join(_WRITERS)}"
        )
    for number, row in enumerate(rows):
        if list(row) != list(rows[0]):
            raise PieFastError(f"row {number} has columns {list(row)}, must be {list(rows[0])}")
        for name, value in row.items():
            if not _is_plain(value):
                raise PieFastError(
                    f"row {number}: {name} is {value!r}, must be text, a finite number, true, "
                    "false or none"
                )
    data = _WRITERS[form](rows)
    with replacing(path) as file:
        file.write(data)
    return path


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)


def _place(one: Record) -> tuple[int, int]:
    return one.integer("layer"), one.integer("index")


def _interpreted(one: Record) -> Row:
    row = {name: one.fields.get(name) for name in _OF_INTERPRETATION}
    for name in ("promoted", "suppressed"):
        tokens = (effect.text("token") for effect in one.records(name))
        row[name] = " ".join(json.dumps(token, ensure_ascii=False) for token in tokens)
    quality = one.mapping("quality")
    measures = {name: quality.mapping(name) for name in quality.fields}
    return row | {name: found.number("value", optional=True) for name, found in measures.items()}


def _ablations(result: Record, n: int) -> dict[str, Sequence[float]]:
    if result.fields.get("ablation") is None:
        return {}
    ablation = result.mapping("ablation")
    found: dict[str, Sequence[float]] = {}
    for name, key in _OF_ABLATION.items():
        values = ablation.fields.get(key)
        if not isinstance(values, list) or len(values) != n:
            ablation.refuse(key, f"a list of {n} numbers, one a feature")
        found[name] = values
    return found


def _csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _jsonl(rows: Sequence[Row]) -> bytes:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def _parquet(rows: Sequence[Row]) -> bytes:
    try:
        pyarrow, parquet = map(import_module, ("pyarrow", "pyarrow.parquet"))
    except ImportError as error:
        raise PieFastError("parquet needs pyarrow: pip install pyarrow, or write csv") from error
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


_WRITERS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "parquet": _parquet,
}
