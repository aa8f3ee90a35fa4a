"""The story of a circuit: what it says of planted features, and that its numbers add up."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_fast.errors import PieFastError
from pie_fast.interpret.narrative import Narrative, narrate
from pie_fast.interpretation import Interpretation
from pie_fast.types import FeatureId


def rule(
    *conditions: tuple[str, list[Any]], score: float | None = 0.9, covers: float = 0.6
) -> dict[str, Any]:
    """A rule of one term; its texts are its values, quoted where they are of tokens."""
    term = [
        {
            "family": family,
            "values": list(range(len(values))),
            "texts": [f'"{v}"' if "token" in family else str(v) for v in values],
        }
        for family, values in conditions
    ]
    held_out = {"average_precision": score, "coverage": covers}
    return {"text": "a rule", "terms": [term], "held_out": held_out}


def feature(layer: int, index: int, effect: float, of: Any = None, **known: Any) -> Interpretation:
    return Interpretation(FeatureId(layer, index), effect, layer=layer, rule=of, **known)


S2 = rule(("role", ["S2"]))
CARRIES = rule(("token", [" to", " a"]), (f"earlier {'IO'}", [" Mary"]))
CIRCUIT = [
    feature(0, 1, -3.0, S2),
    feature(0, 2, 0.5, rule(("class", ["number"]))),
    feature(1, 3, 2.0, S2),
    feature(1, 4, 1.0, CARRIES),
    feature(3, 5, 2.0, CARRIES),
    feature(3, 6, 1.5, rule(("last", [True]))),
]


def test_a_planted_circuit_is_told() -> None:
    carries = (
        '1 carries which token was IO (the name that comes once) at certain tokens (" to" or " a")'
    )
    assert narrate(CIRCUIT).text == (
        "Layers 0-1 (4 features, 65% of the effect): 2 mark S2 (the repeated name) (50%). Of the "
        f"others {carries} (10%) and 1 marks tokens that are number (5%).\n"
        f"Layer 3 (2 features, 35% of the effect): {carries} (20%). Of the others 1 marks the end "
        "of the prompt (15%)."
    )


WHERE_IO = ("earlier IO", [" Mary"])


def test_rules_that_cover_little_say_where_a_feature_is_strongest_only() -> None:
    end = ("role", ["END"])
    mixed = [feature(0, 1, 3.0, rule(end, covers=0.29)), feature(0, 2, 1.0, rule(end, covers=0.3))]
    assert narrate(mixed).text == (
        "Layer 0 (2 features, 100% of the effect): 1 is strongest on END (75%). Of the others "
        "1 marks END (25%)."
    )
    for condition, said in (
        (WHERE_IO, "1 is strongest where IO (the name that comes once) is a certain token ("),
        (("due", [" a"]), "1 is strongest where a certain token comes next by repetition ("),
        (("ngram", [1]), "1 is strongest by ngram ("),
    ):
        assert said in narrate([feature(0, 1, 1.0, rule(condition, covers=0.07))]).text


def test_what_all_of_a_theme_need_is_said() -> None:
    end, to = ("role", ["END"]), ("previous_token", [" to"])
    of_john, s1 = ("earlier IO", [" John"]), ("earlier S1", [" Ann"])
    some = [rule(end, WHERE_IO, to), rule(of_john, end)]
    text = narrate([feature(0, n, 1.0, of) for n, of in enumerate(some)]).text
    assert "2 mark END where IO is a certain token (100%)" in text
    some = [rule(end, WHERE_IO, s1, to), rule(s1, to, of_john, end)]
    text = narrate([feature(0, n, 1.0, of) for n, of in enumerate(some)]).text
    said = '2 mark END after certain tokens (" to") where IO and S1 are certain tokens (100%)'
    assert said in text
    some.append(rule(end))
    text = narrate([feature(0, n, 1.0, of) for n, of in enumerate(some)]).text
    assert "3 mark END (100%)" in text


def test_which_tokens_two_roles_had_is_one_theme_in_any_order() -> None:
    place = ("earlier place", [" park"])
    some = [rule(WHERE_IO, place), rule(place, WHERE_IO)]
    text = narrate([feature(0, n, 1.0, of) for n, of in enumerate(some)]).text
    assert "2 carry which tokens were IO (the name that comes once) and the place (100%)" in text


def test_what_is_left_unsaid_is_counted() -> None:
    many = [feature(0, n, 6.0 - n, rule((f"family{n}", [1]))) for n in range(6)]
    assert narrate(many).text == (
        "Layer 0 (6 features, 100% of the effect): 1 goes by family0 (29%). Of the others "
        "1 goes by family1 (24%), 1 goes by family2 (19%) and 1 goes by family3 (14%); "
        "2 do something else (14%)."
    )


def test_statements_name_their_features_strongest_first() -> None:
    first, second = narrate(CIRCUIT).layers
    assert (first.first, first.last, first.n_features) == (0, 1, 4)
    assert [s.features for s in first.statements] == [("L0:1", "L1:3"), ("L1:4",), ("L0:2",)]
    assert [s.share for s in first.statements] == pytest.approx([0.5, 0.1, 0.05])
    assert (second.first, second.last) == (3, 3)


@pytest.mark.parametrize(
    ("conditions", "phrase"),
    [
        ([("token", [" to", " a", ",", ".", "x"])], '(" to", " a", ",", "." and 1 more)'),
        ([("previous_token", [" to"])], 'marks what follows certain tokens (" to")'),
        (
            [("previous_role", ["place", "IO"])],
            "what follows place or IO (the name that comes once)",
        ),
        ([("class", ["a number", "a comma"])], "marks tokens that are a number or a comma"),
        ([("due", [" a"])], "carries which token comes next by repetition"),
        ([("promoted", [True])], "marks tokens that the same feature raises"),
        ([("next_promoted", [True])], "marks what comes before a token that the same feature"),
        ([("previous_pair", ["a b"])], "marks what follows certain pairs of tokens (a b)"),
        ([("repeat", [True]), ("token", [" a"])], 'the prompt at certain tokens (" a")'),
        ([("repeated_pair", [True])], "marks tokens that complete a pair seen earlier"),
        ([("after_repeat", [True])], "marks what follows a token seen earlier"),
        ([("position", [0, 3])], "marks certain positions (0 or 3)"),
        ([("ngram", [1])], "goes by ngram"),
        ([], "follows no clear rule"),
    ],
)
def test_every_family_has_words(conditions: list[tuple[str, list[Any]]], phrase: str) -> None:
    assert phrase in narrate([feature(2, 1, 1.0, rule(*conditions))]).text


def test_rules_that_hold_poorly_are_not_told() -> None:
    for score in (0.49, None):
        weak = feature(0, 1, 1.0, rule(("role", ["S2"]), score=score))
        assert narrate([weak]).layers[0].statements[0].text == "follow no clear rule"
    unscored = {"terms": [[{"family": "last", "values": [True]}]]}
    assert "end of the prompt" in narrate([feature(0, 1, 1.0, unscored)]).text


def test_the_first_term_makes_the_theme() -> None:
    of = rule(("last", [True]))
    of["terms"].append(S2["terms"][0])
    assert "1 marks the end of the prompt" in narrate([feature(0, 1, 1.0, of)]).text
    empty = {"terms": []}
    assert "follows no clear rule" in narrate([feature(0, 1, 1.0, empty)]).text


def test_labels_of_others_are_told_where_there_is_no_rule() -> None:
    named = [feature(0, i, 1.0, label="x" * 100, explainer="neuronpedia:m") for i in range(2)]
    story = narrate([*named, feature(0, 3, 1.0, label="never fires", explainer="rules")])
    assert '2 are labelled "' + "x" * 77 + '..." (67%)' in story.text
    assert "1 follows no clear rule (33%)" in story.text


def test_nothing_and_no_effect() -> None:
    assert narrate([]) == Narrative("The circuit has no features.", ())
    assert "(1 feature, 0% of the effect): 1 marks S2" in narrate([feature(0, 1, 0.0, S2)]).text


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Interpretation(FeatureId(0, 1), 1.0), "L0:1 has no layer"),
        (feature(0, 1, math.nan), "L0:1 has the effect nan"),
        (feature(0, 1, 1.0, {"terms": [[{"values": []}]]}), "rule of L0:1 .*family and values"),
        (feature(0, 1, 1.0, {"terms": 3}), "rule of L0:1"),
        (feature(0, 1, 1.0, {}), "rule of L0:1"),
        (feature(0, 1, 1.0, {"terms": [], "held_out": {}}), "rule of L0:1"),
        (
            feature(0, 1, 1.0, {"terms": [], "held_out": {"average_precision": 1.0}}),
            "coverage in held_out",
        ),
        (feature(0, 1, 1.0, {"terms": [], "held_out": {"average_precision": "high"}}), "rule of"),
    ],
)
def test_what_cannot_be_told_is_refused(bad: Interpretation, message: str) -> None:
    with pytest.raises(PieFastError, match=message):
        narrate([bad])


rules = st.none() | st.builds(
    rule,
    st.tuples(st.sampled_from(["role", "token", "earlier S1", "last", "ngram"]), st.just(["S2"])),
    score=st.floats(0, 1),
    covers=st.floats(0, 1),
)
circuits = st.lists(
    st.builds(
        feature,
        st.integers(0, 5),
        st.integers(0, 10**6),
        st.floats(-10, 10).map(lambda x: x if abs(x) > 1e-6 else 0.0),
        rules,
        label=st.sampled_from(["", "a", "b"]),
        explainer=st.sampled_from(["rules", "openai:m"]),
    ),
    max_size=12,
    unique_by=lambda one: str(one.feature),
)


@given(circuits, st.randoms())
def test_shares_add_up_and_order_does_not_matter(found: list[Interpretation], random: Any) -> None:
    story = narrate(found)
    shuffled = list(found)
    random.shuffle(shuffled)
    assert narrate(shuffled).to_dict() == story.to_dict()
    json.dumps(story.to_dict(), allow_nan=False)
    told = [name for layer in story.layers for s in layer.statements for name in s.features]
    assert sorted(told) == sorted(str(one.feature) for one in found)
    assert sum(layer.n_features for layer in story.layers) == len(found)
    if any(one.fap_score for one in found):
        assert sum(layer.share for layer in story.layers) == pytest.approx(1)
    for layer in story.layers:
        assert layer.share == pytest.approx(sum(s.share for s in layer.statements))
        shares = [s.share for s in layer.statements]
        assert shares == sorted(shares, reverse=True)
    ranges = [(layer.first, layer.last) for layer in story.layers]
    assert all(a[1] < b[0] for a, b in pairwise(ranges))
