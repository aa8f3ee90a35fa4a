"""The circuit's graph as plain data for the page: nodes in place, and the edges worth drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pie_fast.report.cards import short
from pie_fast.report.kept import Kept
from pie_fast.report.layout import lay_out
from pie_fast.report.run import Edges

#: edges drawn at all times, the strongest
DRAWN = 120

#: edges of each feature, in and out, that appear when it is pointed at
_EACH = 8


def graph_data(kept: Sequence[Kept], edges: Edges | None) -> dict[str, Any]:
    """Layout, nodes and edges; an edge joins the first (largest) nodes of two features."""
    layout = lay_out(kept)
    nodes = [
        {"key": str(one.feature), "place": one.place, "x": x, "y": y, "r": round(radius, 2)}
        | {"sign": one.sign, "effect": short(one.effect)}
        for one, (x, y), radius in zip(kept, layout.centers, layout.radii, strict=True)
    ]
    return {
        "width": layout.width,
        "height": layout.height,
        "columns": [asdict(band) for band in layout.columns],
        "rows": [asdict(band) for band in layout.rows],
        "nodes": nodes,
        "edges": strongest_edges(kept, edges),
        "drawn": DRAWN,
    }


def strongest_edges(kept: Sequence[Kept], edges: Edges | None) -> list[list[Any]]:
    """``[from, to, effect]``, strongest first: of each feature its strongest, in and out.

    ``from`` and ``to`` are places in ``kept``: of a feature in several nodes, its largest.
    """
    if edges is None:
        return []
    largest: dict[str, int] = {}
    for i, one in enumerate(kept):
        key = str(one.feature)
        if key not in largest or one.size > kept[largest[key]].size:
            largest[key] = i
    rows = [i for i, feature in enumerate(edges.features) if feature in largest]
    effects = edges.effects[np.ix_(rows, rows)]
    magnitude = np.abs(effects)
    chosen = np.zeros(effects.shape, dtype=bool)
    for axis in (0, 1):
        best = np.argsort(-magnitude, axis=axis, kind="stable")
        np.put_along_axis(chosen, best.take(range(min(_EACH, len(rows))), axis=axis), True, axis)
    fed, by = np.nonzero(chosen & (magnitude > 0))
    order = np.argsort(-magnitude[fed, by], kind="stable")
    node = [largest[edges.features[row]] for row in rows]
    return [
        [node[j], node[i], short(effects[i, j])] for i, j in zip(fed[order], by[order], strict=True)
    ]
