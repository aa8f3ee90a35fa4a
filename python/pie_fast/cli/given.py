"""Lists that options take: features, numbers."""

from __future__ import annotations

import re
from pathlib import Path

from pie_fast.errors import PieFastError
from pie_fast.types import FeatureId


def feature_ids(option: str, given: str | None, n_layers: int, n_features: int) -> list[int]:
    """Global ids from a list or a file of one: ``L5:42`` or global ids, by commas or spaces.

    Raises:
        PieFastError: A word that is neither, or no feature of the dump; names option and word.
    """
    if given is None:
        return []
    try:
        text = Path(given).read_text(errors="replace")
    except (OSError, ValueError):  # no file, or no name of one
        text = given
    ids = []
    for word in re.split(r"[,\s]+", text.strip()):
        if re.fullmatch(r"\d{1,19}", word, re.ASCII):
            id_, inside = int(word), int(word) < n_layers * n_features
        elif re.fullmatch(r"L\d{1,19}:\d{1,19}", word, re.ASCII):
            feature = FeatureId.parse(word)
            id_ = feature.to_global(n_features)
            inside = feature.layer < n_layers and feature.index < n_features
        else:
            raise PieFastError(
                f"{option}: {word[:40]!r} is neither a feature (L5:42), an id nor a file of them"
            )
        if not inside:
            raise PieFastError(
                f"{option}: {word[:40]} is outside the {n_layers} layers of {n_features} features"
            )
        ids.append(id_)
    return ids


def numbers(option: str, given: str | None) -> list[float] | None:
    """Numbers by commas.

    Raises:
        PieFastError: Something else; names option and word.
    """
    if given is None:
        return None
    found = []
    for word in given.split(","):
        try:
            found.append(float(word))
        except ValueError:
            raise PieFastError(f"{option}: {word[:40]!r} is not a number") from None
    return found
