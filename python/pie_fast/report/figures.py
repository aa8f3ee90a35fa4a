"""PNG figures of a report, by matplotlib (extra `report`).

matplotlib rather than kaleido: kaleido draws plotly's figures with a Chrome that must be on the
machine (or is downloaded, some 150 MB), which a paper's figures do not need; matplotlib is 9 MB of
wheel, needs no other program, and draws by itself. It is an extra since the page needs neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast.errors import PieFastError
from pie_fast.report.graph import DRAWN, strongest_edges
from pie_fast.report.heat import Heat, limit
from pie_fast.report.kept import Kept
from pie_fast.report.layout import lay_out
from pie_fast.report.run import Run
from pie_fast.storage import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: of nodes and heat maps: raises, nothing, lowers
_UP, _ZERO, _DOWN = "#c2570c", "#f3f3f1", "#2166ac"

#: of a node that does both, by the prompt
_BOTH = "#8a9199"

#: of an axis with so many features their names can be read
_NAMED = 60

_DPI = 200

#: layout pixels an inch
_PIXELS = 90


def write_figures(
    folder: Path, run: Run, kept: Sequence[Kept], heat: Heat | None
) -> dict[str, Path]:
    """Write the figures that the run has, and say which: `curves`, `circuit`, `synergy`.

    Raises:
        PieFastError: matplotlib is not there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PieFastError(
            "a Markdown report draws its figures with matplotlib, which is not installed: "
            "pip install 'pie-fast[report]', or write HTML"
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Figure] = {}
    if run.result.get("curves"):
        figures["curves"] = Figure(figsize=(7, 3.6), layout="constrained")
        _draw_curves(figures["curves"].subplots(), run.result)
    if kept:
        figures["circuit"] = _circuit(Figure, run, kept)
    if heat is not None:
        figures["synergy"] = _squares(Figure, heat)
    paths = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        with replacing(paths[name]) as file:
            figure.savefig(file, format="png", dpi=_DPI)
    return paths


def _draw_curves(axes: Axes, result: Mapping[str, Any]) -> None:
    for name, points in result["curves"].items():
        own = name == result.get("selector")
        x, y = zip(*((point["budget"], point["fidelity"]) for point in points), strict=True)
        axes.plot(x, y, marker="o", markersize=3, linewidth=2.4 if own else 1.1, label=name)
    value = result["evaluation"]["behavioral_fidelity"]
    interval = result["evaluation"].get("intervals", {}).get("behavioral_fidelity")
    spread = None if interval is None else [[value - interval[0]], [interval[1] - value]]
    k = len(result["features"])
    axes.errorbar([k], [value], spread, fmt="D", color="black", capsize=3, label="this circuit")
    axes.set(xscale="log", xlabel=f"{result.get('unit', 'feature')}s kept (K)", ylabel="fidelity")
    ticks = sorted({point["budget"] for points in result["curves"].values() for point in points})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)


def _circuit(figure_class: type[Figure], run: Run, kept: Sequence[Kept]) -> Figure:
    layout = lay_out(kept)
    size = (1 + layout.width / _PIXELS, 0.8 + layout.height / _PIXELS)
    figure = figure_class(figsize=size, layout="constrained")
    axes = figure.subplots()
    for start, end, effect in strongest_edges(kept, run.edges)[:DRAWN]:
        (x0, y0), (x1, y1) = layout.centers[start], layout.centers[end]
        axes.plot([x0, x1], [y0, y1], "-" if effect > 0 else "--", color="0.7", lw=0.6, zorder=1)
    x, y = zip(*layout.centers, strict=True)
    # An area in points squared, of a radius in layout pixels.
    areas = np.pi * (np.array(layout.radii) * 72 / _PIXELS) ** 2
    colours = np.array([_BOTH, _UP, _DOWN])[[one.sign for one in kept]]
    axes.scatter(x, y, s=areas.tolist(), c=colours.tolist(), lw=0, zorder=2, clip_on=False)
    for colour, said in ((_UP, "raises"), (_DOWN, "lowers"), (_BOTH, "does both")):
        axes.scatter([], [], c=colour, linewidths=0, label=said)
    if run.edges is not None:
        axes.plot([], [], "-", color="0.7", label="feeds: raises")
        axes.plot([], [], "--", color="0.7", label="feeds: lowers")
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    columns, rows = layout.columns, layout.rows
    axes.set_xticks([b.start + b.extent / 2 for b in columns], [b.name for b in columns])
    axes.set_yticks([b.start + b.extent / 2 for b in rows], [b.name for b in rows])
    axes.set(xlabel="place", ylabel="layer", aspect="equal")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _squares(figure_class: type[Figure], heat: Heat) -> Figure:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("synergy", [_DOWN, _ZERO, _UP])
    squares = {"synergy": heat.synergy}
    if heat.redundancy is not None:
        squares["redundancy"] = heat.redundancy
    figure = figure_class(figsize=(4.6 * len(squares), 4.2), layout="constrained")
    all_axes = figure.subplots(1, len(squares), squeeze=False)[0]
    for axes, (name, square) in zip(all_axes, squares.items(), strict=True):
        end = limit(square)
        image = axes.imshow(square, cmap=colours, vmin=-end, vmax=end, interpolation="nearest")
        axes.set_title(name)
        _name_features(axes, heat)
        bar = figure.colorbar(image, ax=axes, shrink=0.8)
        if name == "synergy":
            _name_ends(bar.ax, heat.meanings)
    return figure


def _name_features(axes: Axes, heat: Heat) -> None:
    """The features along both axes; of too many to read, what the axes are."""
    n = len(heat.features)
    if n > _NAMED:
        axes.set(xticks=[], yticks=[], xlabel="feature", ylabel="feature")
        return
    names = [str(feature) for feature in heat.features]
    size = min(7.0, 200 / n)
    axes.set_xticks(range(n), names, rotation=90, fontsize=size)
    axes.set_yticks(range(n), names, fontsize=size)
    axes.tick_params(length=0)
    axes.set(xlabel="feature", ylabel="feature")


def _name_ends(bar: Axes, meanings: tuple[str, str]) -> None:
    """Beside a colour bar's numbers, what is above 0 and what below."""
    for text, height in ((f"{meanings[0]} →", 0.75), (f"← {meanings[1]}", 0.25)):
        bar.annotate(
            text,
            (1, height),
            (50, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            rotation=90,
            va="center",
            fontsize=7,
        )
