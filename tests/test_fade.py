"""FADE against scikit-learn and by hand, with raters and writers that are functions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from pie_fast.errors import PieFastError
from pie_fast.interpret.fade import Counts, Fade, Settings, fade
from pie_fast.interpret.fade.scores import (
    clarity,
    faithfulness,
    passes,
    rated_subset,
    responsiveness,
    with_zero,
)
from pie_fast.interpret.summary import summary
from pie_fast.interpretation import Measure

#: many ties, most of them at 0, as activations of a feature are
SCORES = st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, -2.0, 3.25]), min_size=1, max_size=30)


@dataclass
class Scripted:
    """A rater and writer by functions; remembers what it was asked."""

    rating: Callable[[str], int | None] = lambda text: 2 if "cat" in text else 0
    texts: Sequence[str] = tuple(f"cat number {i}" for i in range(12))
    asked: list[list[str]] = field(default_factory=list)

    def rate(self, description: str, texts: Sequence[str]) -> list[int | None]:
        assert description == "cats"
        self.asked.append(list(texts))
        return [self.rating(text) for text in texts]

    def write(self, description: str, n: int) -> list[str]:
        assert description == "cats"
        return list(self.texts[:n])


#: 40 natural sequences of which every fourth is about a cat
NATURAL = [f"a cat, {i}" if i % 4 == 0 else f"a dog, {i}" for i in range(40)]
ACTIVATIONS = np.array([1.0 + i / 50 if i % 4 == 0 else 0.0 for i in range(40)])
STEERED: Mapping[float, Sequence[str]] = {
    -10: ["dog", "dog", "dog", "dog"],
    0: ["dog", "cat", "dog", "dog"],
    10: ["cat", "cat", "cat", "dog"],
    50: ["noise", "noise", "noise", "cat"],
}


def judge(
    scripted: Scripted,
    activations: Sequence[float] | np.ndarray = ACTIVATIONS,
    steered: Mapping[float, Sequence[str]] = STEERED,
    written: Callable[[str], float] = lambda text: 1.5,
    **settings: float,
) -> Fade:
    return fade(
        "cats",
        activations,
        text_of=NATURAL.__getitem__,
        peaks_of=lambda texts: np.array([written(text) for text in texts]),
        steer=lambda: steered,
        rater=scripted,
        writer=scripted,
        settings=Settings(**settings),  # type: ignore[arg-type]
    )


def test_a_feature_of_cats_by_hand() -> None:
    scripted = Scripted()
    found = judge(scripted)
    assert list(found.measures) == [
        "clarity_llm",
        "responsiveness_llm",
        "purity_llm",
        "faithfulness_llm",
    ]
    quality = found.measures
    # 12 written at 1.5: above all 30 dogs and the 7 cats below 1.5
    above = 30 + sum(1 for i in range(0, 40, 4) if 1 + i / 50 < 1.5)
    assert quality["clarity_llm"].value == pytest.approx(2 * above / 40 - 1, abs=1e-12)
    assert (quality["clarity_llm"].n_positive, quality["clarity_llm"].n_negative) == (12, 40)
    assert quality["responsiveness_llm"] == Measure(1.0, 1.0, 10, 30)
    assert quality["purity_llm"].value == 1.0
    assert quality["faithfulness_llm"] == Measure((0.75 - 0.25) / 0.75, None, 5, 11)
    assert found.natural == Counts((30, 0, 10)) and found.n_written == 12
    assert found.faithful.shares == {-10: 0.0, 0: 0.25, 10: 0.75, 50: 0.25}


def test_the_factor_reported_is_the_one_with_the_largest_share() -> None:
    """Not the largest of the factors."""
    assert judge(Scripted()).faithful.best == 10
    assert faithfulness({0: 0.0, 50: 0.5, -10: 0.5, 1: 0.2}).best == -10


def test_the_rater_reads_whole_texts_of_sequences_and_continuations() -> None:
    """Neither tuples with their number nor single characters."""
    scripted = Scripted()
    judge(scripted)
    natural, *steered = scripted.asked
    assert sorted(natural) == sorted(NATURAL)
    assert steered == [list(texts) for texts in STEERED.values()]


@given(natural=SCORES, written=SCORES)
def test_clarity_is_scikit_learns(natural: list[float], written: list[float]) -> None:
    found = clarity(natural, written)
    signed = 2 * roc_auc_score([0] * len(natural) + [1] * len(written), natural + written) - 1
    assert found.signed == pytest.approx(signed, abs=1e-12)
    assert found.value == pytest.approx(abs(signed), abs=1e-12)


@given(st.lists(st.tuples(SCORES.map(lambda x: x[0]), st.sampled_from([0, 1, 2, None]))))
def test_responsiveness_and_purity_are_scikit_learns(rated: list[tuple[float, int | None]]) -> None:
    scores, ratings = [a for a, _ in rated], [r for _, r in rated]
    responsive, pure = responsiveness(scores, ratings)
    used = [(a, r == 2) for a, r in rated if r in (0, 2)]
    if len({label for _, label in used}) < 2:
        assert responsive.value is None and pure.value is None and responsive.why == pure.why
        missing = 0 if any(label for _, label in used) else 2
        assert responsive.why == f"no sequence was rated {missing}"
        return
    kept, labels = np.array([a for a, _ in used]), [label for _, label in used]
    signed = 2 * roc_auc_score(labels, kept) - 1
    assert responsive.signed == pytest.approx(signed, abs=1e-12)
    assert responsive.value == pytest.approx(abs(signed), abs=1e-12)
    # scikit-learn's area of 1/2 may be off by rounding, which is not to turn anything over
    pairs = np.sign(kept[labels][:, None] - kept[np.invert(labels)][None, :]).sum()
    towards = -kept if pairs < 0 else kept
    assert pure.value == pytest.approx(average_precision_score(labels, towards), abs=1e-12)
    assert (responsive.n_positive, responsive.n_negative) == (sum(labels), labels.count(False))


@given(st.dictionaries(st.sampled_from([-50.0, -1.0, 1.0, 10.0]), st.floats(0, 1), min_size=1),
       st.floats(0, 0.99))  # fmt: skip
def test_faithfulness_is_its_formula(shares: dict[float, float], ablated: float) -> None:
    found = faithfulness({0.0: ablated, **shares})
    expected = max(max([ablated, *shares.values()]) - ablated, 0) / (1 - ablated)
    assert found.measure.value == pytest.approx(expected, abs=1e-12)
    assert 0 <= expected <= 1 and found.best in {0.0, *shares}


def test_activations_that_all_tie_say_nothing() -> None:
    assert clarity([0.0] * 9, [0.0] * 3).value == 0
    responsive, pure = responsiveness([0.0] * 8, [2, 2, 0, 0, 0, 0, 0, 0])
    assert responsive.value == responsive.signed == 0
    assert pure.value == 0.25, "the prevalence"


def test_a_feature_that_is_silent_on_its_concept_alone_has_its_sign_beside_the_1() -> None:
    found = judge(Scripted(), 1.0 - (ACTIVATIONS > 0), written=lambda text: 0.0).measures
    assert found["responsiveness_llm"].value == found["purity_llm"].value == 1
    assert found["responsiveness_llm"].signed == -1
    assert found["clarity_llm"].signed == pytest.approx(-0.75)
    assert found["faithfulness_llm"].value is not None, "the gate does not look at signs"


@pytest.mark.parametrize(("rating", "why"), [(0, "no sequence was rated 2"), (2, "rated 0"),
                                             (1, "rated 2"), (None, "rated 2")])  # fmt: skip
def test_one_sided_ratings_give_no_number_but_a_reason(rating: int | None, why: str) -> None:
    found = judge(Scripted(rating=lambda text: rating))
    for name in ("responsiveness_llm", "purity_llm"):
        assert found.measures[name].value is None
        assert found.measures[name].signed is None
        assert why in str(found.measures[name].why)
    assert found.measures["faithfulness_llm"].why == "gate not passed"
    assert found.natural.unrated == (40 if rating is None else 0)
    assert found.steered == {}


def test_nothing_is_steered_in_front_of_the_gate() -> None:
    def steer() -> Mapping[float, Sequence[str]]:
        raise AssertionError("steered")

    rng = np.random.default_rng(0)
    scripted = Scripted()
    found = fade(
        "cats", rng.random(40), text_of=NATURAL.__getitem__, peaks_of=lambda t: rng.random(len(t)),
        steer=steer, rater=scripted, writer=scripted, suffix="_other",
    )  # fmt: skip
    assert found.measures["faithfulness_other"] == Measure(None, why="gate not passed")
    assert found.measures["clarity_other"].value is not None
    assert len(scripted.asked) == 1
    half, less, none = Measure(0.5), Measure(0.49), Measure(None, why="x")
    assert passes(half, half) and not passes(half, less)
    assert not passes(half, none) and not passes(none, half)
    assert passes(less, less, 0.4)


def test_an_ablated_feature_that_always_expresses_it_gives_no_number() -> None:
    found = judge(Scripted(), steered={0: ["cat"] * 3, 1: ["cat", "dog", "cat"]})
    measure = found.measures["faithfulness_llm"]
    assert measure.value is None and "R_0 = 1" in str(measure.why)
    assert (measure.n_positive, measure.n_negative) == (5, 1)


def test_unrated_continuations_are_counted_and_leave_the_share_alone() -> None:
    def rating(text: str) -> int | None:
        return None if text == "noise" else 2 if "cat" in text else 0

    found = judge(Scripted(rating=rating))
    assert found.faithful.shares[50] == 1.0 and found.faithful.best == 50
    assert found.steered[50] == Counts((0, 0, 1), 3)
    never = judge(Scripted(rating=rating), steered={**STEERED, 0: ["noise"], 50: ["noise"]})
    measure = never.measures["faithfulness_llm"]
    assert measure.why == "no continuation of the ablated feature was rated"
    assert never.faithful.shares[50] is None
    alone = judge(Scripted(rating=rating), steered={0: ["dog"], 50: ["noise"]})
    assert alone.faithful.measure.why == "no continuation of the steered feature was rated"
    written = json.loads(json.dumps(found.to_dict()))
    assert written["best_factor"] == 50 and written["n_written"] == 12
    assert written["steered"][3] == {
        "factor": 50.0,
        "share": 1.0,
        "by_rating": [0, 0, 1],
        "unrated": 3,
    }


def test_too_few_written_texts_give_no_clarity() -> None:
    for texts in ((), ("cat", " ", ""), tuple(["cat"] * 9)):
        found = judge(Scripted(texts=texts))
        assert found.n_written == sum(text == "cat" for text in texts)
        assert found.measures["clarity_llm"].why == "too few written texts"
        assert found.measures["clarity_llm"].signed is None
        assert found.measures["responsiveness_llm"].value == 1
        assert found.measures["faithfulness_llm"].why == "gate not passed"
    assert judge(Scripted(), n_written=11).n_written == 11


def test_the_rated_subset_has_some_of_every_strength_and_the_strongest() -> None:
    rng = np.random.default_rng(1)
    values = rng.permutation(np.arange(10_000.0))
    chosen = rated_subset(values)
    strengths = np.sort(values[chosen])
    assert 448 <= len(chosen) <= 500 and (np.diff(chosen) > 0).all()
    assert (strengths[-52:] == np.arange(9948.0, 10_000.0)).all()
    counts = np.histogram(strengths, [0, 5000, 7500, 9500, 10_000])[0]
    assert counts[:3].tolist() == [112] * 3 and 112 <= counts[3] <= 164
    below = strengths[strengths < 5000]
    assert np.diff(below).max() <= 46, "evenly"
    assert np.array_equal(chosen, rated_subset(values))
    small = rated_subset(values, 50)
    assert 45 <= len(small) <= 50 and values[small].max() == 9999


@given(SCORES, st.integers(1, 40))
def test_a_rated_subset_is_no_larger_than_asked_for(scores: list[float], n: int) -> None:
    """Not even where none of the strongest are asked for: a slice of the last 0 is everything."""
    chosen = rated_subset(scores, n)
    assert len(chosen) <= n and len({*chosen.tolist()}) == len(chosen)
    if n >= 4 * len(scores) + 8:
        assert len(chosen) == len(scores)


def test_equally_active_sequences_are_drawn_from_all_over() -> None:
    """A feature that is nearly always silent: its zeros are not the first of the corpus."""
    values = np.zeros(5000)
    values[17] = 1.0
    chosen = rated_subset(values)
    assert 17 in chosen
    assert np.histogram(chosen, 5, (0, 5000))[0].min() > 50
    assert not np.array_equal(chosen, rated_subset(values, seed=1))


def test_bad_answers_are_refused() -> None:
    class Short(Scripted):
        def rate(self, description: str, texts: Sequence[str]) -> list[int | None]:
            return [0] * (len(texts) - 1)

    with pytest.raises(PieFastError, match="the rater gave 39 ratings for 40 texts"):
        judge(Short())
    with pytest.raises(PieFastError, match="a rating is 3, must be 0, 1, 2 or None"):
        judge(Scripted(rating=lambda text: 3))
    scripted = Scripted()
    with pytest.raises(PieFastError, match=r"factors are \[1, 10\], must have 0"):
        judge(scripted, steered={1: ["cat"], 10: ["cat"]})
    assert len(scripted.asked) == 1, "nothing was paid for continuations"
    with pytest.raises(PieFastError, match="an activation is not finite"):
        judge(Scripted(), [float("nan"), *ACTIVATIONS[1:]])
    with pytest.raises(PieFastError, match=r"shape \(0,\), must be \[n\] of at least 1"):
        judge(Scripted(), [])
    with pytest.raises(PieFastError, match=r"the share at factor 1 is 1\.5, must be from 0 to 1"):
        faithfulness({0: 0.5, 1: 1.5})
    for wrong in ({"n_rated": 0}, {"n_written": 0}, {"least_written": 0}, {"gate": 1.1}):
        with pytest.raises(PieFastError, match=f"{next(iter(wrong))} is .*, must be"):
            Settings(**wrong)  # type: ignore[arg-type]


def test_factor_0_is_added_where_it_is_missing() -> None:
    assert with_zero([1.0, 2.0]) == (0.0, 1.0, 2.0)
    assert with_zero([1.0, 0.0]) == (1.0, 0.0)


def test_a_mean_is_with_its_coverage() -> None:
    gate = Measure(None, why="gate not passed")
    found = summary(
        [
            {"clarity_rule": Measure(0.5, -0.5), "faithfulness_llm": gate},
            {"clarity_rule": Measure(1.0, 1.0), "faithfulness_llm": gate},
            {"clarity_rule": Measure(None, why="too few"), "faithfulness_llm": Measure(0.25)},
            {"faithfulness_llm": Measure(None, why="R_0 = 1")},
        ]
    )
    assert list(found) == ["clarity_rule", "faithfulness_llm"]
    assert found["clarity_rule"].to_dict() == {
        "mean": 0.75,
        "mean_signed": 0.25,
        "n": 2,
        "n_missing": 2,
        "coverage": 0.5,
        "why": {"too few": 1, "not measured": 1},
    }
    faithful = found["faithfulness_llm"]
    assert (faithful.mean, faithful.mean_signed, faithful.coverage) == (0.25, None, 0.25)
    assert list(faithful.why.items()) == [("gate not passed", 2), ("R_0 = 1", 1)]
    assert summary([]) == {}
    assert summary([{"x": gate}])["x"].mean is None


def test_it_needs_no_torch() -> None:
    modules = "pie_fast.interpret.fade, pie_fast.interpret.summary"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
