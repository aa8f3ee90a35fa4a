"""Work spread over models that take turns: the bytes and the charges of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pie_fast.behaviors import Behavior
from pie_fast.capture import capture
from pie_fast.conditional import grow
from pie_fast.cost import Cost
from pie_fast.crew import Crew, crew_of
from pie_fast.dump import open_dump
from pie_fast.errors import CheckpointError, PieFastError
from pie_fast.ground import Ground
from pie_fast.model import Batch, Switches
from pie_fast.nodes import NodeGround
from pie_fast.replacement_model import ReplacementModel, load_model
from pie_fast.spread_ground import SpreadGround, SpreadNodeGround
from pie_fast.synergy_pool import measure_synergy
from running import contents
from tiny import random_llama
from torch_prompts import random_prompts
from turns_engine import TurnsEngine

PROMPTS = tuple(random_prompts(21))
BEHAVIOR = Behavior("random", PROMPTS, ())
BASELINES = ("counterfactual", "mean", "zero")


@pytest.fixture(scope="module")
def model(tiny_folders: tuple[Path, Path]) -> ReplacementModel:
    """Of this module alone: its means and its counts are its own."""
    return load_model(*map(str, tiny_folders), device="cpu")


@pytest.fixture(scope="module")
def crew(model: ReplacementModel) -> Iterator[Crew]:
    with crew_of(model, TurnsEngine()) as found:
        yield found


@pytest.fixture(scope="module")
def ids(model: ReplacementModel) -> np.ndarray:
    return Ground(model, PROMPTS, "kl").ids[::3]


def charged(model: ReplacementModel, work: Any) -> tuple[Any, Cost]:
    model._means.clear()
    before = model.spent
    return work(), model.spent - before


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_capture_has_the_same_files(
    model: ReplacementModel, crew: Crew, tmp_path: Path, baseline: str
) -> None:
    found, spent = {}, {}
    for name, workers in (("here", None), ("spread", crew)):
        options: dict[str, Any] = {"switches": Switches(baseline), "batch_size": 4}
        _, spent[name] = charged(
            model,
            lambda name=name, w=workers, o=options: capture(  # type: ignore[misc]
                model, BEHAVIOR, tmp_path / name, crew=w, **o
            ),
        )
        found[name] = contents(tmp_path / name)
    assert found["here"] == found["spread"]
    assert spent["here"] == spent["spread"] != Cost()
    assert open_dump(tmp_path / "spread").n_active > 0


def test_memory_that_runs_out_on_a_worker(
    model: ReplacementModel, crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ReplacementModel.prepare

    def prepare(model: Any, batch: Batch, *args: Any) -> Any:
        if batch.first >= 8 and len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(model, batch, *args)

    monkeypatch.setattr(ReplacementModel, "prepare", prepare)
    said: list[str] = []
    for name, workers in (("here", None), ("spread", crew)):
        to = tmp_path / name
        capture(model, BEHAVIOR, to, batch_size=4, note=said.append, crew=workers)
    assert said == ["out of memory on 4 prompts: from prompt 8 on 2 at a time"] * 2
    assert open_dump(tmp_path / "spread").manifest["batches"] == [[0, 4], [8, 2]]
    assert contents(tmp_path / "here") == contents(tmp_path / "spread")


@pytest.mark.parametrize("estimator", ["exact", "gradient-difference"])
def test_synergies_have_the_same_bytes_and_cost(
    model: ReplacementModel, crew: Crew, tmp_path: Path, estimator: str
) -> None:
    dump = capture(model, BEHAVIOR, tmp_path / "dump")
    measured, spent = {}, {}
    for name, workers in (("here", None), ("spread", crew)):
        matrix, spent[name] = charged(
            model,
            lambda w=workers: measure_synergy(  # type: ignore[misc]
                model,
                PROMPTS[:6],
                dump,
                35,  # blocks of 16, 16 and 3 rows
                rank_by="mean_abs",
                metric="logit-diff",
                switches=Switches("mean"),
                estimator=estimator,
                batch_size=4,
                crew=w,
            ),
        )
        measured[name] = matrix.values.tobytes()
    assert measured["here"] == measured["spread"]
    assert spent["here"] == spent["spread"] != Cost()


def test_a_block_that_was_not_whole_is_measured_again(
    model: ReplacementModel, tmp_path: Path
) -> None:
    dump = capture(model, BEHAVIOR, tmp_path / "dump")
    how: dict[str, Any] = {"rank_by": "mean_abs", "metric": "logit-diff", "switches": Switches()}
    whole = measure_synergy(model, PROMPTS[:6], dump, 20, **how).values
    with pytest.raises(KeyboardInterrupt):
        measure_synergy(model, PROMPTS[:6], dump, 20, progress=_stop, **how)
    seen: list[int] = []
    again = measure_synergy(
        model, PROMPTS[:6], dump, 20, progress=lambda done, _: seen.append(done), **how
    )
    assert seen == [20], "the first 16 rows were there"
    assert again.values.tobytes() == whole.tobytes()


def _stop(done: int, total: int) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize(
    ("plain", "spread"), [(Ground, SpreadGround), (NodeGround, SpreadNodeGround)]
)
def test_a_ground_answers_in_the_same_bytes(
    model: ReplacementModel, crew: Crew, ids: np.ndarray, plain: Any, spread: Any, baseline: str
) -> None:
    given = PROMPTS, "logit-diff", Switches(baseline)
    options: dict[str, Any] = {"candidates": ids, "batch_size": 4}

    def asked(ground: Ground) -> list[bytes]:
        gates = ground.gates([], [1, 5], np.arange(len(ground)))
        answers = [
            ground.ids,
            ground.effects(),
            ground.marginals(gates[1:2]),
            ground.values(gates),
            ground.values(gates, "logit-diff", rest="free"),
        ]
        means = [ground.mean(answer) for answer in answers[1:]]
        return [answer.tobytes() for answer in [*answers, *means]]

    here, spent = charged(model, lambda: asked(plain(model, *given, **options)))
    there, spent_there = charged(model, lambda: asked(spread(crew, *given, **options)))
    assert here == there
    assert spent == spent_there != Cost()


def test_a_circuit_grows_the_same(model: ReplacementModel, crew: Crew, ids: np.ndarray) -> None:
    told: list[int] = []
    options: dict[str, Any] = {"candidates": ids, "batch_size": 4}
    here = grow(Ground(model, PROMPTS, "kl", **options), 9, pairs=3, anchor=0.2)
    ground = SpreadGround(crew, PROMPTS, "kl", **options)
    there = grow(ground, 9, pairs=3, anchor=0.2, progress=lambda done, _: told.append(done))
    assert here.ids.tobytes() == there.ids.tobytes()
    assert here.scores.tobytes() == there.scores.tobytes()
    assert here.cost == there.cost
    assert told[-1] == 9
    ground.values(ground.gates([1], [2]), progress=lambda done, total: told.append(total - done))
    assert told[-1] == 0


def test_each_shard_is_prepared_once_a_worker_and_charged_once(
    model: ReplacementModel, ids: np.ndarray
) -> None:
    engine = TurnsEngine(n_workers=4)
    before = model.spent
    with crew_of(model, engine) as crew:
        ground = SpreadGround(crew, PROMPTS, "kl", candidates=ids, batch_size=4)
        prepared = model.spent - before
        for _ in range(4):
            ground.marginals(ground.gates([]))
    # Once with the prompt, once with its counterfactual.
    assert prepared == Cost(forward=2 * len(PROMPTS))
    assert model.spent - before == prepared + Cost(4 * len(PROMPTS), 4 * len(PROMPTS))
    assert sum(len(held._kept) for held in engine.made) > 6, "some on several workers"


def test_workers_need_a_model_that_they_can_load(
    tiny_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")), unk_token="a"
    )
    made = load_model(random_llama(), str(tiny_folders[1]), device="cpu", tokenizer=tokenizer)
    with pytest.raises(PieFastError, match="made of objects"), crew_of(made, TurnsEngine()):
        raise AssertionError("there is no crew")


def test_workers_refuse_another_clt(model: ReplacementModel) -> None:
    from dataclasses import replace

    assert model.source is not None
    other = replace(model.source, identity="sha256:of another one")
    with pytest.raises(CheckpointError, match="must be sha256:of another one"):
        other.load()
    again = replace(model.source, name="its name").load()
    assert (again.host.name, again.clt.identity) == ("its name", model.clt.identity)
    assert again.source is not None and Path(again.source.model).is_absolute()
