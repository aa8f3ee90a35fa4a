"""What is said of a circuit, by hand: ratios, intervals, and which of the arguments go where."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pie_fast import evaluate
from pie_fast.evaluate import Measured, evaluate_circuit, fidelity_curve, measure, summarize
from pie_fast.model import Switches
from pie_fast.replacement_model import ReplacementModel
from torch_prompts import random_prompts

SWITCHES = Switches("counterfactual")


def measured(**changes: list[float]) -> Measured:
    values = {
        "kl": [0.1, 0.3, 0.2, 0.6],
        "kl_reverse": [0.2, 0.5, 0.4, 2.9],
        "top1": [1.0, 0.0, 1.0, 1.0],
        "metric": [2.0, 1.0, 3.0, 0.5],
        "metric_model": [4.0, 2.0, 5.0, 1.0],
        "metric_empty": [1.0, -1.0, 0.5, 0.25],
        "metric_without": [1.5, 0.0, 1.0, 0.5],
    }
    return Measured(**{name: np.array(row) for name, row in {**values, **changes}.items()})


def test_figures_by_hand() -> None:
    found = summarize(measured())
    intervals = found.pop("intervals")
    whole = 3.0 - 0.1875
    assert found == {
        "behavioral_fidelity": pytest.approx(0.7),
        "mean_kl": pytest.approx(0.3),
        "mean_kl_reverse": pytest.approx(1.0),
        "top1_agreement": 0.75,
        "metric_circuit": 1.625,
        "metric_model": 3.0,
        "metric_empty": 0.1875,
        "faithfulness": pytest.approx((1.625 - 0.1875) / whole),
        "completeness": pytest.approx((0.75 - 0.1875) / whole),
        "kl_divergences": [0.1, 0.3, 0.2, 0.6],
        "kl_divergences_reverse": [0.2, 0.5, 0.4, 2.9],
    }
    assert intervals.keys() == found.keys() - {"kl_divergences", "kl_divergences_reverse"}
    turned = summarize(measured(), kl_direction="circuit||model")
    assert (turned["mean_kl"], turned["kl_divergences"][3]) == (pytest.approx(1.0), 2.9)
    assert turned["behavioral_fidelity"] == pytest.approx(0.0)
    # A divergence above 1 is no worse than 1.
    far = summarize(measured(kl=[3.0, 2.0, 4.0, 1.0]))
    assert far["behavioral_fidelity"] == 0.0 and far["intervals"]["behavioral_fidelity"] == [0, 0]


def test_intervals_are_the_middle_95_percent_of_1000_draws() -> None:
    one = measured()
    found = summarize(one, seed=5)["intervals"]
    draws = np.random.default_rng(5).integers(0, 4, (1000, 4))
    for name, ratio in (("faithfulness", one.metric), ("completeness", one.metric_without)):
        empty = one.metric_empty[draws].mean(1)
        spread = (ratio[draws].mean(1) - empty) / (one.metric_model[draws].mean(1) - empty)
        assert found[name] == pytest.approx(np.quantile(spread, [0.025, 0.975]).tolist())
    spread = one.top1[draws].mean(1)
    assert found["top1_agreement"] == np.quantile(spread, [0.025, 0.975]).tolist()
    assert summarize(one)["intervals"] == summarize(one, seed=0)["intervals"] != found


def test_ratios_of_nothing_have_no_value() -> None:
    found = summarize(measured(metric_empty=[4.0, 2.0, 5.0, 1.0]))
    assert found["faithfulness"] is None and found["completeness"] is None
    assert found["intervals"]["faithfulness"] is None
    assert found["intervals"]["mean_kl"] is not None
    # Of two prompts one has no effect to divide by: some draws have only that one.
    pair = {name: [1.0, 2.0] for name in vars(measured())}
    found = summarize(measured(**pair | {"metric_empty": [1.0, 0.0]}))
    assert found["faithfulness"] is not None and found["intervals"]["faithfulness"] is None
    unknown = summarize(measured(metric_without=[np.nan] * 4))
    assert unknown["completeness"] is None and unknown["faithfulness"] is not None
    assert unknown["intervals"]["completeness"] is None


def test_all_that_is_said_of_a_circuit(tiny_model: ReplacementModel) -> None:
    kept, prompts, others = list(range(0, 144, 3)), random_prompts(3), random_prompts(4, seed=8)
    switches = Switches("mean", "drop")
    how: dict[str, Any] = {"metric": "prob-diff", "mean_of": others}
    found = evaluate_circuit(tiny_model, kept, prompts, switches=switches, seed=2, **how)
    beside = {error: found.pop(f"error_{error}") for error in ("keep", "drop")}
    for error, brief in beside.items():
        there = Switches("mean", error)
        (alone,) = measure(tiny_model, [kept], prompts, switches=there, **how)
        said = summarize(alone, seed=2)
        full = {k: v for k, v in said.items() if not k.startswith("kl_divergences")}
        assert brief == full
        if error == "drop":
            assert found == said | {
                "metric": "prob-diff",
                "switches": switches.to_dict(),
                "ignore_positions": tiny_model.ignore_positions,
                "kl_direction": "model||circuit",
                "n_prompts": 3,
                "unit": "feature",
                "n_units": 48,
                "n_features": 48,
            }
    # The baseline's mean is of `mean_of`, of the prompts themselves where there are none.
    own = [
        measure(tiny_model, [kept], prompts, metric="prob-diff", switches=switches, mean_of=of)[0]
        for of in ((), prompts)
    ]
    np.testing.assert_array_equal(own[0].kl, own[1].kl)
    assert own[0].kl.mean() != found["mean_kl"]


def test_batches_and_circuits_beside_each_other_change_nothing(
    tiny_model: ReplacementModel,
) -> None:
    prompts, circuits = random_prompts(5), [[1, 2, 3], list(range(100)), []]
    how: dict[str, Any] = {"metric": "logit-diff", "switches": SWITCHES}
    told: list[tuple[int, int]] = []
    together = measure(
        tiny_model,
        circuits,
        prompts,
        batch_size=2,
        completeness=False,
        progress=lambda done, total: told.append((done, total)),
        **how,
    )
    assert told == [(done, 9) for done in range(1, 10)]
    for circuit, one in zip(circuits, together, strict=True):
        (alone,) = measure(tiny_model, [circuit], prompts, **how)
        for name in ("kl", "kl_reverse", "top1", "metric", "metric_model", "metric_empty"):
            np.testing.assert_allclose(getattr(one, name), getattr(alone, name), atol=1e-5)
        assert np.isnan(one.metric_without).all() and not np.isnan(alone.metric_without).any()


def test_curves_hand_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    # The second has no effect to divide by.
    found = [measured(), measured(metric_empty=[4.0, 2.0, 5.0, 1.0])]

    def instead(model: object, circuits: object, prompts: object, **how: Any) -> list[Measured]:
        asked.update(how, model=model, circuits=circuits, prompts=prompts)
        return found

    monkeypatch.setattr(evaluate, "measure", instead)
    model, mean_of, slots, progress = (SimpleNamespace() for _ in range(4))
    prompts = [SimpleNamespace()] * 4
    how: dict[str, Any] = {
        "metric": "logprob",
        "switches": SWITCHES,
        "mean_of": mean_of,
        "batch_size": 7,
        "slots": slots,
        "progress": progress,
    }
    curves = fidelity_curve(model, {"a": [4, 8, 6]}, [2, 3, 4], prompts, **how)  # type: ignore[arg-type]
    circuits = [[4, 8], [4, 8, 6]]
    assert asked == how | {
        "model": model,
        "circuits": circuits,
        "prompts": prompts,
        "completeness": False,
    }
    first, second = curves["a"]
    assert (first["budget"], second["budget"]) == (2, 3)
    assert first["faithfulness"] == pytest.approx(1.4375 / 2.8125)
    assert second["faithfulness"] is None
    assert (first["fidelity"], first["mean_kl"]) == (pytest.approx(0.7), pytest.approx(0.3))
    of_summary = summarize(found[0])["intervals"]
    assert first["intervals"]["mean_kl"] == pytest.approx(of_summary["mean_kl"])
    assert first["intervals"]["fidelity"] == pytest.approx(of_summary["behavioral_fidelity"])
