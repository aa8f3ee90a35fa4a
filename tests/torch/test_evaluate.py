"""Figures of a circuit against their definitions, prompt by prompt."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from pie_fast import evaluate
from pie_fast.attribution import Patcher
from pie_fast.errors import BehaviorError, PieFastError
from pie_fast.evaluate import evaluate_circuit, fidelity_curve, measure
from pie_fast.metrics import check_metric, kl_divergence, metric_values
from pie_fast.model import Switches, batches, make_batch
from pie_fast.replacement_model import ReplacementModel
from pie_fast.slots import Slots
from torch_prompts import random_prompts

SWITCHES = Switches("counterfactual")
KEPT = list(range(0, 144, 2))


def test_kl_is_summed_over_the_vocabulary_and_has_a_direction() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1]]).log()
    q = torch.tensor([[0.3, 0.3, 0.4]]).log()
    forward = sum(
        a * math.log(a / b) for a, b in zip((0.7, 0.2, 0.1), (0.3, 0.3, 0.4), strict=True)
    )
    assert kl_divergence(p, q).item() == pytest.approx(forward, rel=1e-6)
    assert kl_divergence(q, p).item() != pytest.approx(forward, rel=1e-2)
    assert kl_divergence(p, p).item() == 0.0
    # Twice the vocabulary, the same distribution twice at half the mass: the same divergence.
    double = torch.cat([p, p], 1), torch.cat([q, q], 1)
    assert kl_divergence(*double).item() == pytest.approx(forward, rel=1e-6)
    extreme = torch.tensor([[0.0, -2000.0]]), torch.tensor([[0.0, -4000.0]])
    assert kl_divergence(*extreme).item() == 0.0


def test_metrics_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    answer, foil = torch.tensor([2]), torch.tensor([0])
    probabilities = torch.softmax(logits, -1)[0]
    found = {
        name: metric_values(name, logits, answer, foil, logits).item()
        for name in ("logit-diff", "logprob", "prob-diff", "kl")
    }
    assert found["logit-diff"] == 2.0
    assert found["logprob"] == pytest.approx(math.log(probabilities[2]), rel=1e-6)
    assert found["prob-diff"] == pytest.approx(float(probabilities[2] - probabilities[0]), rel=1e-6)
    assert found["kl"] == 0.0


def test_kl_is_refused_at_the_clean_run_and_foils_where_they_are_missing() -> None:
    with pytest.raises(BehaviorError, match="gradient 0 at the clean run"):
        check_metric("kl", for_gradient_at_clean=True)
    with pytest.raises(BehaviorError, match="unknown metric 'accuracy', known: logit-diff"):
        check_metric("accuracy")
    with pytest.raises(BehaviorError, match="needs a foil"):
        metric_values("logit-diff", torch.zeros(1, 3), torch.tensor([1]), torch.tensor([-1]))


def test_figures_are_their_definitions(tiny_model: ReplacementModel) -> None:
    prompts = random_prompts(5)
    found = evaluate_circuit(tiny_model, KEPT, prompts, metric="logit-diff", switches=SWITCHES)
    kls, circuit, model, empty, without, agree = [], [], [], [], [], []
    kept, nothing = tiny_model.make_pool(KEPT), tiny_model.make_pool([])
    for prompt in prompts:
        setup = tiny_model.prepare(make_batch([prompt], tiny_model.device), SWITCHES, prompts)
        with torch.no_grad():
            own = setup.logits[0].double()
            logits = tiny_model.run(setup, kept, rest="baseline").logits[0, 0].double()
            bare = tiny_model.run(setup, nothing, rest="baseline").logits[0, 0].double()
            gone = tiny_model.run(setup, kept, torch.zeros(1, len(KEPT))).logits[0, 0].double()
        p, q = torch.softmax(own, 0), torch.softmax(logits, 0)
        kls.append(float((p * (p / q).log()).sum()))
        for values, found_logits in (
            (circuit, logits),
            (model, own),
            (empty, bare),
            (without, gone),
        ):
            values.append(float(found_logits[prompt.answer] - found_logits[prompt.foil]))
        agree.append(int(own.argmax() == logits.argmax()))
    assert found["kl_divergences"] == pytest.approx(kls, abs=1e-6)
    assert found["behavioral_fidelity"] == pytest.approx(1 - min(np.mean(kls), 1), abs=1e-6)
    whole = np.mean(model) - np.mean(empty)
    assert found["faithfulness"] == pytest.approx((np.mean(circuit) - np.mean(empty)) / whole, 1e-4)
    assert found["completeness"] == pytest.approx((np.mean(without) - np.mean(empty)) / whole, 1e-4)
    assert found["top1_agreement"] == np.mean(agree)
    low, high = found["intervals"]["behavioral_fidelity"]
    assert low <= found["behavioral_fidelity"] <= high
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_errors_kept_and_dropped_stand_side_by_side(tiny_model: ReplacementModel) -> None:
    prompts = random_prompts(4)
    found = {
        error: evaluate_circuit(
            tiny_model,
            KEPT,
            prompts,
            metric="logit-diff",
            switches=Switches("counterfactual", error),
        )
        for error in ("keep", "drop")
    }
    for error, other in (("keep", "drop"), ("drop", "keep")):
        mine = found[error]
        assert mine["mean_kl"] == mine[f"error_{error}"]["mean_kl"]
        assert mine[f"error_{other}"]["mean_kl"] == found[other]["mean_kl"]
    assert found["keep"]["mean_kl"] != found["drop"]["mean_kl"]


def test_every_feature_is_the_model_and_none_is_the_empty_circuit(
    tiny_model: ReplacementModel,
) -> None:
    prompts = random_prompts(4)
    whole = evaluate_circuit(
        tiny_model, list(range(144)), prompts, metric="logit-diff", switches=SWITCHES
    )
    assert whole["behavioral_fidelity"] == pytest.approx(1.0, abs=1e-9)
    assert whole["faithfulness"] == pytest.approx(1.0, abs=1e-4)
    assert whole["completeness"] == pytest.approx(0.0, abs=1e-4)
    empty = evaluate_circuit(tiny_model, [], prompts, metric="logit-diff", switches=SWITCHES)
    assert empty["faithfulness"] == pytest.approx(0.0, abs=1e-6)
    assert empty["completeness"] == pytest.approx(1.0, abs=1e-4)


def test_the_other_kl_direction_is_named(tiny_model: ReplacementModel) -> None:
    prompts = random_prompts(3)
    arguments = {"metric": "logit-diff", "switches": SWITCHES}
    ours = evaluate_circuit(tiny_model, KEPT, prompts, **arguments)
    theirs = evaluate_circuit(tiny_model, KEPT, prompts, kl_direction="circuit||model", **arguments)
    for key in ("mean_kl", "kl_divergences"):
        assert theirs[key] == ours[f"{key}_reverse"]
        assert theirs[f"{key}_reverse"] == ours[key]
    assert theirs["behavioral_fidelity"] == 1 - min(ours["mean_kl_reverse"], 1)
    with pytest.raises(PieFastError, match="kl_direction is 'both'"):
        evaluate_circuit(tiny_model, KEPT, prompts, kl_direction="both", **arguments)


def test_curves_take_the_first_features_of_an_order(tiny_model: ReplacementModel) -> None:
    prompts = random_prompts(4)
    curves = fidelity_curve(
        tiny_model,
        {"even": KEPT, "short": KEPT[:10]},
        [5, 10, 40],
        prompts,
        metric="logit-diff",
        switches=SWITCHES,
    )
    assert [p["budget"] for p in curves["even"]] == [5, 10, 40]
    assert [p["budget"] for p in curves["short"]] == [5, 10]
    assert curves["even"][0] == curves["short"][0]
    alone = measure(tiny_model, [KEPT[:40]], prompts, metric="logit-diff", switches=SWITCHES)[0]
    assert curves["even"][2]["mean_kl"] == float(alone.kl.mean())


def test_points_of_curves_have_the_intervals_of_their_circuits(
    tiny_model: ReplacementModel,
) -> None:
    prompts = random_prompts(6)
    how = {"metric": "logit-diff", "switches": SWITCHES, "seed": 3}
    (point,) = fidelity_curve(tiny_model, {"even": KEPT}, [20], prompts, **how)["even"]
    alone = evaluate_circuit(tiny_model, KEPT[:20], prompts, **how)["intervals"]
    assert point["intervals"]["mean_kl"] == pytest.approx(alone["mean_kl"], rel=1e-12)
    assert point["intervals"]["fidelity"] == pytest.approx(alone["behavioral_fidelity"], rel=1e-12)
    for key, (low, high) in point["intervals"].items():
        assert low < point[key] < high
    assert json.loads(json.dumps(point, allow_nan=False)) == point
    how["seed"] = 4
    (other,) = fidelity_curve(tiny_model, {"even": KEPT}, [20], prompts, **how)["even"]
    assert other["mean_kl"] == point["mean_kl"] and other["intervals"] != point["intervals"]


def test_a_single_prompt_has_no_intervals(tiny_model: ReplacementModel) -> None:
    how = {"metric": "logit-diff", "switches": SWITCHES}
    found = evaluate_circuit(tiny_model, KEPT, random_prompts(1), **how)
    assert set(found["intervals"].values()) == {None}
    assert found["intervals"].keys() >= {"behavioral_fidelity", "mean_kl", "faithfulness"}
    (point,) = fidelity_curve(tiny_model, {"even": KEPT}, [20], random_prompts(1), **how)["even"]
    assert point["intervals"] == {"fidelity": None, "mean_kl": None}


def test_progress_counts_to_the_end(tiny_model: ReplacementModel) -> None:
    told: list[tuple[int, int]] = []
    prompts = random_prompts(5)
    how = {"metric": "logit-diff", "switches": SWITCHES, "batch_size": 2}
    evaluate_circuit(
        tiny_model, KEPT, prompts, **how, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(done, 6) for done in range(1, 7)], "three batches, errors kept and dropped"
    patcher = Patcher(
        tiny_model, prompts, tiny_model.make_pool([3, 50, 99]), "logit-diff", SWITCHES, batch_size=2
    )
    told.clear()
    sets = [(0,), (1,), (0, 2)]
    found = patcher.effects(sets, progress=lambda done, total: told.append((done, total)))
    np.testing.assert_array_equal(found, patcher.effects(sets))
    counts = [done for done, _ in told]
    assert counts == sorted(counts) and told[-1] == (20, 20), "the unchanged run is one of them"


def test_batches_are_of_64_prompts_where_the_model_is(
    tiny_model: ReplacementModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def instead(*how: object) -> object:
        asked.append(how)
        return batches(*how)

    monkeypatch.setattr(evaluate, "batches", instead)
    prompts = random_prompts(2)
    measure(tiny_model, [[1]], prompts, metric="logit-diff", switches=SWITCHES)
    assert asked == [(prompts, 64, tiny_model.device)]


def test_nodes_are_gated_at_their_slots(tiny_model: ReplacementModel) -> None:
    prompts, features = random_prompts(3), KEPT[::4]
    slots = Slots.of(prompts)
    nodes = [feature * len(slots) + slot for feature in features for slot in range(len(slots))]
    how = {"metric": "logit-diff", "switches": SWITCHES, "batch_size": 2}
    (wanted,) = measure(tiny_model, [features], prompts, **how)
    every, some = measure(tiny_model, [nodes, nodes[::2]], prompts, slots=slots, **how)
    for name in ("kl", "top1", "metric", "metric_empty", "metric_without"):
        np.testing.assert_allclose(getattr(every, name), getattr(wanted, name), atol=1e-5)
    assert not np.allclose(some.kl, wanted.kl)
    assert not np.allclose(some.metric_without, wanted.metric_without)
