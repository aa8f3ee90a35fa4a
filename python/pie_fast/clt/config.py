"""Configuration files of checkpoints: YAML and JSON, read as plain mappings."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

import yaml

from pie_fast.errors import CheckpointError

_VALUES = (ValueError, KeyError, IndexError, AttributeError, TypeError)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping; tags that would build objects are refused.

    Raises:
        CheckpointError: It is not valid YAML, or no mapping.
    """
    try:
        return _mapping(path, yaml.safe_load(path.read_text(encoding="utf-8")))
    except CheckpointError:
        raise
    # Values that look like dates or numbers and are none: each of its constructors raises its own.
    except (yaml.YAMLError, OSError, RecursionError, *_VALUES) as error:
        raise CheckpointError(f"{path}: not valid YAML: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file as a mapping.

    Raises:
        CheckpointError: It is not valid JSON, or no object.
    """
    try:
        return _mapping(path, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error


def whole_number(path: Path, config: dict[str, Any], key: str) -> int:
    """A number of at least 1 of a configuration.

    Raises:
        CheckpointError: It is missing or something else.
    """
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(
            f"{path}: {key} is {shown(value)}, must be a whole number of at least 1"
        )
    return value


def yes_or_no(path: Path, config: dict[str, Any], key: str) -> bool:
    """A flag of a configuration.

    Raises:
        CheckpointError: It is missing or something else.
    """
    value = config.get(key)
    if not isinstance(value, bool):
        raise CheckpointError(f"{path}: {key} is {value!r}, must be true or false")
    return value


def within(path: Path, config: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A mapping inside a configuration.

    Raises:
        CheckpointError: There is none.
    """
    found: Any = config
    for depth, key in enumerate(keys, 1):
        found = found.get(key)
        if not isinstance(found, dict):
            raise CheckpointError(
                f"{path}: {'.'.join(keys[:depth])} is {found!r}, must be a mapping"
            )
    return dict(found)


def check_kind(path: Path, config: dict[str, Any], kind: str) -> None:
    """Refuse a circuit-tracer configuration of another kind of transcoder.

    Raises:
        CheckpointError: With the kind found and the one that the files are of.
    """
    found = config.get("model_kind")
    if found != kind:
        raise CheckpointError(
            f"{path}: model_kind is {shown(found)}, must be {kind!r} for the files beside it"
        )


def hooks_of(path: Path, config: dict[str, Any]) -> tuple[str, str]:
    """The read and the write hook of a circuit-tracer configuration.

    Raises:
        CheckpointError: One of the two is missing or no name.
    """
    hooks = []
    for key in ("feature_input_hook", "feature_output_hook"):
        value = config.get(key)
        if not isinstance(value, str):
            raise CheckpointError(f"{path}: {key} is {shown(value)}, must name a hook point")
        hooks.append(value)
    return hooks[0], hooks[1]


def shown(value: object) -> str:
    """A value of a configuration, short: aliases make enormous values of small files."""
    short = reprlib.Repr()
    short.maxlevel = 2
    return short.repr(value)


def _mapping(path: Path, config: Any) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: must hold a mapping, holds {type(config).__name__}")
    return config
