"""How results look in a notebook: small HTML, no script, nothing loaded from elsewhere.

Whatever comes from a model or a file (tokens, labels, names) is escaped. Colours are shades over
the notebook's own background, so that they read on light and dark ones alike. No import of weight;
the classes that are shown call these functions from `_repr_html_`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pie_fast.discovery import Discovery
    from pie_fast.interpretation import Histogram, Interpretation, TokenEffect, TopContext
    from pie_fast.intervened import Generated, Intervened
    from pie_fast.selectors import Ranked
    from pie_fast.types import Selection

#: rows of a table that are shown
SHOWN = 25

#: contexts that are shown at once; the others open by a click
FIRST_CONTEXTS = 3

_LEVELS = "▁▂▃▄▅▆▇█"

#: red, green, blue of activations above and below zero
_WARM, _COLD = "230,120,0", "40,110,230"


def interpretation(one: Interpretation) -> str:
    """A card: label, figures, contexts with heat, tokens that it moves, links and quality."""
    figures = [f"FAP score {_number(one.fap_score)}"]
    if one.label_quality is not None:
        figures.append(f"label quality {_number(one.label_quality)}")
    if one.n_active_prompts is not None:
        figures.append(f"fires in {one.n_active_prompts} prompts")
    if one.density is not None:
        figures.append(f"at {one.density:.2%} of positions")
    parts = [
        f"<b>{_text(one.feature)}</b> {_text(one.label)}",
        f"<small>{'; '.join(figures)}{_spark(one.histogram)}</small>",
        _contexts(one.contexts),
        _moved("raises", one.promoted),
        _moved("lowers", one.suppressed),
        _links("fires with", one.coactive),
        _links("fed by", one.fed_by),
        _links("feeds", one.feeds),
        _line("quality", [f"{_text(k)} {_number(m.value)}" for k, m in one.quality.items()]),
    ]
    return _box(parts)


def discovery(result: Discovery) -> str:
    """What was kept, how faithful it is, and what each feature does."""
    found, evaluation = result["interpretations"], result["evaluation"]
    told = [f"<b>{len(found)} features</b> by {_text(getattr(result, 'selector', '?'))}"]
    intervals = evaluation.get("intervals") or {}
    for key in ("behavioral_fidelity", "mean_kl", "faithfulness", "completeness"):
        if key in evaluation:
            told.append(
                f"{key.replace('_', ' ')} {_number(evaluation[key])}{_spread(intervals.get(key))}"
            )
    head = ["", "feature", "FAP score", "what it does"]
    rows = [
        [_text(rank), _text(one.feature), _number(one.fap_score), _text(one.label)]
        for rank, one in enumerate(found)
    ]
    if result.scores is not None:
        head.insert(2, "ranked by")
        for row, score in zip(rows, result.scores, strict=True):
            row.insert(2, _number(score))
    table = _table(head, rows, left=(1, len(head) - 1))
    return _box(["; ".join(told), table])


def intervened(result: Intervened) -> str:
    """Next tokens before and after, and what was changed."""
    tokens = [[_code(t.text), f"{t.before:.4f}", f"{t.after:.4f}"] for t in result.top()]
    moved = [change for change in result.changes if change.value != change.current]
    changes = [
        [_text(c.feature), _text(c.position), *map(_number, (c.clean, c.current, c.value))]
        for c in moved
    ]
    same = len(result.changes) - len(moved)
    return _box(
        [
            _table(["next token", "before", "after"], tokens, left=(0,)),
            _table(["feature", "position", "clean", "current", "set to"], changes, left=(0,)),
            f"and {same} that had this activation already" if same else "",
        ]
    )


def generated(result: Generated) -> str:
    """The continuation, and the model's own."""
    rows = [["before", _code(result.original_text)], ["after", _code(result.text)]]
    return _box([_table(["", "continuation"], rows, left=(0, 1))])


def selection(result: Selection) -> str:
    """Positions and gains, in the order taken."""
    gains = zip(result.ids.tolist(), result.gains.tolist(), strict=True)
    rows = [[_text(rank), _text(i), _number(gain)] for rank, (i, gain) in enumerate(gains)]
    return _box([f"<b>{len(rows)} selected</b>", _table(["rank", "id", "gain"], rows)])


def ranked(result: Ranked) -> str:
    """Features or nodes with their scores, in the order selected."""
    rows = [
        [
            _text(row["rank"]),
            _text(f"L{row['layer']}:{row['index']}"),
            *([_text(row["slot"])] if "slot" in row else []),
            _number(row["score"]),
        ]
        for row in result.listed()
    ]
    head = ["rank", "feature", *(["at"] if result.slots is not None else []), "score"]
    told = f"<b>{len(rows)} selected</b> by {_text(result.selector)}"
    return _box([told, _table(head, rows, left=(1,))])


def _contexts(contexts: Sequence[TopContext]) -> str:
    strongest = max((abs(a) for c in contexts for a in (c.activation, *c.activations)), default=0.0)
    lines = [f"<div>{_heated(context, strongest)}</div>" for context in contexts]
    more = "".join(lines[FIRST_CONTEXTS:])
    hidden = f"<details><summary>{len(lines) - FIRST_CONTEXTS} more</summary>{more}</details>"
    return "".join(lines[:FIRST_CONTEXTS]) + (hidden if more else "")


def _heated(context: TopContext, strongest: float) -> str:
    """The tokens of a context, shaded by activation as a share of the strongest shown."""
    values = context.activations
    if not values and context.peak is not None:
        values = tuple(context.activation * (i == context.peak) for i in range(len(context.tokens)))
    values = values or (0.0,) * len(context.tokens)
    tokens = [
        _shaded(token, value / strongest if strongest > 0 else 0.0)
        for token, value in zip(context.tokens, values, strict=True)
    ]
    about = f"{context.kind} {context.activation:.3g}"
    return (
        f'<small style="opacity:.7">{_text(about)} </small>'
        f'<span style="white-space:pre-wrap;font-family:monospace">{"".join(tokens)}</span>'
    )


def _shaded(token: str, share: float) -> str:
    if not share or not math.isfinite(share):
        return _text(token)
    colour = _WARM if share > 0 else _COLD
    return f'<span style="background:rgba({colour},{abs(share) * 0.7:.2f})">{_text(token)}</span>'


def _spark(histogram: Histogram | None) -> str:
    """Counts as little bars, on a scale of logarithms."""
    if histogram is None or not any(histogram.counts):
        return ""
    most = math.log1p(max(histogram.counts))
    heights = [round(math.log1p(n) / most * (len(_LEVELS) - 1)) for n in histogram.counts]
    bars = "".join(_LEVELS[h] if n else " " for h, n in zip(heights, histogram.counts, strict=True))
    low, high = histogram.edges[0], histogram.edges[-1]
    return f"; |activation| {low:.3g} <code>{bars}</code> {high:.3g}"


def _moved(word: str, effects: Iterable[TokenEffect]) -> str:
    return _line(word, [f"{_code(one.token)} {one.effect:+.2f}" for one in effects])


def _links(word: str, links: Iterable[Any]) -> str:
    return _line(word, [f"{_text(link.feature)} {_number(link.weight)}" for link in links])


def _line(word: str, items: Sequence[str]) -> str:
    """Items that are HTML already, behind a word; nothing where there are none."""
    return f"<small>{word} {', '.join(items)}</small>" if items else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already; long ones are cut, and say so."""
    if not rows:
        return ""
    sides = ["left" if i in left else "right" for i in range(len(head))]
    titles = [f'<th style="text-align:{s}">{h}</th>' for s, h in zip(sides, head, strict=True)]
    body = [
        f'<td style="text-align:{side}">{cell}</td>'
        for row in rows[:SHOWN]
        for side, cell in zip(sides, row, strict=True)
    ]
    lines = ["".join(body[i : i + len(head)]) for i in range(0, len(body), len(head))]
    more = f"<small>and {len(rows) - SHOWN} more</small>" if len(rows) > SHOWN else ""
    inside = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{''.join(titles)}</tr></thead><tbody>{inside}</tbody></table>{more}"


def _box(parts: Iterable[str]) -> str:
    return "<div>" + "".join(f"<div>{part}</div>" for part in parts if part) + "</div>"


def _text(value: object) -> str:
    """Anything as text of HTML; line breaks are shown as a sign."""
    return escape(str(value)).replace("\n", "⏎")


def _code(text: str) -> str:
    return f'<code style="white-space:pre-wrap">{_text(text)}</code>'


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _spread(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" [{_number(interval[0])}, {_number(interval[1])}]"
