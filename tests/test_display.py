"""What notebooks show of results: escaped, balanced, small, and true."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_fast.discovery import Discovery
from pie_fast.display import FIRST_CONTEXTS, SHOWN
from pie_fast.interpretation import (
    Histogram,
    Interpretation,
    Link,
    Measure,
    TokenEffect,
    TopContext,
)
from pie_fast.intervened import Change, Generated, Intervened
from pie_fast.selectors import Ranked
from pie_fast.slots import Slots
from pie_fast.types import FeatureId, Selection

#: all that there is in what we write
ALLOWED = {
    *("b", "code", "details", "div", "small", "span", "summary"),
    *("table", "tbody", "td", "th", "thead", "tr"),
}


class Checked(HTMLParser):
    """Balanced tags of `ALLOWED`, with no attribute but a style; collects the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.styles: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, tag
        assert {name for name, _ in attrs} <= {"style"}, attrs
        self.styles += [value or "" for _, value in attrs]
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def card(**more: object) -> Interpretation:
    return Interpretation(feature=FeatureId(1, 2), fap_score=-0.25, label="fires", **more)  # type: ignore[arg-type]


ANY = st.text(max_size=12) | st.sampled_from(["<script>alert(1)</script>", "&amp;", '"', "\n", ""])


@given(label=ANY, tokens=st.lists(ANY, min_size=1, max_size=5), data=st.data())
def test_nothing_of_a_model_becomes_markup(
    label: str, tokens: list[str], data: st.DataObject
) -> None:
    values = data.draw(st.lists(st.floats(-5, 5), min_size=len(tokens), max_size=len(tokens)))
    effects = tuple(TokenEffect(token, i, 1.0) for i, token in enumerate(tokens))
    one = Interpretation(
        feature=label,
        fap_score=float("nan"),
        label=label,
        contexts=(TopContext(tuple(tokens), 0, 1.0, label, tuple(values)),),
        promoted=effects,
        coactive=(Link(label, 0.5),),
        quality={label: Measure(None)},
    )
    whole = Discovery({label}, [one], {"behavioral_fidelity": None}, selector=label)
    for html in (one._repr_html_(), whole._repr_html_()):
        text = Checked(html).text
        assert label.replace("\n", "⏎") in text
    for token in tokens:
        assert token.replace("\n", "⏎") in Checked(one._repr_html_()).text


def test_heat_is_the_share_of_the_strongest() -> None:
    context = TopContext(("a", "b", "c", "d"), 1, 4.0, activations=(0.0, 4.0, -2.0, 1.0))
    checked = Checked(card(contexts=(context,))._repr_html_())
    shades = re.findall(r"rgba\((\d+),\d+,\d+,([\d.]+)\)", " ".join(checked.styles))
    assert [float(alpha) for _, alpha in shades] == [0.7, 0.35, 0.17]
    assert len({red for red, _ in shades[:2]}) == 2, "another colour below zero"
    assert "abcd" in checked.text


@pytest.mark.parametrize(
    ("context", "shaded"),
    [
        (TopContext(("a", "b"), 1, 3.0), 1),
        (TopContext(("a", "b"), None, 0.0, "silent"), 0),
        (TopContext((), None, 0.0, "silent"), 0),
        (TopContext(("a",), 0, float("nan"), activations=(float("nan"),)), 0),
    ],
)
def test_contexts_without_all_activations(context: TopContext, shaded: int) -> None:
    html = card(contexts=(context,))._repr_html_()
    assert html.count("rgba(") == shaded and Checked(html).text


def test_a_card_says_what_there_is_and_no_more() -> None:
    contexts = tuple(TopContext((f"t{i}",), 0, 1.0) for i in range(5))
    full = card(
        contexts=contexts,
        histogram=Histogram((0.5, 1.0, 2.0, 4.0), (9, 0, 1)),
        density=0.125,
        n_active_prompts=7,
        label_quality=0.5,
        suppressed=(TokenEffect(" no", 3, -1.5),),
        fed_by=(Link(FeatureId(0, 9), 2.0),),
        quality={"clarity_rule": Measure(0.75)},
    )
    checked = Checked(full._repr_html_())
    for said in ("L1:2 fires", "12.50%", "7 prompts", "label quality 0.5", "lowers  no -1.50"):
        assert said in checked.text, said
    assert "fed by L0:9 2" in checked.text and "clarity_rule 0.75" in checked.text
    assert "█ ▃" in checked.text, "counts of 9, 0 and 1 on a logarithmic scale"
    assert f"{5 - FIRST_CONTEXTS} more" in checked.text
    for silent in ("quality", "raises", "feeds", "prompts", "more"):
        assert silent not in Checked(card()._repr_html_()).text


def test_a_discovery() -> None:
    found = [Interpretation(FeatureId(0, i), float(i), f"label {i}") for i in range(800)]
    evaluation = {
        "behavioral_fidelity": 0.875,
        "completeness": 0.5,
        "intervals": {"behavioral_fidelity": [0.8, 0.9], "completeness": None},
    }
    html = Discovery(set(), found, evaluation, selector="fap")._repr_html_()
    text = Checked(html).text
    assert "800 features by fap; behavioral fidelity 0.875 [0.8, 0.9]; completeness 0.5" in text
    assert f"label {SHOWN - 1}" in text and f"label {SHOWN}" not in text
    assert f"and {800 - SHOWN} more" in text and len(html) < 20_000
    ranked = Discovery(set(), found[:2], {}, scores=[0.75, 0.5])._repr_html_()
    text = Checked(ranked).text
    assert "ranked byFAP score" in text and "L0:10.51label 1" in text
    nothing = Discovery(set(), [], {})
    assert "0 features" in Checked(nothing._repr_html_()).text


def test_interventions() -> None:
    logits = np.array([0.0, 2.0, 1.0], np.float32)
    changes = (
        Change(FeatureId(0, 1), 3, 1.5, 1.25, 0.0),
        Change(FeatureId(0, 2), 3, 0.0, 0.0, 0.0),
    )
    result = Intervened((1, 2), 1, logits, logits[::-1].copy(), changes, {}, lambda i: f"<{i}>")
    text = Checked(result._repr_html_()).text
    assert "<1>" in text and "0.6652" in text
    assert "L0:131.51.250" in text and "and 1 that had this activation already" in text
    told = Checked(Generated((1,), (2,), (3,), " <b>", " c")._repr_html_()).text
    assert "before c" in told and "after <b>" in told


def test_selections() -> None:
    chosen = Selection(np.array([4, 2]), np.array([1.5, float("inf")]))
    assert "2 selectedrankidgain041.512inf" in Checked(chosen._repr_html_()).text
    empty = Selection(np.zeros(0, np.int64), np.zeros(0))
    assert Checked(empty._repr_html_()).text == "0 selected"
    ids, scores = np.array([13, 5]), np.array([2.0, 1.0])
    by_feature = Ranked(ids, scores, "fap", 10)
    assert "2 selected by fap" in Checked(by_feature._repr_html_()).text
    assert "0L1:321L0:51" in Checked(by_feature._repr_html_()).text
    slots = Slots(("S2", "END"))
    by_node = Checked(Ranked(ids, scores, "fap", 10, slots=slots)._repr_html_()).text
    assert "rankfeatureatscore" in by_node and "0L0:6END2" in by_node
