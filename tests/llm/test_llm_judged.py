"""Ratings, texts and scores by a language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_features import context, feature
from pie_fast.errors import PieFastError
from pie_fast.interpretation import Measure
from pie_fast.llm import LlmExplainer, LlmNarrator, LlmRater, LlmScorer, LlmWriter
from pie_fast.llm.description import description_of
from scripted_server import Body, Reply, chatting, data_of, serving

# ---------------------------------------------------------------------------------- rate

TEXTS = [f"text number {i}, quite long" for i in range(32)]


def rated(body: Body) -> dict[str, str]:
    return data_of(body)[1]


def test_texts_are_rated_fifteen_at_a_time(tmp_path: Path) -> None:
    def script(body: Body, n: int) -> Reply:
        ratings = {i: int(text.split()[2].rstrip(",")) % 3 for i, text in rated(body).items()}
        return Reply(json.dumps({"ratings": ratings}))

    with serving(script) as server, chatting(server, tmp_path) as chat:
        assert LlmRater(chat).rate("numbers", TEXTS) == [i % 3 for i in range(32)]
    assert sorted(len(rated(body)) for body in server.requests) == [2, 15, 15]
    assert {t for body in server.requests for t in rated(body).values()} == set(TEXTS)


def test_what_is_left_out_is_asked_once_more_as_whole_texts(tmp_path: Path) -> None:
    def script(body: Body, n: int) -> Reply:
        """Leaves out numbers 3 and 7 at first, 7 always; says ids that nobody asked for."""
        again = "left these out" in body["messages"][1]["content"]
        left = ("number 7,",) if again else ("number 3,", "number 7,")
        items = rated(body).items()
        ratings = {i: 2 for i, text in items if not any(word in text for word in left)}
        return Reply(json.dumps({"ratings": ratings | {"99": 1, "x": 0}}))

    with serving(script) as server, chatting(server, tmp_path) as chat:
        told = LlmRater(chat).rate("numbers", TEXTS[:15])
    assert told == [None if i == 7 else 2 for i in range(15)]
    first, second = server.requests
    assert list(rated(second).values()) == [TEXTS[3], TEXTS[7]]  # texts, not characters of them
    assert len(rated(first)) == 15
    (failure,) = chat.failures
    assert "1 of 15 texts were left out twice" in failure.reason


def test_an_answer_without_any_id_is_not_read_from_the_cache_again(tmp_path: Path) -> None:
    def script(body: Body, n: int) -> Reply:
        again = "left these out" in body["messages"][1]["content"]
        return Reply() if again else Reply('{"ratings": {}}')

    with serving(script) as server, chatting(server, tmp_path) as chat:
        assert LlmRater(chat).rate("numbers", TEXTS[:2]) == [1, 1]
        assert len(server.requests) == 2 and chat.failures == ()


def test_a_batch_that_fails_leaves_the_others(tmp_path: Path) -> None:
    def script(body: Body, n: int) -> Reply:
        return Reply("no") if TEXTS[0] in rated(body).values() else Reply()

    with serving(script) as server, chatting(server, tmp_path) as chat:
        told = LlmRater(chat).rate("numbers", TEXTS)
    assert told == [None] * 15 + [1] * 17
    assert len(chat.failures) == 1  # and it is not asked once more: it was, often enough


def test_more_texts_later_are_texts_too(tmp_path: Path) -> None:
    """FADE asks for more where few were rated 2: only the new ones are sent, and as texts."""
    with serving() as server, chatting(server, tmp_path) as chat:
        rater = LlmRater(chat)
        rater.rate("numbers", TEXTS[:15])
        assert rater.rate("numbers", TEXTS[15:20]) == [1] * 5
    assert list(rated(server.requests[1]).values()) == TEXTS[15:20]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "texts is a str"),
        ({0: "a"}, "texts is a dict"),
        ([(0, "a")], r"texts\[0\] is a tuple, must be a text"),
        (["a", None], r"texts\[1\] is a NoneType"),
    ],
)
def test_only_texts_are_rated(tmp_path: Path, texts: Any, message: str) -> None:
    with serving() as server, chatting(server, tmp_path) as chat:
        with pytest.raises(PieFastError, match=message):
            LlmRater(chat).rate("numbers", texts)
        assert LlmRater(chat).rate("numbers", []) == [] and server.requests == []


def test_equal_texts_are_rated_once(tmp_path: Path) -> None:
    with serving() as server, chatting(server, tmp_path) as chat:
        assert LlmRater(chat).rate("numbers", ["a", "b", "a"]) == [1, 1, 1]
    assert list(rated(server.requests[0]).values()) == ["a", "b"]


@pytest.mark.parametrize("batch", [0, 16])
def test_batches_of_1_to_15(tmp_path: Path, batch: int) -> None:
    with (
        serving() as server,
        chatting(server, tmp_path) as chat,
        pytest.raises(PieFastError, match=rf"batch is {batch}, must be in \[1, 15\]"),
    ):
        LlmRater(chat, batch=batch).rate("numbers", ["a"])


# --------------------------------------------------------------------------------- write


def test_texts_are_written_in_parts_that_differ(tmp_path: Path) -> None:
    with serving() as server, chatting(server, tmp_path) as chat:
        texts = LlmWriter(chat).write("numbers", 25)
        assert len(texts) == len(set(texts)) == 25 and len(server.requests) == 3
        assert LlmWriter(chat).write("numbers", 25) == texts and len(server.requests) == 3
        assert LlmWriter(chat).write("numbers", 0) == []


def test_a_writer_that_repeats_itself_is_asked_for_more_and_then_told(tmp_path: Path) -> None:
    def script(body: Body, n: int) -> Reply:
        new = len(data_of(body)) - 1  # the texts there are come as a second block
        return Reply(json.dumps({"texts": ["same", "same", f"new {new}"]}))

    with serving(script) as server, chatting(server, tmp_path) as chat:
        assert LlmWriter(chat).write("numbers", 5) == ["same", "new 0", "new 1"]
    assert data_of(server.requests[1])[1] == ["same", "new 0"]
    assert chat.failures[0].reason == "2 of 5 texts are missing"


def test_a_writer_without_answers(tmp_path: Path) -> None:
    with serving(lambda body, n: Reply("no")) as server, chatting(server, tmp_path) as chat:
        assert LlmWriter(chat).write("numbers", 5) == []
        assert len(server.requests) == 3 and len(chat.failures) == 2
        with pytest.raises(PieFastError, match="n is -1"):
            LlmWriter(chat).write("numbers", -1)
        with pytest.raises(PieFastError, match="part is 0"):
            LlmWriter(chat, part=0)


# -------------------------------------------------------------------------------- scores

FIRES = [context(f"Mary {i} John went home", 0, 0, 3.0, 0.5, 0) for i in range(12)]
QUIET = [context(f"it rains {i} in spring", kind="silent") for i in range(8)]


def oracle(wrong: tuple[str, ...] = ()) -> Any:
    """Says yes to John, marked where marks are; the opposite for texts with a word of `wrong`."""

    def script(body: Body, n: int) -> Reply:
        ratings = {}
        for i, item in rated(body).items():
            marked = isinstance(item, list)
            text = "".join(p if isinstance(p, str) else p["marked"] for p in item)
            yes = {"marked": " John"} in item if marked else " John" in text
            ratings[i] = int(yes != any(word in text.split() for word in wrong))
        return Reply(json.dumps({"ratings": ratings}))

    return script


def test_a_good_label_scores_1(tmp_path: Path) -> None:
    with serving(oracle()) as server, chatting(server, tmp_path) as chat:
        scores = LlmScorer(chat).score(feature(1), FIRES, QUIET)
    right = Measure(1.0, n_positive=12, n_negative=8)
    assert scores == {"detection_llm": right, "fuzzing_llm": right}
    assert all(data_of(body)[0] == "word 1" for body in server.requests)


def test_mistakes_count_by_their_kind(tmp_path: Path) -> None:
    with serving(oracle(("it", "3"))) as server, chatting(server, tmp_path) as chat:
        detection = LlmScorer(chat).detection("names", FIRES, QUIET)
    # 1 of 12 is missed; of the silent ones all are taken for others but the one with both words
    assert detection.value == pytest.approx((11 / 12 + 0 / 8) / 2)


@pytest.mark.parametrize("always", [0, 1])
def test_who_always_says_the_same_scores_half(tmp_path: Path, always: int) -> None:
    def script(body: Body, n: int) -> Reply:
        return Reply(json.dumps({"ratings": dict.fromkeys(rated(body), always)}))

    with serving(script) as server, chatting(server, tmp_path) as chat:
        scores = LlmScorer(chat).score(feature(1), FIRES, QUIET)
    assert scores["detection_llm"].value == scores["fuzzing_llm"].value == 0.5


def test_what_fuzzing_marks(tmp_path: Path) -> None:
    with serving(oracle()) as server, chatting(server, tmp_path) as chat:
        LlmScorer(chat).fuzzing("names", FIRES, QUIET)
    items = [item for body in server.requests for item in rated(body).values()]
    marks = [[p["marked"] for p in item if isinstance(p, dict)] for item in items]
    fires = [m for item, m in zip(items, marks, strict=True) if " Mary" in str(item)]
    assert fires == [[" John"]] * 12  # " went" is below 0.3 of the strongest
    quiet = [m for item, m in zip(items, marks, strict=True) if " rains" in str(item)]
    assert [len(m) for m in quiet] == [1] * 8 and len({str(m) for m in quiet}) > 1


def test_the_kinds_come_mixed_and_none_that_was_shown(tmp_path: Path) -> None:
    shown = feature(1, contexts=(FIRES[0], QUIET[0]), explainer="openai:tiny")
    with serving(oracle()) as server, chatting(server, tmp_path, concurrency=1) as chat:
        measure = LlmScorer(chat).score(shown, FIRES, QUIET)["detection_llm"]
    assert (measure.n_positive, measure.n_negative) == (11, 7)
    first = list(rated(server.requests[0]).values())
    kinds = [" Mary" in text for text in first]
    assert kinds != sorted(kinds, reverse=True)
    assert "".join(FIRES[0].tokens) not in first


def test_what_shows_a_rule_was_not_shown_to_it(tmp_path: Path) -> None:
    shown = feature(1, contexts=(FIRES[0], QUIET[0]))
    with serving(oracle()) as server, chatting(server, tmp_path) as chat:
        measure = LlmScorer(chat).score(shown, FIRES, QUIET)["detection_llm"]
    assert (measure.n_positive, measure.n_negative) == (12, 8)


#: as rules write it, with all that a judge must not read
TOLD = 'fires on " John" in 97% of prompts [AP .93, covers 69%]; raises " up"'


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"rule": {"text": '" John"'}}, '" John"'),
        ({"rule": None}, None),
        ({"rule": {"text": '" John"'}, "explainer": "openai:tiny"}, TOLD),
        ({"rule": None, "explainer": "somebody"}, TOLD),
    ],
)
def test_a_judge_reads_what_rules_say_without_how_well_they_hold(
    tmp_path: Path, fields: dict[str, Any], told: str | None
) -> None:
    one = feature(1, label=TOLD, **fields)
    assert description_of(one) == told
    with serving(oracle()) as server, chatting(server, tmp_path) as chat:
        scores = LlmScorer(chat).score(one, FIRES, QUIET)
    assert [data_of(body)[0] for body in server.requests] == [told] * 4 * (told is not None)
    whys = {measure.why for measure in scores.values()}
    assert whys == {None if told else "no rule says where it fires"}


def test_failures_name_the_feature(tmp_path: Path) -> None:
    with serving(lambda body, n: Reply("no")) as server, chatting(server, tmp_path) as chat:
        LlmRater(chat, about="L0:1").rate("a long description", TEXTS[:1])
        LlmWriter(chat, about="L0:1").write("a long description", 1)
    assert [failure.about for failure in chat.failures] == ["L0:1"] * 3


def test_scores_that_cannot_be(tmp_path: Path) -> None:
    with serving(lambda body, n: Reply("no")) as server, chatting(server, tmp_path) as chat:
        scorer = LlmScorer(chat)
        none = scorer.score(feature(1), [], QUIET)
        assert none["detection_llm"].value is None and none["fuzzing_llm"].value is None
        # a reason has no counts in it: reasons are counted themselves
        assert none["fuzzing_llm"].why == "no activating text"
        assert none["fuzzing_llm"].n_negative == 8
        assert scorer.detection("names", FIRES, []).why == "no silent text"
        assert scorer.detection("names", [], []).why == "no activating text"
        assert server.requests == []
        failed = scorer.detection("names", FIRES, QUIET)
        assert failed.value is None and failed.why is not None and failed.n_positive == 0
        assert len(chat.failures) == 2


# ----------------------------------------------------------------------------------- all


def test_a_whole_dry_run_sends_nothing(tmp_path: Path) -> None:
    with serving() as server, chatting(server, tmp_path, dry_run=True) as chat:
        assert LlmExplainer(chat).explain([feature(1)]) == [feature(1)]
        assert LlmRater(chat).rate("numbers", TEXTS) == [None] * 32
        assert LlmWriter(chat).write("numbers", 5) == []
        assert LlmScorer(chat).score(feature(1), FIRES, QUIET)["fuzzing_llm"].value is None
        assert LlmNarrator(chat).narrate([feature(1)]) is None
        assert server.requests == [] and chat.failures == ()
    # the writer may need all of its 3 rounds
    assert chat.budget.requests == 1 + 3 + 3 + 2 * 2 + 1


def test_what_is_not_there_yet_is_expected(tmp_path: Path) -> None:
    """No fewer requests than when the texts are there, and a writer needs all its rounds."""

    def script(body: Body, n: int) -> Reply:
        if '"ratings"' in body["messages"][0]["content"]:
            return Reply()
        return Reply(json.dumps({"texts": [f"new {len(data_of(body)) - 1}"]}))

    with serving(script) as server:
        with chatting(server, tmp_path, dry_run=True) as planned:
            LlmRater(planned).expect("numbers", 32)
            assert planned.budget.requests == 3
            LlmRater(planned).expect("numbers", 0)
            LlmRater(planned).expect("numbers", 32)  # others, though they look alike
            assert planned.budget.requests == 6
            LlmWriter(planned).write("numbers", 25)
            assert planned.budget.requests == 6 + 3 * 3
        with chatting(server, tmp_path) as chat:
            LlmRater(chat).rate("numbers", TEXTS)
            LlmRater(chat).rate("numbers", [f"another {text}" for text in TEXTS])
            LlmWriter(chat).write("numbers", 25)
    assert 6 < chat.budget.requests <= planned.budget.requests
    assert chat.budget.tokens_in <= planned.budget.tokens_in
