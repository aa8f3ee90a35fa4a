"""A run's folder, read for a report; what is absent is None.

RUN/result.json                        what `pie_fast.discover` wrote; all that is needed
RUN/interpretation.json                longer interpretations, a narrative, effects among features
RUN/dump/                              where each feature acts
RUN/dump/synergy.safetensors           how pairs of features work together
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast.dump import FeatureDump, open_dump
from pie_fast.errors import PieFastError
from pie_fast.journal import spent_by
from pie_fast.outputs import RESULT
from pie_fast.seals import unsealed
from pie_fast.synergy_matrix import SynergyMatrix
from pie_fast.untrusted import load_json, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

INTERPRETATION = "interpretation.json"

#: fields of `result.json` that a report can do without, objects where they are there
_OBJECTS = (
    "ablation",
    "budget_choice",
    "cost",
    "curves",
    "missed_mass",
    "model_calls",
    "reconstruction",
    "timings",
    "versions",
)


@dataclass(frozen=True)
class Edges:
    """Direct effects among kept features.

    Attributes:
        features: ``[n]`` features as text, ``L0:1``.
        effects: ``[n, n]`` float64, how the column's feature raises the row's.
        to_metric: ``[n]`` float64, the direct effect of each on the metric.
    """

    features: tuple[str, ...]
    effects: NDArray[np.float64]
    to_metric: NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """A run's folder.

    Attributes:
        folder: Where it is.
        result: `result.json`, of its settings without where local folders are.
        interpretations: By feature as text; those of `interpretation.json` before those of
            `result.json`.
        told: `interpretation.json`; empty where there is none.
        edges: Effects among features.
        dump: The dump of the selection prompts.
        synergy: Of the dump.
    """

    folder: Path
    result: Mapping[str, Any]
    interpretations: Mapping[str, Mapping[str, Any]]
    told: Mapping[str, Any]
    edges: Edges | None = None
    dump: FeatureDump | None = None
    synergy: SynergyMatrix | None = None


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        PieFastError: There is no `result.json`; a file is not what it should be; it is named.
        DumpError: The same of the dump's files.
        OSError: `result.json` cannot be read.
    """
    try:
        result = spent_by(folder, "discover") | _read_json(folder / RESULT)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PieFastError(f"{folder} is not a run: it has no {RESULT}") from error
    for name, kind in (("features", list), ("settings", dict), ("evaluation", dict)):
        if not isinstance(result.get(name), kind):
            raise PieFastError(
                f"{folder / RESULT}: {name} is not a {kind.__name__}; a report needs the result "
                "of a whole run (pie-fast discover)"
            )
    for name in _OBJECTS:
        if not isinstance(result.get(name) or {}, dict):
            raise PieFastError(
                f"{folder / RESULT}: {name} is a {type(result[name]).__name__}, must be an object "
                "as `discover` writes it"
            )
    more = folder / INTERPRETATION
    told = _told(more) if more.exists() else {}
    interpretations = {
        **_interpretations(folder / RESULT, result),
        **_interpretations(more, told),
    }
    has_dump = (folder / "dump" / "manifest.json").exists()
    synergy = folder / "dump" / "synergy.safetensors"
    return Run(
        folder,
        result | {"settings": _to_share(result["settings"])},
        interpretations,
        told,
        _edges(more, told["edges"]) if told.get("edges") else None,
        open_dump(folder / "dump") if has_dump else None,
        SynergyMatrix.load(synergy) if has_dump and synergy.exists() else None,
    )


def _told(path: Path) -> dict[str, Any]:
    """What `interpret` wrote, with what it took.

    Raises:
        PieFastError: It is not what `interpret` writes.
    """
    told = _read_json(path)
    found = told.get("interpretations")
    if not isinstance(found, list):
        raise PieFastError(
            f"{path}: interpretations is {shown(found)}, must be a list; "
            "pie-fast interpret --force writes it anew"
        )
    spent = spent_by(path.parent, "interpret")
    if told.get("llm") is not None:
        told["llm"] = {**spent.get("llm", {}), **told["llm"]}
    return spent | told


def _to_share(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for a page that is mailed: of a folder its name, not where it is on this machine."""
    places = settings.get("places") or {}
    shown = {name: value for name, value in settings.items() if name != "places"}
    for name in ("model", "clt", "behavior"):
        value = str(shown.get(name, ""))
        if name in places or value.startswith(("/", ".", "~")):
            shown[name] = Path(value).name or value
    return shown


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        value = load_json(data)
    except ValueError as error:
        raise PieFastError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise PieFastError(f"{path}: holds a {type(value).__name__}, must be a JSON object")
    return unsealed(path, data, value)


def _interpretations(path: Path, content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """By feature as text."""
    found = content.get("interpretations") or []
    if not isinstance(found, list):
        raise PieFastError(f"{path}: interpretations is {shown(found)}, must be a list")
    for number, one in enumerate(found):
        if not isinstance(one, dict) or not isinstance(one.get("feature"), str):
            raise PieFastError(f"{path}: interpretations[{number}]: no field 'feature' with text")
    return {one["feature"]: one for one in found}


def _edges(path: Path, given: Mapping[str, Any]) -> Edges:
    try:
        features = tuple(map(str, given["features"]))
        n = len(features)
        effects = np.asarray(given["effects"], dtype=np.float64)
        to_metric = np.asarray(given.get("to_metric") or np.zeros(n), dtype=np.float64)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise PieFastError(f"{path}: edges: not as `interpret` writes them: {error!r}") from error
    if effects.shape != (n, n) or to_metric.shape != (n,):
        raise PieFastError(
            f"{path}: edges: effects is {list(effects.shape)} and to_metric "
            f"{list(to_metric.shape)}, must be [{n}, {n}] and [{n}]"
        )
    return Edges(features, effects, to_metric)
