"""Faithfulness by a rule: the shares are counted again, one prompt and factor at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from pie_fast import FeatureId
from pie_fast.behaviors import Prompt
from pie_fast.interpret.fade import Settings, fade
from pie_fast.interpret.fade.faithfulness import faithfulness_by_generation, faithfulness_by_mass
from pie_fast.interpret.fade.steered import continuations, token_mass
from pie_fast.interpret.rule_faithfulness import N_NEW, rule_faithfulness
from pie_fast.interpret.rules import HeldOut, Rule
from pie_fast.interpret.rules.conditions import Condition, Term
from pie_fast.interpretation import Measure
from pie_fast.model import make_batch
from pie_fast.model.direct import direct_paths
from pie_fast.replacement_model import ReplacementModel
from torch_prompts import random_prompts

FEATURE, A_MAX = FeatureId(0, 12), 1.7
PROMPTS = [prompt.tokens for prompt in random_prompts(6)]


def test_by_mass(tiny_model: ReplacementModel) -> None:
    tokens = list(range(0, 60, 5))
    found = faithfulness_by_mass(tiny_model, FEATURE, A_MAX, PROMPTS, tokens, (-10.0, 10.0))
    masses = token_mass(tiny_model, FEATURE, A_MAX, PROMPTS, tokens, (0.0, -10.0, 10.0))
    assert dict(found.shares) == pytest.approx(masses)
    best = max(masses.values())
    expected = (best - masses[0.0]) / (1 - masses[0.0])
    assert found.measure.value == pytest.approx(expected) and expected > 0
    assert found.best is not None and masses[found.best] == best
    again = faithfulness_by_mass(tiny_model, FEATURE, A_MAX, PROMPTS, tokens, (-10.0, 10.0))
    assert again == found, "deterministic"


def test_by_generation(tiny_model: ReplacementModel) -> None:
    wanted = set(range(0, 60, 6))

    def holds(texts: Sequence[tuple[int, ...]], starts: Sequence[int]) -> list[bool]:
        assert [text[:start] for text, start in zip(texts, starts, strict=True)] == PROMPTS
        return [bool(wanted & {*text[start:]}) for text, start in zip(texts, starts, strict=True)]

    found = faithfulness_by_generation(
        tiny_model, FEATURE, A_MAX, PROMPTS, holds, (-10.0, 1.0, 10.0), n_tokens=3, stop=-1
    )
    n_held = 0
    for factor in (0.0, -10.0, 1.0, 10.0):
        held = 0
        for tokens in PROMPTS:
            alone = tiny_model.generate(
                tokens, [(FEATURE, None, factor * A_MAX)], max_new_tokens=3, stop=-1
            )
            held += any(token in wanted for token in alone.new_tokens)
        assert found.shares[factor] == held / len(PROMPTS)
        n_held += held
    assert len(set(found.shares.values())) > 1
    assert (found.measure.n_positive, found.measure.n_negative) == (n_held, 24 - n_held)


def of_rule(model: ReplacementModel, *terms: Term, promoted: Sequence[int] = ()) -> Measure:
    held_out = HeldOut.of(np.zeros(0, bool), np.zeros(0), np.zeros(0))
    prompts = [Prompt(tokens, answer=0) for tokens in PROMPTS]
    return rule_faithfulness(model, FEATURE, A_MAX, Rule(terms, held_out), promoted, prompts)


def test_a_rule_of_tokens_alone_is_judged_by_their_mass(tiny_model: ReplacementModel) -> None:
    some, others = Condition("token", tuple(range(0, 60, 5))), Condition("token", (3, 4))
    for terms in ([(some,)], [(some,), (others,)]):
        tokens = [v for (condition,) in terms for v in condition.values]
        expected = faithfulness_by_mass(tiny_model, FEATURE, A_MAX, PROMPTS, tokens).measure
        found = of_rule(tiny_model, *terms, promoted=(1, 2))
        assert found == expected and found.value is not None
    assert of_rule(tiny_model, (some,)) != of_rule(tiny_model, (others,)), "the rule decides"


def test_a_rule_of_what_a_text_shows_is_judged_by_generation(tiny_model: ReplacementModel) -> None:
    written = continuations(tiny_model, FEATURE, A_MAX, PROMPTS, n_tokens=N_NEW)
    likely = tuple({one.tokens[0] for some in written.values() for one in some})[::2]
    last = {tokens[-1] for tokens in PROMPTS}
    rules = {
        (Condition("previous_token", (*likely, *last)),): (
            # the last token of a prompt is not written by the model
            lambda old, new: any(token in {*likely, *last} for token in new[:-1])
        ),
        (Condition("promoted", (True,)), Condition("repeat", (True,))): (
            lambda old, new: any(
                token in likely and token in (*old, *new[:i]) for i, token in enumerate(new)
            )
        ),
    }
    for term, true in rules.items():
        shares = {
            m: np.mean([true(old, one.tokens) for old, one in zip(PROMPTS, some, strict=True)])
            for m, some in written.items()
        }
        assert shares[0.0] < max(shares.values())
        found = of_rule(tiny_model, term, promoted=likely)
        expected = (max(shares.values()) - shares[0.0]) / (1 - shares[0.0])
        assert found.value == pytest.approx(expected), term
        assert found.n_positive + found.n_negative == len(PROMPTS) * len(written)


@pytest.mark.parametrize("family", ["role", "earlier IO", "due", "position", "last"])
def test_a_rule_of_roles_or_places_has_none(tiny_model: ReplacementModel, family: str) -> None:
    term = Condition("token", (5,)), Condition(family, (1,))
    found = of_rule(tiny_model, term, promoted=(1, 2, 3))
    assert found.value is None and found.why is not None and "roles or places" in found.why
    assert of_rule(tiny_model, ()).why == "the rule holds at every position"


def test_a_feature_that_is_never_active_has_none(tiny_model: ReplacementModel) -> None:
    by_mass = faithfulness_by_mass(tiny_model, FEATURE, 0.0, PROMPTS, [4])
    by_text = faithfulness_by_generation(tiny_model, FEATURE, 0.0, PROMPTS, lambda *_: True)
    assert by_mass == by_text
    assert by_mass.measure == Measure(None, why="the feature is never active")


def test_all_of_fade_on_a_model_is_scikit_learns(tiny_model: ReplacementModel) -> None:
    """Texts are token ids; what a feature of tokens is about, a function says."""
    rng = np.random.default_rng(0)
    natural = [(0, *rng.integers(1, 60, 8).tolist()) for _ in range(300)]
    encoder = tiny_model.clt.encoder(0)

    def peaks(texts: Sequence[str]) -> np.ndarray:
        prompts = [Prompt((0, *map(int, text.split())), answer=1) for text in texts]
        with torch.no_grad():
            read = direct_paths(tiny_model, make_batch(prompts, tiny_model.device)).reads[0]
            acts = encoder.encode_only(read, torch.tensor([FEATURE.index]))[:, 1:, 0]
        return acts.gather(1, acts.abs().argmax(1)[:, None])[:, 0].numpy()

    texts = [" ".join(map(str, tokens[1:])) for tokens in natural]
    activations = peaks(texts)
    a_max = float(np.abs(activations).max())
    firing = peaks([str(token) for token in range(1, 60)])
    liked = {str(1 + i) for i in np.argsort(-firing)[:20]}

    class Scripted:
        def rate(self, description: str, texts: Sequence[str]) -> list[int | None]:
            found = [len(liked & {*text.split()}) for text in texts]
            return [min(max(n - 1, 0), 2) for n in found]

        def write(self, description: str, n: int) -> list[str]:
            return [" ".join(rng.choice(sorted(liked), 8)) for _ in range(n)]

    written: list[str] = []

    def seen(texts: Sequence[str]) -> np.ndarray:
        written.extend(texts)
        return peaks(texts)

    def steer() -> dict[float, list[str]]:
        found = continuations(
            tiny_model, FEATURE, a_max, PROMPTS, n_tokens=12, temperature=1.0, stop=-1
        )
        return {m: [one.text for one in some] for m, some in found.items()}

    scripted = Scripted()
    found = fade(
        "", activations, text_of=texts.__getitem__, peaks_of=seen, steer=steer, rater=scripted,
        writer=scripted, settings=Settings(n_rated=1200, n_written=30, gate=0),
    )  # fmt: skip
    rating = np.array(scripted.rate("", texts))
    assert found.natural.by_rating == tuple((rating == r).sum() for r in (0, 1, 2))
    used = rating != 1
    signed = 2 * roc_auc_score(rating[used] == 2, activations[used]) - 1
    assert found.measures["responsiveness_llm"].signed == pytest.approx(signed, abs=1e-12)
    precise = average_precision_score(rating[used] == 2, np.sign(signed) * activations[used])
    assert found.measures["purity_llm"].value == pytest.approx(precise, abs=1e-12)
    both = np.concatenate([activations, peaks(written)])
    area = roc_auc_score(np.arange(len(both)) >= 300, both)
    assert found.measures["clarity_llm"].signed == pytest.approx(2 * area - 1, abs=1e-12)
    shares = {m: np.mean([r == 2 for r in scripted.rate("", t)]) for m, t in steer().items()}
    assert shares[0.0] < max(shares.values())
    expected = (max(shares.values()) - shares[0.0]) / (1 - shares[0.0])
    assert found.measures["faithfulness_llm"].value == pytest.approx(expected, abs=1e-12)
