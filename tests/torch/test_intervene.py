"""Interventions against plain torch: a transformer written out, and hooks on HuggingFace's."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

import tiny
from pie_fast import FeatureId, times
from pie_fast.attribution import gate_effects
from pie_fast.behaviors import Prompt
from pie_fast.errors import BehaviorError, PieFastError
from pie_fast.interventions import Times
from pie_fast.model import Switches, make_batch
from pie_fast.replacement_model import ReplacementModel, load_model
from plain_gpt2 import PlainClt, PlainGpt2

FREEZES = ("attention", "activations", "norms")

#: what moves a lot: layer, index, positions of a prompt of 10 tokens, value
SEVERAL: list[tuple[int, int, list[int], float | Times]] = [
    (0, 7, [3], 2.5),
    (0, 7, [9], 0.0),
    (0, 30, [1, 2, 3, 4, 5, 6, 7, 8, 9], times(-3.0)),
    (1, 11, [8, 9], 4.0),
    (2, 5, [1, 4, 7], 3.0),
    (2, 40, [5, 6, 7, 8, 9], times(0.5)),
]
WRITTEN: list[Any] = [
    (FeatureId(0, 7), 3, 2.5),
    (FeatureId(0, 7), -1, 0),
    (FeatureId(0, 30), None, times(-3.0)),
    (FeatureId(1, 11), slice(-2, None), np.float32(4.0)),
    (FeatureId(2, 5), slice(1, -1, 3), torch.tensor(3.0)),
    (FeatureId(2, 40), slice(5, 100), times(0.5)),
]
PROMPT = (0, 12, 5, 44, 12, 31, 9, 58, 2, 12)


@pytest.fixture(scope="module")
def plain(tiny_folders: tuple[Path, Path]) -> tuple[PlainGpt2, PlainClt]:
    return PlainGpt2(tiny_folders[0]), PlainClt(tiny_folders[1], tiny.N_LAYERS)


class Written:
    """What the moved features add to each layer's output, put together while a run goes on."""

    def __init__(
        self, clt: PlainClt, moved: list[tuple[int, int, list[int], float | Times]]
    ) -> None:
        self.clt, self.moved = clt, moved
        self.added: dict[int, Tensor] = {}
        self.frozen: list[Tensor] | None = None

    def edit(self, layer: int, read: Tensor, out: Tensor) -> Tensor:
        acts = self.clt.encode(layer, read) if self.frozen is None else self.frozen[layer]
        new = acts.clone()
        for source, feature, positions, value in self.moved:
            if source == layer:
                for t in positions:
                    was = acts[t, feature]
                    new[t, feature] = value.factor * was if isinstance(value, Times) else value
        for feature in (new != acts).any(0).nonzero().flatten().tolist():
            change = (new - acts)[:, feature, None]
            for target in range(layer, self.clt.n_layers):
                more = change * self.clt.row(layer, feature, target)
                self.added[target] = self.added.get(target, 0) + more
        return out + self.added.get(layer, torch.zeros_like(out))


@pytest.mark.parametrize("frozen", list(product([False, True], repeat=3)))
def test_interventions_are_those_of_the_model_written_out(
    tiny_model: ReplacementModel,
    plain: tuple[PlainGpt2, PlainClt],
    frozen: tuple[bool, bool, bool],
) -> None:
    gpt2, clt = plain
    hold = tuple(name for name, on in zip(FREEZES, frozen, strict=True) if on)
    clean = gpt2.run(PROMPT)
    written = Written(clt, SEVERAL)
    if "activations" in hold:
        written.frozen = [clt.encode(layer, x) for layer, x in enumerate(clean.reads)]
    expected = gpt2.run(PROMPT, written.edit, held=clean, hold=hold)
    found = tiny_model.intervene(PROMPT, WRITTEN, logits_at="all", **dict.fromkeys(hold, "freeze"))
    assert found.settings == {
        name: "freeze" if name in hold else "recompute" for name in FREEZES
    } | {"ignore_positions": 1}
    assert float((expected.logits - clean.logits).abs().max()) > 1
    ours, own = torch.tensor(found.logits), torch.tensor(found.original_logits)
    assert torch.allclose(ours.double(), expected.logits, atol=1e-5)
    assert torch.allclose(own.double(), clean.logits, atol=1e-5)
    answer = tiny_model.intervene(PROMPT, WRITTEN, **dict.fromkeys(hold, "freeze"))
    assert np.allclose(answer.logits, found.logits[-1], atol=1e-5)
    assert np.allclose(answer.probabilities, found.probabilities, atol=1e-5)
    check_changes(found.changes, clt, clean.reads, expected.reads, bool(written.frozen))


def check_changes(
    changes: Any, clt: PlainClt, clean: list[Tensor], ran: list[Tensor], frozen: bool
) -> None:
    expected = {
        (layer, index, t): value for layer, index, positions, value in SEVERAL for t in positions
    }
    assert [(c.feature.layer, c.feature.index, c.position) for c in changes] == sorted(expected)
    for c in changes:
        layer, index = c.feature.layer, c.feature.index
        was, now = (float(clt.encode(layer, x[layer])[c.position, index]) for x in (clean, ran))
        now = was if frozen else now
        value = expected[layer, index, c.position]
        new = value.factor * now if isinstance(value, Times) else value
        assert (c.clean, c.current, c.value) == pytest.approx((was, now, new), abs=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_interventions_are_those_of_plain_hooks(
    tiny_model: ReplacementModel, tiny_folders: tuple[Path, Path], architecture: str
) -> None:
    if architecture == "gpt2":
        model = tiny_model
        own: Any = GPT2LMHeadModel.from_pretrained(tiny_folders[0]).eval()
        mlps = [block.mlp for block in own.transformer.h]
    else:
        tokenizer = tiny_model.host.bridge.tokenizer
        model = load_model(
            tiny.random_llama(), str(tiny_folders[1]), tokenizer=tokenizer, device="cpu"
        )
        own = tiny.random_llama().eval()
        mlps = [block.mlp for block in own.model.layers]
    written = Written(PlainClt(tiny_folders[1], tiny.N_LAYERS), SEVERAL)

    def hook(layer: int) -> Any:
        def edit(_module: Any, inputs: Any, output: Tensor) -> Tensor:
            out = written.edit(layer, inputs[0][0].double(), output[0].double())
            return out[None].float()

        return edit

    for layer, mlp in enumerate(mlps):
        mlp.register_forward_hook(hook(layer))
    with torch.no_grad():
        expected = own(torch.tensor([PROMPT])).logits[0]
    found = model.intervene(PROMPT, WRITTEN, logits_at="all")
    assert np.allclose(found.logits, expected.numpy(), atol=1e-5)
    assert np.abs(found.logits - found.original_logits).max() > 0.5


def test_times_one_changes_nothing(tiny_model: ReplacementModel) -> None:
    found = tiny_model.intervene(PROMPT, [(FeatureId(0, i), None, times(1)) for i in range(48)])
    assert np.array_equal(found.logits, found.original_logits)
    assert found.changes == ()


def test_the_last_of_several_on_one_place_holds(tiny_model: ReplacementModel) -> None:
    feature = FeatureId(1, 11)
    both = tiny_model.intervene(PROMPT, [(feature, None, 9.0), (feature, 4, 2.0)])
    parts = [(feature, slice(1, 4), 9.0), (feature, 4, 2.0), (feature, slice(5, None), 9.0)]
    assert np.array_equal(both.logits, tiny_model.intervene(PROMPT, parts).logits)
    other = tiny_model.intervene(PROMPT, [(feature, 4, 2.0), (feature, None, 9.0)])
    assert {c.value for c in other.changes} == {9.0}


def test_all_frozen_is_the_row_of_the_frozen_gradient(tiny_model: ReplacementModel) -> None:
    """Direct effects are linear: the row times the share by which activations change."""
    prompt = Prompt(PROMPT, answer=3, foil=5)
    setup = tiny_model.prepare(make_batch([prompt], tiny_model.device), Switches("zero"))
    row = gate_effects(tiny_model, setup, "logit-diff", gradient="frozen")
    tried = 0
    for layer in range(tiny.N_LAYERS):
        effects, ids = row.effects[layer][0], row.activations[layer].ids.tolist()
        for slot in range(0, len(ids), 5):
            feature = FeatureId(layer, ids[slot])
            found = tiny_model.intervene(
                prompt,
                [(feature, slice(1, None), times(3))],
                **dict.fromkeys(FREEZES, "freeze"),
            )
            moved = found.logits - found.original_logits
            expected = 2 * float(effects[1:, slot].sum())
            assert float(moved[3] - moved[5]) == pytest.approx(expected, abs=1e-4)
            tried += expected != 0
    assert tried > 5


def test_steering_an_inactive_feature_by_its_largest_activation(
    tiny_model: ReplacementModel, plain: tuple[PlainGpt2, PlainClt]
) -> None:
    """`(m * a_max - a) W_dec` at every write layer (METHODS.md 4.5), in every position."""
    gpt2, clt = plain
    feature, largest = FeatureId(0, 12), 1.7
    for m in (-10, 0, 1, 10):
        everywhere = [(0, 12, list(range(1, 10)), m * largest)]
        expected = gpt2.run(PROMPT, Written(clt, everywhere).edit).logits
        found = tiny_model.intervene(PROMPT, [(feature, None, m * largest)], logits_at="all")
        assert np.allclose(found.logits, expected, atol=5e-5)


def test_a_continuation_is_that_of_the_model_written_out(
    tiny_model: ReplacementModel, plain: tuple[PlainGpt2, PlainClt]
) -> None:
    gpt2, clt = plain
    tokens = PROMPT[:5]

    def continued(moved: Any) -> tuple[int, ...]:
        text = tokens
        for _ in range(8):
            now = [(0, 7, list(at(len(text))), value) for at, value in moved]
            logits = gpt2.run(text, Written(clt, now).edit).logits
            text = (*text, int(logits[-1].argmax()))
        return text[len(tokens) :]

    reached: dict[str, tuple[Any, Any]] = {
        "open": (slice(3, None), lambda n: range(3, n)),
        "closed": (slice(3, 5), lambda n: range(3, 5)),
        "later": (slice(7, None), lambda n: range(7, n)),
        "all": (None, lambda n: range(1, n)),
        "one": (-1, lambda n: [4]),
    }
    found = {}
    for name, (positions, at) in reached.items():
        ours = tiny_model.generate(
            tokens, [(FeatureId(0, 7), positions, 30.0)], max_new_tokens=8, stop=-1
        )
        found[name] = ours.new_tokens
        assert ours.new_tokens == continued([(at, 30.0)])
        assert ours.original_new_tokens == continued([])
        assert ours.text == " ".join(map(str, ours.new_tokens))
    assert len(set(found.values())) > 2


def test_draws_depend_on_the_seed_alone(tiny_model: ReplacementModel) -> None:
    def drawn(seed: int, value: float = 5.0) -> Any:
        return tiny_model.generate(
            PROMPT,
            [(FeatureId(0, 7), None, value)],
            max_new_tokens=10,
            temperature=1.0,
            seed=seed,
            stop=-1,
        )

    assert drawn(3).new_tokens == drawn(3).new_tokens
    assert drawn(3).original_new_tokens == drawn(3, value=0.0).original_new_tokens
    assert len({drawn(seed).new_tokens for seed in range(5)}) == 5
    first = drawn(3).original_new_tokens[0]
    stopped = tiny_model.generate(
        PROMPT, [(FeatureId(0, 7), None, 0)], temperature=1.0, seed=3, stop=first
    )
    assert stopped.original_new_tokens == ()


def test_results_can_be_read(tiny_model: ReplacementModel) -> None:
    found = tiny_model.intervene(PROMPT, [(FeatureId(0, 7), None, 30.0)])
    top = found.top(3)
    assert 3 <= len(top) <= 6
    assert [t.after for t in top] == sorted((t.after for t in top), reverse=True)
    assert top[0].token == int(found.logits.argmax())
    assert int(found.original_logits.argmax()) in {t.token for t in top}
    text = str(found)
    assert "before    after" in text and "L0:7" in text and "30.0000" in text
    kept = json.loads(json.dumps(found.to_dict()))
    assert kept["changes"][0] | {"clean": 0, "current": 0} == {
        "layer": 0, "index": 7, "position": 1, "clean": 0, "current": 0, "value": 30.0
    }  # fmt: skip
    many = tiny_model.intervene(PROMPT, [(FeatureId(0, i), None, 1.0) for i in range(10)])
    assert "and 70 more" in str(many)


def test_a_prompt_is_ids_or_a_prompt(tiny_model: ReplacementModel) -> None:
    what = [(FeatureId(0, 7), 3, 30.0)]
    found = tiny_model.intervene(PROMPT, what, logits_at="all")
    same = tiny_model.intervene(torch.tensor(PROMPT), what, logits_at="all")  # type: ignore[arg-type]
    assert np.array_equal(found.logits, same.logits)
    earlier = tiny_model.intervene(Prompt(PROMPT, answer=1, answer_position=4), what)
    assert np.allclose(earlier.logits, found.logits[4], atol=1e-6)
    assert earlier.answer_position == 4


@pytest.mark.parametrize(
    ("interventions", "message"),
    [
        ([], "there are 0 interventions"),
        ([(FeatureId(0, 7), 3)], r"intervention 0: .* is not \(feature, positions, value\)"),
        ([((0, 7), 3, 0)], r"feature is \(0, 7\), must be a FeatureId"),
        ([(FeatureId(3, 7), 3, 0)], "L3:7 is not in the CLT: layers 0 to 2, indices 0 to 47"),
        ([(FeatureId(0, 48), 3, 0)], "L0:48 is not in the CLT"),
        ([(FeatureId(0, 7), 10, 0)], "position 10 of L0:7 is outside the prompt: -10 to 9"),
        ([(FeatureId(0, 7), -11, 0)], "position -11 of L0:7 is outside"),
        ([(FeatureId(0, 7), 0, 0)], "position 0 of L0:7 has no features: .* valid are 1 to 9"),
        ([(FeatureId(0, 7), -10, 0)], "position -10 of L0:7 has no features"),
        ([(FeatureId(0, 7), 1.5, 0)], "an int, a slice or None, not 1.5"),
        ([(FeatureId(0, 7), True, 0)], "an int, a slice or None, not True"),
        ([(FeatureId(0, 7), slice(1.5, None), 0)], "an int, a slice or None, not 1.5"),
        ([(FeatureId(0, 7), slice(None, None, -1), 0)], "step of .* is not at least 1"),
        ([(FeatureId(0, 7), slice(0, 1), 0)], "on a position of the prompt's 10 tokens"),
        ([(FeatureId(0, 7), slice(12, None), 0)], "on a position of the prompt's 10 tokens"),
        ([(FeatureId(0, 7), 3, float("nan"))], "value is nan, must be finite"),
        (
            [(FeatureId(0, 7), 3, 0), (FeatureId(0, 8), 3, times(float("inf")))],
            "intervention 1: factor is inf, must be finite",
        ),
        ([(FeatureId(0, 7), 3, "much")], "value is 'much', must be a number"),
    ],
)
def test_bad_interventions_are_refused(
    tiny_model: ReplacementModel, interventions: Any, message: str
) -> None:
    with pytest.raises(PieFastError, match=message):
        tiny_model.intervene(PROMPT, interventions)


def test_bad_options_and_prompts_are_refused(tiny_model: ReplacementModel) -> None:
    what = [(FeatureId(0, 7), None, 0.0)]
    with pytest.raises(PieFastError, match="attention is 'frozen', must be one of recompute, fre"):
        tiny_model.intervene(PROMPT, what, attention="frozen")
    with pytest.raises(PieFastError, match="logits_at is 'last', must be one of answer, all"):
        tiny_model.intervene(PROMPT, what, logits_at="last")
    with pytest.raises(BehaviorError, match=r"the prompt is text, and .* has no tokenizer"):
        tiny_model.intervene("Then, Mary", what)
    with pytest.raises(BehaviorError, match="prompt: tokens is empty"):
        tiny_model.intervene([], what)
    with pytest.raises(BehaviorError, match="token id 60; the model's ids are 0 to 59"):
        tiny_model.intervene([0, 60], what)
    with pytest.raises(PieFastError, match="max_new_tokens is 31, must be 1 to 30"):
        tiny_model.generate(PROMPT, what, max_new_tokens=31)
    with pytest.raises(PieFastError, match="temperature is -1"):
        tiny_model.generate(PROMPT, what, temperature=-1)
    with pytest.raises(PieFastError, match="on a position of the text's 13 tokens"):
        tiny_model.generate(PROMPT, [(FeatureId(0, 7), slice(13, None), 0.0)], max_new_tokens=4)
