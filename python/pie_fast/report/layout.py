"""Where the nodes of a circuit's graph are drawn.

Layers are rows, the first at the bottom; places (positions or slots) are columns. A cell is a grid
of nodes, largest first; the columns are as wide as their fullest cell asks for, the rows as high.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pie_fast.report.kept import Kept

#: gap between cells, in the size of a node's square
_GAP = 0.6

#: from so many nodes on they are drawn smaller
_MANY = 150


@dataclass(frozen=True)
class Band:
    """A row or a column of the graph: its name, where it begins, and its extent, in pixels."""

    name: str
    start: float
    extent: float


@dataclass(frozen=True)
class Layout:
    """A graph's drawing, in pixels from the top left.

    Attributes:
        width, height: Of all of it, without labels.
        columns: The places, left to right.
        rows: The layers, top to bottom, that is, last layer first.
        centers: ``(x, y)`` of each node.
        radii: Of each node: a smallest one, and beyond it with the root of the effect's size.
    """

    width: float
    height: float
    columns: tuple[Band, ...]
    rows: tuple[Band, ...]
    centers: tuple[tuple[float, float], ...]
    radii: tuple[float, ...]


def lay_out(kept: Sequence[Kept]) -> Layout:
    """Place every node; none overlaps another."""
    square = 24.0 if len(kept) <= _MANY else 13.0
    cells: dict[tuple[int, str], list[int]] = defaultdict(list)
    for i, one in enumerate(kept):
        cells[one.feature.layer, one.place].append(i)
    places = _places_in_order(kept)
    layers = sorted({one.feature.layer for one in kept}, reverse=True)
    across = {
        place: max(math.ceil(math.sqrt(len(cells.get((layer, place), ())))) for layer in layers)
        for place in places
    }
    down = {
        layer: max(
            math.ceil(len(cells.get((layer, place), ())) / across[place]) for place in places
        )
        for layer in layers
    }
    columns = _bands([(place, across[place]) for place in places], square)
    rows = _bands([(f"L{layer}", down[layer]) for layer in layers], square)
    starts = dict(zip(places, columns, strict=True)), dict(zip(layers, rows, strict=True))
    centers = [(0.0, 0.0)] * len(kept)
    for (layer, place), members in cells.items():
        column, row = starts[0][place], starts[1][layer]
        members.sort(key=lambda i: (-kept[i].size, i))
        for n, i in enumerate(members):
            up, right = divmod(n, across[place])
            centers[i] = (
                column.start + (right + 0.5) * square,
                row.start + row.extent - (up + 0.5) * square,
            )
    return Layout(
        _end(columns),
        _end(rows),
        tuple(columns),
        tuple(rows),
        tuple(centers),
        _radii([one.size for one in kept], square),
    )


def _bands(sizes: Sequence[tuple[str, int]], square: float) -> list[Band]:
    bands, at = [], 0.0
    for name, n in sizes:
        bands.append(Band(name, at, n * square))
        at += (n + _GAP) * square
    return bands


def _end(bands: Sequence[Band]) -> float:
    return bands[-1].start + bands[-1].extent if bands else 0.0


def _radii(sizes: Sequence[float], square: float) -> tuple[float, ...]:
    largest = max(sizes, default=0.0)
    share = [math.sqrt(size / largest) if largest > 0 else 0.0 for size in sizes]
    return tuple(square * (0.18 + 0.29 * part) for part in share)


def _places_in_order(kept: Sequence[Kept]) -> list[str]:
    """Numbers by value; slots by the mean position of their features; the unknown last."""
    positions: dict[str, list[float]] = defaultdict(list)
    for one in kept:
        digits = one.place.removeprefix("-")
        if digits.isdecimal():
            positions[one.place].append(int(one.place))
        else:
            positions[one.place].append(math.inf if one.position is None else one.position)
    return sorted(positions, key=lambda place: (fmean(positions[place]), place))
