"""Labels of others, whichever of the two formats a file has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pie_fast.exchange.checked import read_objects
from pie_fast.exchange.explanations import FORMAT, apply_labels, read_explanations
from pie_fast.exchange.neuronpedia import read_neuronpedia
from pie_fast.interpretation import Interpretation


def labelled_by(
    path: str | Path, interpretations: Sequence[Interpretation], *, clt: str
) -> list[Interpretation]:
    """Put the labels of a file on features: our own JSON Lines, or an export of Neuronpedia.

    Args:
        path: The file, gzipped or not.
        interpretations: Of our features.
        clt: Identity of their dictionary. Our own files name it, and labels of another one are
            refused; names on Neuronpedia are others, so there layer and index alone decide.

    Raises:
        DumpError: See the reader of the format that the file's first object names.
        PieFastError: As `apply_labels`.
    """
    first = next(iter(read_objects(path)), None)
    if first is not None and first.fields.get("format") == FORMAT:
        return apply_labels(interpretations, read_explanations(path), clt=clt)
    return apply_labels(interpretations, read_neuronpedia(path))
