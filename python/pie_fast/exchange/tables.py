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


def feature_rows(result: Mapping[str, Any]) -> list[Row]:
    """A run's features as rows, in the order in which they were selected.

    Args:
        result: What a run's `result.json` holds.

    Returns:
        Rows with the same keys, None where something is not known: `feature`, `layer`, `index`,
        `slot` (of nodes), `rank`, `score` and what else is listed of the features; then of their
        interpretations `fap_score`, `label`, ..., the tokens `promoted` and `suppressed`, and one
        column a measure; then their ablations.

    Raises:
        PieFastError: The result lists no features, or ablations of another number of them.
    """
    features = result.get("features")
    if not isinstance(features, Sequence):
        raise PieFastError("the result has no list of features; it must be of a whole run")
    told = {
        (one.get("layer"), one.get("index")): one for one in result.get("interpretations") or ()
    }
    ablated = _ablations(result, len(features))
    rows = []
    for place, listed in enumerate(features):
        row = {"feature": f"L{listed['layer']}:{listed['index']}", **listed}
        row |= _interpreted(told.get((listed["layer"], listed["index"]), {}))
        row |= {name: values[place] for name, values in ablated.items()}
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


def _interpreted(one: Mapping[str, Any]) -> Row:
    row = {name: one.get(name) for name in _OF_INTERPRETATION}
    for name in ("promoted", "suppressed"):
        row[name] = " ".join(json.dumps(t["token"], ensure_ascii=False) for t in one.get(name, ()))
    return row | {name: measure["value"] for name, measure in one.get("quality", {}).items()}


def _ablations(result: Mapping[str, Any], n: int) -> dict[str, Sequence[float]]:
    ablation = result.get("ablation")
    if ablation is None:
        return {}
    found = {name: ablation[key] for name, key in _OF_ABLATION.items()}
    for name, values in found.items():
        if len(values) != n:
            raise PieFastError(f"the result has {len(values)} values of {name}, must have {n}")
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
