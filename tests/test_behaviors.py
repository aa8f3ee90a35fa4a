"""Behaviours: the two splits, the generators' promises, and every error message."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pie_fast.behaviors import Behavior, Prompt, known_behaviors, load_behavior
from pie_fast.behaviors.docstring import Docstring
from pie_fast.behaviors.drafting import Draws, fill
from pie_fast.behaviors.ioi import IOI
from pie_fast.behaviors.registry import TASKS
from pie_fast.data import demo_model_path
from pie_fast.errors import BehaviorError

NAMES = known_behaviors()
P = Prompt(tokens=(0, 1, 2), answer=5, foil=6, counterfactual=(0, 1, 3))


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(demo_model_path())


@pytest.fixture(scope="session")
def letters() -> Any:
    """A tokenizer with one token a byte: no word is a single token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def words(tokenizer: Any, prompt: Prompt, ids: tuple[int, ...] | None = None) -> dict[str, str]:
    """What stands at each role."""
    assert prompt.roles is not None
    pairs = zip(prompt.roles, ids or prompt.tokens, strict=True)
    return {role: tokenizer.decode([token]).strip() for role, token in pairs if role}


# ---- the classes


def test_importing_behaviors_imports_no_torch() -> None:
    code = "import sys, pie_fast.behaviors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_properties_named_by_the_protocol() -> None:
    other = replace(P, tokens=(0, 1, 9))
    b = Behavior("b", (P,), (other,))
    assert b.behaviors == (P,)
    assert b.test_set == (other,)
    assert b.has_counterfactuals
    assert not Behavior("b", (replace(P, counterfactual=None),)).has_counterfactuals


@pytest.mark.parametrize(("given_at", "stored"), [(-1, 2), (-3, 0), (0, 0), (2, 2)])
def test_answer_position_is_resolved(given_at: int, stored: int) -> None:
    assert replace(P, answer_position=given_at).answer_position == stored


def test_lists_and_numpy_integers_become_plain_ints() -> None:
    p = Prompt(np.array([0, 1, 2]), np.int32(5), np.uint8(6), np.array([0, 1, 3]))  # type: ignore
    assert p == P and type(p.answer) is int and type(p.tokens[0]) is int
    assert Behavior("b", (p,)).hash == Behavior("b", (P,)).hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": (), "counterfactual": ()}, "tokens is empty; a prompt needs at least one"),
        ({"answer_position": 3}, r"answer_position 3 is outside \[-3, 2\]"),
        ({"answer_position": -4}, r"answer_position -4 is outside \[-3, 2\]"),
        ({"counterfactual": (1, 2)}, "counterfactual has 2 tokens where the prompt has 3"),
        ({"roles": ("S1",)}, "roles has 1 entries where the prompt has 3 tokens"),
        ({"tokens": (0, -7, 1)}, "tokens holds token id -7; ids are >= 0"),
        ({"answer": -1}, "answer holds token id -1"),
        ({"answer": 1.5}, "answer holds 1.5, which is not an integer token id"),
        ({"foil": True}, "foil holds True, which is not an integer"),
        ({"foil": 5}, "foil 5 is the answer itself"),
        ({"foil": None}, "foil is missing; metric 'logit-diff' compares"),
    ],
)
def test_bad_prompts_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BehaviorError, match=rf"behavior 'b', held_out prompt 1: .*{message}"):
        Behavior("b", (P,), (P, replace(P, **change)))


def test_empty_behavior_and_unknown_metric() -> None:
    with pytest.raises(BehaviorError, match="behavior 'b' is empty; it needs at least one prompt"):
        Behavior("b", ())
    known = "unknown metric 'loss'; known: logit-diff, logprob, prob-diff, kl"
    with pytest.raises(BehaviorError, match=known):
        Behavior("b", (P,), metric="loss")


def test_metrics_without_a_foil() -> None:
    bare = replace(P, foil=None)
    for metric in ("logprob", "kl"):
        assert Behavior("b", (bare,), metric=metric).metric == metric
    with pytest.raises(BehaviorError, match="metric 'prob-diff' compares the answer with a foil"):
        Behavior("b", (bare,), metric="prob-diff")


def test_take() -> None:
    b = Behavior("b", (P, P, P), (P, P))
    assert (len(b.take(2, 1).selection), len(b.take(2, 1).held_out)) == (2, 1)
    with pytest.raises(BehaviorError, match="cannot take 4 selection prompts of 'b'; valid: 0 to"):
        b.take(4, 0)
    with pytest.raises(BehaviorError, match="cannot take -1 held_out prompts of 'b'; valid: 0 to"):
        b.take(1, -1)


def test_check_fits() -> None:
    b = Behavior("b", (P,))
    b.check_fits(vocab_size=7, context_length=3)
    with pytest.raises(BehaviorError, match="prompt 0: 3 tokens exceed the model's context of 2"):
        b.check_fits(7, 2)
    with pytest.raises(BehaviorError, match="foil holds token id 6; the model's ids are 0 to 5"):
        b.check_fits(6, 3)


def test_hash_follows_content_and_not_descriptions() -> None:
    b = Behavior("b", (P,), (P,))
    assert b.hash == Behavior("b", (replace(P, text="t", roles=(None, "A", "END")),), (P,)).hash
    others = [
        replace(b, name="c"),
        replace(b, seed=1),
        replace(b, metric="logprob"),
        replace(b, selection=(P, P), held_out=()),
        replace(b, selection=(replace(P, answer=4),)),
        replace(b, selection=(replace(P, foil=4),)),
        replace(b, selection=(replace(P, counterfactual=None),)),
        replace(b, selection=(replace(P, answer_position=0),)),
    ]
    assert len({b.hash, *(o.hash for o in others)}) == len(others) + 1


# ---- what every generator promises


@pytest.mark.parametrize("name", NAMES)
def test_generated_behavior(name: str, tokenizer: Any) -> None:
    b = load_behavior(name, tokenizer=tokenizer, seed=3)
    prompts = (*b.selection, *b.held_out)
    assert len(b.selection) == len(b.held_out) >= 80
    assert len({p.tokens for p in prompts}) == len(prompts), "a prompt is in both splits, or twice"
    assert b.metric == TASKS[name].metric
    for p in prompts:
        assert p.text is not None and p.counterfactual is not None and p.roles is not None
        assert list(p.tokens) == tokenizer(p.text)["input_ids"]
        assert p.tokens[0] == tokenizer.bos_token_id
        assert len(p.counterfactual) == len(p.tokens) == len(p.roles)
        assert p.counterfactual != p.tokens
        assert p.answer_position == len(p) - 1 and p.roles[-1] is not None
        for token in (p.answer, p.foil):
            assert tokenizer(p.text + tokenizer.decode([token]))["input_ids"] == [*p.tokens, token]
    b.check_fits(len(tokenizer), tokenizer.model_max_length)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bytes(name: str, tokenizer: Any) -> None:
    first = load_behavior(name, tokenizer=tokenizer, n_prompts=40, seed=7)
    again = load_behavior(name, tokenizer=tokenizer, n_prompts=40, seed=7)
    assert first == again and first.hash == again.hash
    assert first.hash != load_behavior(name, tokenizer=tokenizer, n_prompts=40, seed=8).hash


def test_draws_are_the_documented_stream() -> None:
    # frozen: a change here changes every published behaviour
    draws = Draws("pie_fast/ioi/0")
    assert [draws.index(100) for _ in range(6)] == [43, 45, 30, 5, 73, 90]
    assert Draws("x").sample("abcdef", 4) == ["d", "a", "b", "f"]


@given(st.text(max_size=8), st.integers(0, 20), st.data())
def test_sample_is_distinct(seed: str, n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    drawn = Draws(seed).sample(range(n), k)
    assert len(drawn) == len(set(drawn)) == k
    assert set(drawn) <= set(range(n))


@given(st.text("abc ", max_size=5), st.text("xyz", min_size=1, max_size=5))
def test_fill_remembers_where_fields_went(literal: str, value: str) -> None:
    text, spans = fill(literal + "{A} and {B}", {"A": value, "B": "q"}, {"B": ""})
    assert text == f"{literal}{value} and q"
    assert [(text[a:b], role) for a, b, role in spans] == [(value, "A")]


def test_held_out_stays_when_selection_grows(tokenizer: Any) -> None:
    small = load_behavior("ioi", tokenizer=tokenizer, n_selection=8, n_held_out=16)
    large = load_behavior("ioi", tokenizer=tokenizer, n_selection=64, n_held_out=16)
    assert small.held_out == large.held_out
    assert large.take(8, 16) == small


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"n_prompts": 11}, (6, 5)),
        ({"n_prompts": 10, "n_selection": 3}, (3, 7)),
        ({"n_prompts": 10, "n_held_out": 3}, (7, 3)),
        ({"n_prompts": 10, "n_selection": 6, "n_held_out": 4}, (6, 4)),
        ({"n_selection": 5}, (5, 128)),
        ({"n_held_out": 0}, (128, 0)),
    ],
)
def test_sizes(sizes: dict[str, int], expected: tuple[int, int], tokenizer: Any) -> None:
    b = load_behavior("ioi", tokenizer=tokenizer, **sizes)  # type: ignore[arg-type]
    assert (len(b.selection), len(b.held_out)) == expected


# ---- the tasks one by one


@pytest.mark.parametrize("name", ["ioi", "ioi-wide"])
def test_ioi(name: str, tokenizer: Any) -> None:
    b = load_behavior(name, tokenizer=tokenizer, n_selection=96, n_held_out=128)
    abba = 0
    for p in (*b.selection, *b.held_out):
        clean = words(tokenizer, p)
        other = words(tokenizer, p, p.counterfactual)
        assert clean["S1"] == clean["S2"] != clean["IO"]
        assert tokenizer.decode([p.answer]) == f" {clean['IO']}"
        assert tokenizer.decode([p.foil]) == f" {clean['S1']}"
        assert len({other["IO"], other["S1"], other["S2"], clean["IO"], clean["S1"]}) == 5
        assert p.roles is not None and p.roles[-1] == "END" and clean["END"] == "to"
        abba += p.roles.index("IO") < p.roles.index("S1")
    assert abba == 112, "ABBA and BABA are not balanced"
    used = {tokenizer.decode([p.answer]).strip() for p in b.selection}
    assert used <= set(TASKS[name].names)  # type: ignore[attr-defined]
    assert len(used) == 5 if name == "ioi" else len(used) > 30


@pytest.mark.parametrize("kind", IOI.kinds)
def test_ioi_counterfactuals(kind: str, tokenizer: Any) -> None:
    b = load_behavior("ioi", tokenizer=tokenizer, n_prompts=16, counterfactual=kind)
    assert b.counterfactual == kind
    for p in b.selection:
        clean, other = words(tokenizer, p), words(tokenizer, p, p.counterfactual)
        io, s = clean["IO"], clean["S1"]
        got = (other["IO"], other["S1"], other["S2"])
        match kind:
            case "abc":
                assert len({*got, io, s}) == 5
            case "s2_io_flip":
                assert got == (io, s, io)
            case "s1_io_flip":
                assert got == (s, io, s)
            case "random_names":
                assert got[1] == got[2] != got[0] and not {io, s} & {*got}


def test_docstring_whitespace_golden() -> None:
    task = Docstring(arguments=tuple("abcdefghijk"), functions=("run",), nouns=tuple("ABCDEFG"))
    draft = task.draft(Draws("golden"), 0)
    p1, p2, a, b, c, s1 = (draft.text[i:j] for i, j, _ in draft.spans[1:7])
    d = [ch for ch in draft.text if ch.isupper()]
    assert draft.text == (
        f"\ndef run(self, {p1}, {p2}, {a}, {b}, {c}, {s1}):\n"
        f'    """{d[0]} {d[1]} {d[2]}\n'
        "\n"
        f"    :param {a}: {d[3]} {d[4]}\n"
        f"    :param {b}: {d[5]} {d[6]}\n"
        "    :param"
    )
    assert draft.answer == f" {c}"
    assert draft.text.splitlines()[2][:7] == '    """'


@pytest.mark.parametrize("name", ["docstring", "docstring-wide"])
def test_docstring(name: str, tokenizer: Any) -> None:
    b = load_behavior(name, tokenizer=tokenizer, n_prompts=64)
    for p in b.selection:
        clean, other = words(tokenizer, p), words(tokenizer, p, p.counterfactual)
        assert clean["A_def"] == clean["A_doc"] and clean["B_def"] == clean["B_doc"]
        assert tokenizer.decode([p.answer]) == f" {clean['C_def']}"
        arguments = {clean[r] for r in ("P1", "P2", "A_def", "B_def", "C_def", "S1")}
        assert len(arguments) == 6
        assert tokenizer.decode([p.foil]).strip() in arguments - {clean["C_def"]}
        fresh = {other[r] for r in ("A_def", "B_def", "C_def", "A_doc", "B_doc")}
        assert len(fresh) == 5 and not fresh & arguments
        same = ("MET", "P1", "P2", "S1", "END")
        assert [clean[r] for r in same] == [other[r] for r in same]


@pytest.mark.parametrize("kind", ["random_def", "random_doc"])
def test_docstring_corrupts_one_side(kind: str, tokenizer: Any) -> None:
    b = load_behavior("docstring", tokenizer=tokenizer, n_prompts=8, counterfactual=kind)
    for p in b.selection:
        clean, other = words(tokenizer, p), words(tokenizer, p, p.counterfactual)
        changed = {role for role in clean if clean[role] != other[role]}
        side = {"A_def", "B_def", "C_def"} if kind == "random_def" else {"A_doc", "B_doc"}
        assert changed == side


def test_greater_than(tokenizer: Any) -> None:
    for p in load_behavior("greater-than", tokenizer=tokenizer, n_prompts=64).selection:
        start = int(words(tokenizer, p)["YY"])
        assert int(tokenizer.decode([p.foil])) <= start < int(tokenizer.decode([p.answer]))
        assert p.counterfactual is not None
        assert words(tokenizer, p, p.counterfactual)["YY"] == "01"


def test_induction(tokenizer: Any) -> None:
    for p in load_behavior("induction", tokenizer=tokenizer, n_prompts=64).selection:
        assert p.counterfactual is not None and p.roles is not None
        assert p.tokens[-1] in p.tokens[:-1]
        assert p.answer == p.tokens[p.tokens.index(p.tokens[-1]) + 1]
        assert p.foil in p.tokens
        assert p.counterfactual[:-1] == p.tokens[:-1]
        assert p.counterfactual[-1] not in p.tokens


def test_successor_and_pronoun(tokenizer: Any) -> None:
    days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Monday"]
    for p in load_behavior("successor", tokenizer=tokenizer, n_prompts=64).selection:
        word = words(tokenizer, p)["X"]
        if word in days:
            assert tokenizer.decode([p.answer]).strip() == days[days.index(word) + 1]
    pronouns = load_behavior("pronoun", tokenizer=tokenizer, n_prompts=64).selection
    answers = [tokenizer.decode([p.answer]) for p in pronouns]
    assert answers.count(" she") == answers.count(" he") == 16


# ---- errors


def test_unknown_names(tokenizer: Any) -> None:
    with pytest.raises(BehaviorError, match=r"unknown behavior 'iio'; known: ioi, ioi-wide, .*jso"):
        load_behavior("iio", tokenizer=tokenizer)
    with pytest.raises(BehaviorError, match="unknown counterfactual 'abd' of 'ioi'; known: abc"):
        load_behavior("ioi", tokenizer=tokenizer, counterfactual="abd")
    with pytest.raises(BehaviorError, match="unknown metric 'x'; known: logit-diff"):
        load_behavior("ioi", tokenizer=tokenizer, n_prompts=4, metric="x")
    with pytest.raises(BehaviorError, match="unknown counterfactual 'nope'; known: abc"):
        replace(IOI(), counterfactual="nope").draft(Draws(""), 0)
    with pytest.raises(BehaviorError, match="unknown counterfactual 'nope'; known: random_random"):
        replace(Docstring(), counterfactual="nope").draft(Draws(""), 0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_prompts": -1}, "n_prompts -1 is negative"),
        ({"n_selection": -2}, "n_selection -2 is negative"),
        ({"n_held_out": -3}, "n_held_out -3 is negative"),
        ({"n_prompts": 4, "n_selection": 5}, "n_selection 5 and n_held_out -1 do not add up"),
        ({"n_prompts": 9, "n_selection": 5, "n_held_out": 5}, "do not add up to n_prompts 9"),
        ({"n_prompts": 0}, "behavior 'ioi' is empty"),
    ],
)
def test_bad_sizes(sizes: dict[str, int], message: str, tokenizer: Any) -> None:
    with pytest.raises(BehaviorError, match=message):
        load_behavior("ioi", tokenizer=tokenizer, **sizes)  # type: ignore[arg-type]


def test_too_many_prompts(tokenizer: Any) -> None:
    with pytest.raises(BehaviorError, match=r"'successor' ran out of distinct prompts at 1\d\d of"):
        load_behavior("successor", tokenizer=tokenizer, n_prompts=500)


def test_generators_need_a_tokenizer() -> None:
    with pytest.raises(BehaviorError, match="'ioi' is generated and needs the model's tokenizer"):
        load_behavior("ioi")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ioi", "only 0 of 5 names are single tokens .* at least 5 are needed"),
        ("docstring", "only 0 of 12 argument names are single tokens .* at least 11"),
        ("greater-than", "only 0 of 99 years split into two tokens .* at least 10"),
        ("successor", "only 0 of 35 days, months and number words are single tokens"),
        ("induction", "only 0 of 60 words are single tokens .* at least 10"),
        ("pronoun", "' she' is not a single token"),
    ],
)
def test_tokenizer_without_the_words(name: str, message: str, letters: Any) -> None:
    with pytest.raises(BehaviorError, match=message):
        load_behavior(name, tokenizer=letters)


def test_tokenizer_that_ends_with_a_special_token(tokenizer: Any) -> None:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="$A <|bos|>", special_tokens=[("<|bos|>", 0)]
    )
    ends = PreTrainedTokenizerFast(tokenizer_object=backend)
    with pytest.raises(BehaviorError, match=r"ends 'a b' with a special token \(id 0\)"):
        load_behavior("ioi", tokenizer=ends)


class Slow:
    """A tokenizer without offsets."""

    is_fast = False

    def __init__(self, fast: Any) -> None:
        self._fast = fast

    def __call__(self, text: str, **options: Any) -> Any:
        return self._fast(text, **options)


def test_roles_without_offsets(tokenizer: Any) -> None:
    for name in ("ioi", "docstring", "greater-than"):
        fast = load_behavior(name, tokenizer=tokenizer, n_prompts=4)
        assert load_behavior(name, tokenizer=Slow(tokenizer), n_prompts=4) == fast
