"""The same report as Markdown, with PNG figures in a folder beside it.

Whatever a template prints is escaped for Markdown; tokens stand in code spans.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from pie_fast.report.cards import Words, feature_cards
from pie_fast.report.command import discover_command
from pie_fast.report.common import common_facts
from pie_fast.report.facts import (
    figure_rows,
)
from pie_fast.report.heat import partners, synergy_heat
from pie_fast.report.kept import kept_units
from pie_fast.report.run import Run

#: contexts of a feature
_N_CONTEXTS = 3

_N_PARTNERS = 6

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")

#: what would begin a list or a rule, or underline a heading
_LEADING = re.compile(r"^([-+=](?=[-+=\s]|$)|\d+(?=[.)]\s))")


def markdown_report(run: Run, out: Path) -> str:
    """The Markdown of a run; its figures are written into `OUT_figures/`.

    Raises:
        PieFastError: matplotlib is not there.
    """
    from pie_fast.report.figures import write_figures

    kept = kept_units(run)
    heat = synergy_heat(run, [one.feature for one in kept])
    words = Words()
    cards = feature_cards(run, kept, partners(heat, _N_PARTNERS) if heat else {}, words)
    folder = out.with_name(f"{out.stem}_figures")
    figures = write_figures(folder, run, kept, heat)
    tokens = words.list()
    return (
        _environment()
        .get_template("report.md.j2")
        .render(
            **common_facts(run),
            rows=figure_rows(run.result["evaluation"]),
            figures={name: _address(folder, path) for name, path in figures.items()},
            heat=heat,
            cards=[_card(card, tokens) for card in cards],
            command=code(discover_command(run.result)),
        )
    )


def code(text: str) -> Markup:
    """A code span that nothing in the text can end."""
    runs = [len(run) for run in re.findall("`+", text)]
    fence = "`" * (max(runs, default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return Markup(f"{fence}{pad}{text}{pad}{fence}")


def escaped(value: Any) -> Any:
    """A value as Markdown text; what is Markdown already (`Markup`) stays."""
    if value is None or isinstance(value, Markup):
        return value
    text = _SPECIAL.sub(r"\\\1", " ".join(str(value).split("\n")))
    return _LEADING.sub(lambda found: _led(found[0]), text)


def _led(start: str) -> str:
    """A number's dot and any other first character, so that they begin nothing."""
    return f"{start}\u2060" if start.isdecimal() else f"\\{start}"


def _address(folder: Path, path: Path) -> Markup:
    """Relative to the Markdown file, for a link."""
    return Markup(quote(f"{folder.name}/{path.name}"))


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("pie_fast.report"),
        autoescape=False,  # Markdown is escaped by `finalize`
        finalize=escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _card(card: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    """A card with its tokens as code spans."""
    return card | {
        "contexts": [_context(one, tokens) for one in card["contexts"][:_N_CONTEXTS]],
        "up": [(code(tokens[word]), effect) for word, effect in card["up"]],
        "down": [(code(tokens[word]), effect) for word, effect in card["down"]],
    }


def _context(context: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    """The context's text as a code span, its peak in brackets."""
    words = [tokens[word] for word in context["words"]]
    if context["peak"] is not None:
        words[context["peak"]] = f"⟦{words[context['peak']]}⟧"
    before, after = ("…" if cut else "" for cut in context["cut"])
    return context | {"text": code(before + "".join(words) + after)}
