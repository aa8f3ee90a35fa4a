"""Labels of others, whichever of the two formats a file has."""

from __future__ import annotations

from pathlib import Path

from pie_fast.exchange.checked import read_objects
from pie_fast.exchange.explanations import FORMAT, Explanation, read_explanations
from pie_fast.exchange.neuronpedia import read_neuronpedia


def read_labels(path: str | Path) -> list[Explanation]:
    """Labels of features, from our own JSON Lines or from an export of Neuronpedia.

    Args:
        path: The file, gzipped or not.

    Raises:
        DumpError: See the reader of the format that the file's first object names.
    """
    first = next(iter(read_objects(path)), None)
    ours = first is not None and first.fields.get("format") == FORMAT
    return read_explanations(path) if ours else read_neuronpedia(path)
