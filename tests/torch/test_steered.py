"""Batched steering is `intervene` and `generate`, one prompt and factor at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pie_fast import FeatureId
from pie_fast.behaviors import Prompt
from pie_fast.cost import Cost
from pie_fast.errors import BehaviorError, CheckpointError, PieFastError
from pie_fast.interpret.fade.steered import FACTORS, continuations, token_mass
from pie_fast.replacement_model import ReplacementModel
from torch_prompts import random_prompts

FEATURE, A_MAX = FeatureId(0, 12), 1.7
PROMPTS = [prompt.tokens for prompt in random_prompts(4)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_continuations_are_those_of_generate_one_by_one(
    tiny_model: ReplacementModel, temperature: float
) -> None:
    factors = (-10.0, 0.0, 3.0)
    found = continuations(
        tiny_model,
        FEATURE,
        A_MAX,
        PROMPTS,
        factors,
        n_tokens=6,
        temperature=temperature,
        seed=5,
        stop=-1,
        batch_size=5,
    )
    assert tuple(found) == factors
    for factor in factors:
        for i, (tokens, ours) in enumerate(zip(PROMPTS, found[factor], strict=True)):
            alone = tiny_model.generate(
                tokens,
                [(FEATURE, None, factor * A_MAX)],
                max_new_tokens=6,
                temperature=temperature,
                seed=5 + i,
                stop=-1,
            )
            assert ours.tokens == alone.new_tokens and ours.text == alone.text
            assert len(ours.tokens) == 6
    assert found[-10.0] != found[3.0]


def test_one_prompt_given_twice_is_continued_in_two_ways(tiny_model: ReplacementModel) -> None:
    found = continuations(
        tiny_model, FEATURE, A_MAX, [PROMPTS[0]] * 2, (0.0, 1.0), n_tokens=8, temperature=1.0
    )
    for one, other in found.values():
        assert one != other


def test_a_row_that_ends_leaves_the_others_going(tiny_model: ReplacementModel) -> None:
    def written(stop: int, batch_size: int = 64) -> list[tuple[int, ...]]:
        found = continuations(
            tiny_model, FEATURE, A_MAX, PROMPTS, (0.0, 10.0), n_tokens=8, stop=stop,
            batch_size=batch_size,
        )  # fmt: skip
        return [one.tokens for some in found.values() for one in some]

    whole = written(-1)
    stop = whole[0][2]
    cut = written(stop)
    assert cut == [t[: t.index(stop)] if stop in t else t for t in whole]
    assert {len(t) for t in cut} >= {len(cut[0]), 8} and len(cut[0]) < 8
    assert written(stop, batch_size=1) == cut


def test_the_mass_of_tokens_is_that_of_interventions(tiny_model: ReplacementModel) -> None:
    tokens = (4, 9, 31, 9)
    before = tiny_model.spent
    found = token_mass(tiny_model, FEATURE, A_MAX, PROMPTS, tokens)
    assert tiny_model.spent - before == Cost(forward=len(FACTORS) * len(PROMPTS))
    assert tuple(found) == FACTORS
    for factor, mass in found.items():
        each = [
            tiny_model.intervene(p, [(FEATURE, None, factor * A_MAX)]).probabilities[[4, 9, 31]]
            for p in PROMPTS
        ]
        assert mass == pytest.approx(float(np.mean([e.sum() for e in each])), abs=1e-5)
    assert len({round(mass, 4) for mass in found.values()}) == len(FACTORS)
    split = token_mass(tiny_model, FEATURE, A_MAX, PROMPTS, tokens, batch_size=3)
    assert split == pytest.approx(found, abs=1e-6)


def test_every_layer_that_it_writes_to_is_steered(tiny_model: ReplacementModel) -> None:
    """A hook on the feature's own layer, or on the last one only, does something else."""
    found = token_mass(tiny_model, FEATURE, A_MAX, PROMPTS, [4], (10.0,))[10.0]
    row = tiny_model.clt.rows(0, tiny_model.clt.b_dec.new_tensor([12]).long())[0]

    def steer_one(layer: int) -> float:
        def write(out: Any, hook: object) -> Any:
            moved = out.clone()
            moved[:, 1:] += 10 * A_MAX * row[layer]
            return moved

        masses = []
        with tiny_model.host.bridge.hooks(fwd_hooks=[(f"blocks.{layer}.hook_mlp_out", write)]):
            for tokens in PROMPTS:
                masses.append(tiny_model(Prompt(tokens, answer=3))[4])
        return float(np.mean(masses))

    for layer in range(3):
        assert abs(steer_one(layer) - found) > 1e-4


def test_the_answer_position_is_read(tiny_model: ReplacementModel) -> None:
    early = Prompt(PROMPTS[0], answer=3, answer_position=2)
    cut = PROMPTS[0][:3]
    masses = [token_mass(tiny_model, FEATURE, A_MAX, [p], [4, 5]) for p in (early, cut)]
    assert masses[0] == pytest.approx(masses[1], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a_max": 0.0}, "a_max of L0:12 is 0.0, must be finite and above 0"),
        ({"a_max": float("nan")}, "a_max of L0:12 is nan"),
        ({"factors": ()}, r"factors are \[\], must be finite, none twice, at least 1"),
        ({"factors": (1.0, 1.0)}, "none twice"),
        ({"factors": (1.0, float("inf"))}, "must be finite"),
        ({"prompts": []}, "there are 0 prompts"),
        ({"batch_size": 0}, "batch_size is 0, must be at least 1"),
        ({"n_tokens": 37}, r"n_tokens is 37, must be 1 to \d\d: the longest prompt has"),
        ({"n_tokens": 0}, "n_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
    ],
)
def test_bad_values_are_refused(
    tiny_model: ReplacementModel, change: dict[str, Any], message: str
) -> None:
    good = {"a_max": A_MAX, "prompts": PROMPTS, "factors": (0.0,), "n_tokens": 1}
    with pytest.raises(PieFastError, match=message):
        continuations(tiny_model, FEATURE, **(good | change))


def test_bad_tokens_prompts_and_features_are_refused(tiny_model: ReplacementModel) -> None:
    for tokens in ([], [60], [-1, 4]):
        with pytest.raises(PieFastError, match="must be at least 1, with ids 0 to 59"):
            token_mass(tiny_model, FEATURE, A_MAX, PROMPTS, tokens)
    with pytest.raises(BehaviorError, match="token id 60"):
        token_mass(tiny_model, FEATURE, A_MAX, [[0, 60]], [4])
    with pytest.raises(CheckpointError, match="L0:48 is not in"):
        token_mass(tiny_model, FeatureId(0, 48), A_MAX, PROMPTS, [4])
