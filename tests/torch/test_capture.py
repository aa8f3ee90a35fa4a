"""Capture when memory runs out, when it is stopped, and while another thread writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pie_fast import open_dump
from pie_fast.behaviors import Behavior
from pie_fast.behind import Behind
from pie_fast.capture import capture
from pie_fast.cuts import Cuts
from pie_fast.errors import DumpError, PieFastError
from pie_fast.model import Batch, Switches, is_out_of_memory
from pie_fast.replacement_model import ReplacementModel, load_model
from running import contents
from torch_prompts import random_prompts

#: a shard has 256 prompts: two and some
N_PROMPTS, BATCH = 560, 48
BEHAVIOR = Behavior("random", tuple(random_prompts(N_PROMPTS)), ())
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


class Memory:
    """A device on which a batch fits if `fits(first prompt, prompts)` says so."""

    def __init__(self, patch: pytest.MonkeyPatch, fits: Callable[[int, int], bool]) -> None:
        self.ran: list[tuple[int, int]] = []
        real = ReplacementModel.prepare

        def prepare(model: Any, batch: Batch, *args: Any) -> Any:
            if not fits(batch.first, len(batch)):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            self.ran.append((batch.first, len(batch)))
            return real(model, batch, *args)

        patch.setattr(ReplacementModel, "prepare", prepare)


def run(model: ReplacementModel, path: Path, **options: Any) -> dict[str, bytes]:
    capture(model, BEHAVIOR, path, **{"batch_size": BATCH, **options})
    return contents(path)


@pytest.fixture(scope="module")
def undisturbed(
    tiny_model: ReplacementModel, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    return run(tiny_model, tmp_path_factory.mktemp("undisturbed") / "dump")


def test_every_batch_is_prepared_once(
    tiny_model: ReplacementModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(monkeypatch, lambda first, n: True)
    before = tiny_model.spent
    run(tiny_model, tmp_path / "dump")
    assert [first for first, _ in memory.ran] == list(range(0, N_PROMPTS, BATCH))
    spent = tiny_model.spent - before
    # The prompt, its counterfactual, the empty circuit, and the run that is differentiated.
    assert (spent.forward, spent.backward) == (4 * N_PROMPTS, N_PROMPTS)


def test_a_first_batch_that_does_not_fit(
    tiny_model: ReplacementModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with monkeypatch.context() as patch:
        memory = Memory(patch, lambda first, n: n <= 12)
        found = run(tiny_model, tmp_path / "dump", note=said.append)
    assert {n for _, n in memory.ran} == {12, N_PROMPTS % 12}
    assert said == [
        f"out of memory on {n} prompts: from prompt 0 on {n // 2} at a time" for n in (48, 24)
    ]
    dump = open_dump(tmp_path / "dump")
    assert (dump.manifest["batch_size"], dump.manifest["batches"]) == (BATCH, [[0, 12]])
    # But for what was asked for, it is the capture of batches of 12.
    direct = run(tiny_model, tmp_path / "direct", batch_size=12)
    for name in found:
        assert name == "manifest.json" or found[name] == direct[name]


def test_memory_that_runs_out_later_loses_nothing(
    tiny_model: ReplacementModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, bytes],
) -> None:
    with monkeypatch.context() as patch:
        memory = Memory(patch, lambda first, n: n <= (BATCH if first < 480 else 20))
        found = run(tiny_model, tmp_path / "dump")
    assert [first for first, _ in memory.ran] == sorted({first for first, _ in memory.ran})
    assert json.loads(found["manifest.json"])["batches"] == [[0, BATCH], [480, 12]]
    for name in ("shard-00000.safetensors",):
        assert found[name] == undisturbed[name]
    dump = open_dump(tmp_path / "dump")
    dump.verify()
    assert dump.complete
    # The command that was stopped brings the same bytes, whether or not memory runs out again.
    with monkeypatch.context() as patch:
        Memory(patch, lambda first, n: n <= (BATCH if first < 480 else 20))
        with pytest.raises(KeyboardInterrupt):
            run(tiny_model, tmp_path / "again", progress=stop_at(540))
    partial = json.loads((tmp_path / "again" / "manifest.json").read_text())
    assert partial["n_prompts"] == 512
    assert partial["batches"] == [[0, BATCH], [480, 12]]
    assert run(tiny_model, tmp_path / "again", resume=True) == found


def stop_at(prompt: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= prompt:
            raise KeyboardInterrupt

    return progress


def test_a_prompt_that_does_not_fit_alone(
    tiny_model: ReplacementModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Memory(patch, lambda first, n: first < 300)
        with pytest.raises(PieFastError, match=r"prompt 3\d\d alone, \d+ tokens, .* cpu has left"):
            run(tiny_model, tmp_path / "dump")
    assert open_dump(tmp_path / "dump").n_prompts == 256


def test_other_errors_are_not_taken_for_it(
    tiny_model: ReplacementModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(ReplacementModel, "prepare", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(tiny_model, tmp_path / "dump")
    assert not is_out_of_memory(ValueError("out of memory"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 80 bytes"))


def test_another_model_does_not_resume(
    tiny_model: ReplacementModel, tiny_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, tmp_path / "dump", progress=stop_at(400))
    other = load_model(*map(str, tiny_folders), device="cpu")
    with torch.no_grad():
        head = other.host.bridge.original_model.get_output_embeddings().weight
        head.copy_(1.5 * head)
    other.host.name = tiny_model.host.name
    with pytest.raises(DumpError, match=r"prompts\.safetensors: metric_clean: differs"):
        run(other, tmp_path / "dump", resume=True)
    assert open_dump(tmp_path / "dump").n_prompts == 256


def test_metrics_of_a_stopped_capture_are_those_of_a_whole_one(
    tiny_model: ReplacementModel, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, tmp_path / "dump", progress=stop_at(400))
    stopped = open_dump(tmp_path / "dump").prompts
    assert run(tiny_model, tmp_path / "dump", resume=True) == undisturbed
    whole = open_dump(tmp_path / "dump").prompts
    for name in ("metric_clean", "metric_baseline"):
        np.testing.assert_array_equal(getattr(stopped, name), getattr(whole, name)[:256])
    assert whole.metric_clean.std() > 0


def test_an_error_of_the_thread_that_writes_comes_out(
    tiny_model: ReplacementModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("pie_fast.dump_writer.write_safetensors", full)
    with pytest.raises(OSError, match="No space left"):
        run(tiny_model, tmp_path / "dump")


def test_behind_runs_one_call_at_a_time_in_order() -> None:
    seen: list[int] = []
    with Behind() as behind:
        for n in range(5):
            behind.call(seen.append, n)
            assert len(seen) >= n, "the call before is done"
    assert seen == list(range(5))


def test_behind_hands_errors_on_and_lets_a_call_finish() -> None:
    seen: list[int] = []
    with pytest.raises(ZeroDivisionError), Behind() as behind:
        behind.call(lambda: 1 // 0)
        behind.call(seen.append, 1)
    assert seen == []
    with pytest.raises(KeyboardInterrupt), Behind() as behind:
        behind.call(seen.append, 2)
        raise KeyboardInterrupt
    assert seen == [2]
    with pytest.raises(ZeroDivisionError), Behind() as behind:
        behind.call(lambda: 1 // 0)


def test_cuts() -> None:
    cuts = Cuts(32)
    assert cuts.halve(96) == 16 and cuts.halve(96) == 8 and cuts.halve(104) == 4
    assert cuts.spans == [[0, 32], [96, 8], [104, 4]]
    assert cuts.smallest == 4
    assert [cuts.start(p) for p in (0, 31, 95, 96, 103, 104, 109)] == [0, 0, 64, 96, 96, 104, 108]
    assert Cuts(32, cuts.spans).spans == cuts.spans


@pytest.mark.parametrize(
    "recorded",
    [7, [], [[0]], [[1, 4]], [[0, 4], [0, 2]], [[0, 4], [8, 0]], [[0, True]], [[0, 1.5]]],
)
def test_cuts_that_no_capture_recorded(recorded: Any) -> None:
    with pytest.raises(DumpError, match="manifest: batches is"):
        Cuts(32, recorded)


@NO_CUDA
def test_cuda_agrees_with_the_cpu(
    tiny_model: ReplacementModel, tiny_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    there = load_model(*map(str, tiny_folders), device="cuda")
    mine, theirs = (
        capture(model, BEHAVIOR, tmp_path / name, batch_size=BATCH)
        for name, model in (("cpu", tiny_model), ("cuda", there))
    )
    for name in ("metric_clean", "metric_baseline"):
        close = getattr(mine.prompts, name), getattr(theirs.prompts, name)
        np.testing.assert_allclose(*close, rtol=1e-3, atol=1e-4)
    assert set(mine.top_k(30)[0].tolist()) ^ set(theirs.top_k(30)[0].tolist()) <= set(
        mine.top_k(40)[0].tolist()[28:]
    ), "but for features that are as good as tied"
    np.testing.assert_allclose(mine.score(), theirs.score(), rtol=1e-2, atol=1e-4)
    assert theirs.manifest["device"] == "cuda"


@NO_CUDA
def test_memory_of_a_cuda_device_that_really_runs_out(
    tiny_folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = load_model(*map(str, tiny_folders), device="cuda")
    real = ReplacementModel.prepare

    def greedy(model: Any, batch: Batch, *args: Any) -> Any:
        if len(batch) > 8:
            torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
        return real(model, batch, *args)

    monkeypatch.setattr(ReplacementModel, "prepare", greedy)
    dump = capture(there, BEHAVIOR, tmp_path / "dump", batch_size=BATCH)
    assert dump.manifest["batches"] == [[0, 6]]


def test_means_are_measured_in_batches_that_fit(
    tiny_model: ReplacementModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean baseline looks at all prompts before the first batch: it halves with the batches."""
    behavior = Behavior("mean", tuple(random_prompts(10)), ())
    run, widest = tiny_model.host.run, 4

    def limited(tokens: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if len(tokens) > widest:
            raise torch.OutOfMemoryError(f"{len(tokens)} rows")
        return run(tokens, *args, **options)

    monkeypatch.setattr(tiny_model.host, "run", limited)
    monkeypatch.setattr(tiny_model, "_means", {})
    notes: list[str] = []
    dump = capture(
        tiny_model,
        behavior,
        tmp_path / "dump",
        switches=Switches("mean"),
        batch_size=8,
        note=notes.append,
    )
    assert dump.n_prompts == 10
    assert dump.manifest["batches"] == [[0, 4]]
    assert "out of memory on 8 prompts" in notes[0]
