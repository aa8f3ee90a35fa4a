"""The HTML page: one file that opens from disk, with its styles, scripts and data inside.

Text reaches the page in two ways, and both escape it: jinja's autoescape, and JSON whose `<`, `>`
and `&` are written as `\\u003c` and so on, which the scripts put into the page as text only. The
page's own policy (Content-Security-Policy) forbids every request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape

from pie_fast.report.cards import Words, feature_cards
from pie_fast.report.command import discover_command
from pie_fast.report.common import common_facts
from pie_fast.report.facts import (
    figure_rows,
)
from pie_fast.report.graph import graph_data
from pie_fast.report.heat import Heat, packed, partners, synergy_heat
from pie_fast.report.kept import kept_units
from pie_fast.report.run import Run

#: the page's scripts, in the order in which they use each other
_SCRIPTS = ("page.js", "cards.js", "filter.js", "circuit.js", "plots.js")

#: partners in synergy that a card names
_N_PARTNERS = 6

_FEATURE = re.compile(r"\bL\d+:\d+\b")


def html_page(run: Run) -> str:
    """The page of a run."""
    kept = kept_units(run)
    heat = synergy_heat(run, [one.feature for one in kept])
    words = Words()
    cards = feature_cards(run, kept, partners(heat, _N_PARTNERS) if heat else {}, words)
    data = {
        "cards": cards,
        "words": words.list(),
        "text": "text" if run.told.get("corpus") else "prompt",
        "graph": graph_data(kept, run.edges),
        "curves": _curves(run.result),
        "heat": _heat(heat),
    }
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            **common_facts(run),
            figures=figure_rows(run.result["evaluation"]),
            heat=heat,
            layers=sorted({card["layer"] for card in cards}),
            stable=any(card["stability"] is not None for card in cards),
            with_edges=run.edges is not None,
            by_ablation=bool(run.result.get("ablation")),
            command=discover_command(run.result),
            data=data,
            styles=_inline("page.css"),
            scripts=Markup("\n").join(map(_inline, _SCRIPTS)),
            plotly=_plotly(),
        )
    )


def linked(text: str) -> Markup:
    """Text, escaped, its features links to their cards."""
    found, at = Markup(), 0
    for match in _FEATURE.finditer(text):
        found += escape(text[at : match.start()])
        found += Markup('<a href="#{0}">{0}</a>').format(match[0])
        at = match.end()
    return found + escape(text[at:])


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pie_fast.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["linked"] = linked
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    return environment


def _inline(name: str) -> Markup:
    """A file of ours, as it is."""
    return Markup((files("pie_fast.report") / "templates" / name).read_text("utf-8"))


def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    return Markup(get_plotlyjs())


def _curves(result: Mapping[str, Any]) -> dict[str, Any]:
    evaluation = result["evaluation"]
    intervals = evaluation.get("intervals", {})
    here = {"fidelity": "behavioral_fidelity", "mean_kl": "mean_kl", "faithfulness": "faithfulness"}
    return {
        "selectors": result.get("curves") or {},
        "selector": result.get("selector", ""),
        "unit": result.get("unit", "feature"),
        "k": len(result["features"]),
        "here": {
            name: {"value": evaluation.get(key), "interval": intervals.get(key)}
            for name, key in here.items()
        },
    }


def _heat(heat: Heat | None) -> dict[str, Any] | None:
    if heat is None:
        return None
    squares = [("synergy", heat.synergy), ("redundancy", heat.redundancy)]
    return {
        "features": [str(feature) for feature in heat.features],
        "starts": list(heat.starts),
        "squares": [{"name": name, **packed(of)} for name, of in squares if of is not None],
    }
