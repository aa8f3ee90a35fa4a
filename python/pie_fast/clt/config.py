"""Configuration files of checkpoints: YAML and JSON, read as plain mappings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pie_fast.errors import CheckpointError
from pie_fast.untrusted import load_json, shown

_VALUES = (ValueError, KeyError, IndexError, AttributeError, TypeError)


#: bytes of a configuration, and how deep its brackets go: the YAML reader takes a second for a
#: megabyte, and for each bracket looks at all that are open
_MOST_BYTES, _DEEPEST = 1 << 20, 64


class _Loader(yaml.SafeLoader):
    """Plain values, and no merging of mappings (`<<`): merged again and again, a few lines take
    hours before anything can look at them."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level >= _DEEPEST:
            raise yaml.scanner.ScannerError(
                problem=f"nested deeper than {_DEEPEST} brackets", problem_mark=self.get_mark()
            )
        super().fetch_flow_collection_start(TokenClass)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    problem="merging of mappings (<<) is not read", problem_mark=key.start_mark
                )
        super().flatten_mapping(node)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping; tags that would build objects are refused.

    Raises:
        CheckpointError: It is not valid YAML, or no mapping.
    """
    try:
        # A safe loader: plain values, nothing is constructed by name.
        return _mapping(path, yaml.load(_content(path).decode(), _Loader))
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
        return _mapping(path, load_json(_content(path), finite=False))
    except (ValueError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error


def whole_number(path: Path, config: dict[str, Any], key: str) -> int:
    """A number of at least 1 of a configuration, and below 2^53 as sizes are.

    Raises:
        CheckpointError: It is missing or something else.
    """
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 53:
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
        raise CheckpointError(f"{path}: {key} is {shown(value)}, must be true or false")
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
                f"{path}: {'.'.join(keys[:depth])} is {shown(found)}, must be a mapping"
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


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise CheckpointError(f"{path}: takes {size} bytes, must be at most {_MOST_BYTES}")
    return path.read_bytes()


def _mapping(path: Path, config: Any) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: must hold a mapping, holds {type(config).__name__}")
    return config
