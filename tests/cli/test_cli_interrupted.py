"""Ctrl-C, a full disk and a failure in the middle: nothing half, and `--resume` goes on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pie_fast import SynergyMatrix, open_dump, storage
from running import Outcome, World, contents, run_cli, write_behavior

#: a shard has 256 prompts: one and some, two and some
N_ENOUGH, N_MANY = 280, 560
SHARD = "shard-00000.safetensors"


@pytest.fixture(scope="module")
def enough(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A behaviour of more than a shard."""
    return write_behavior(tmp_path_factory.mktemp("enough") / "b.jsonl", N_ENOUGH, 0)


@pytest.fixture(scope="module")
def undisturbed(world: World, enough: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed") / "dump"
    assert run_cli(*capture_command(world, enough, path)).code == 0
    return path


def capture_command(world: World, behavior: Path, out: Path) -> tuple[object, ...]:
    sources = (*world.model_and_clt, "--behavior", behavior)
    return ("capture", *sources, "--out", out, "--batch-size", 48)


def press_ctrl_c(when: Callable[[], bool], *args: object) -> Outcome:
    """Run `pie-fast ARGS` as a process of its own and send it SIGINT when `when` says so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pie_fast.cli", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        while not when():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        pressed = time.monotonic()
        out, err = process.communicate(timeout=60)
        assert time.monotonic() - pressed < 15
    finally:
        process.kill()
        process.wait()
    return Outcome.of(process.returncode, out, err)


STOPPED = Outcome(130, "", "pie-fast: stopped\n")


def test_ctrl_c_during_capture(world: World, tmp_path: Path) -> None:
    many, out = write_behavior(tmp_path / "many.jsonl", N_MANY, 0), tmp_path / "dump"
    command = capture_command(world, many, out)
    assert press_ctrl_c((out / SHARD).exists, *command, "--json") == STOPPED
    stopped = open_dump(out)
    assert not stopped.complete
    assert stopped.n_prompts % 256 == 0
    stopped.verify()
    told = run_cli("inspect", out)
    assert "incomplete" in told.stderr
    run_cli(*command).refused(out, "--force", "--resume")
    assert run_cli(*command, "--resume").code == 0
    undisturbed = tmp_path / "undisturbed"
    assert run_cli(*capture_command(world, many, undisturbed)).code == 0
    assert contents(out) == contents(undisturbed)


def test_ctrl_c_during_synergy(world: World, dump: Path) -> None:
    command = ("synergy", dump, *world.model_and_clt, "--estimator", "exact", "--pool", 96)
    partial, whole = (dump / f"synergy.{kind}" for kind in ("partial.safetensors", "safetensors"))
    stopped = press_ctrl_c(partial.exists, *command)
    assert (stopped.code, stopped.stdout) == (130, "")
    assert stopped.stderr.endswith("pie-fast: stopped\n")
    assert partial.exists()
    assert not whole.exists()
    run_cli("select", dump, "-k", 3, "--method", "fap-synergy").refused("pie-fast synergy")
    assert run_cli(*command).code == 0
    assert not partial.exists()
    resumed = SynergyMatrix.load(whole)
    assert run_cli(*command, "--force").code == 0
    np.testing.assert_array_equal(resumed.values, SynergyMatrix.load(whole).values)


def test_ctrl_c_during_discover(world: World, tmp_path: Path) -> None:
    behavior, out = write_behavior(tmp_path / "b.jsonl", 16, 256), tmp_path / "run"
    sources = (*world.model_and_clt, "--behavior", behavior)
    command = ("discover", *sources, "-k", 10, "--json")
    whole = run_cli(*command, "--out", tmp_path / "whole").json
    dump = tmp_path / "run.partial" / "dump"
    measured, rows = dump / "synergy.safetensors", dump / "synergy.partial.safetensors"

    def evaluating() -> bool:
        """From here on everything is evaluation: of the circuit, then of the curve."""
        return measured.exists() and not rows.exists()

    assert press_ctrl_c(evaluating, *command, "--out", out) == STOPPED
    assert not out.exists()
    run_cli(*command, "--out", out).refused("run.partial", "--resume", "--force")
    result = run_cli(*command, "--out", out, "--resume").json
    for name in ("timings", "model_calls", "folder", "command"):
        del result[name], whole[name]
    assert result == whole
    assert contents(out / "dump") == contents(tmp_path / "whole" / "dump")
    assert not (tmp_path / "run.partial").exists()


def test_ctrl_c_anywhere_is_one_line(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for name in ("interpret_features", "fidelity_curve"):
        with monkeypatch.context() as patch:
            patch.setattr(f"pie_fast.discover.{name}", pressed)
            command = ("discover", *world.sources, "-k", 3, "--out", tmp_path / "run", "--resume")
            assert run_cli(*command) == STOPPED
    assert run_cli(*command).code == 0


class FullDisk:
    """Lets `n` files be written and then none."""

    def __init__(self, n: int) -> None:
        self.n_left, self.replacing = n, storage.replacing

    def __call__(self, path: Path) -> Any:
        self.n_left -= 1
        if self.n_left < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return self.replacing(path)


@pytest.mark.parametrize("n_files", [0, 1, 2, 3, 4])
def test_full_disk_during_capture(
    world: World,
    enough: Path,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_files: int,
) -> None:
    out = tmp_path / "dump"
    command = capture_command(world, enough, out)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "replacing", FullDisk(n_files))
        run_cli(*command).refused(out, "No space left on device")
    if n_files > 1:
        open_dump(out).verify()
    assert not list(out.glob(".*.tmp"))
    assert run_cli(*command, "--resume").code == 0
    assert contents(out) == contents(undisturbed)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files there")
def test_file_that_grows_too_large(
    world: World, enough: Path, undisturbed: Path, tmp_path: Path
) -> None:
    import resource

    out = tmp_path / "dump"
    command = capture_command(world, enough, out)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
        run_cli(*command).refused("File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert set(contents(out)) == {"manifest.json", "prompts.safetensors"}
    assert open_dump(out).n_prompts == 0
    assert run_cli(*command, "--resume").code == 0
    assert contents(out) == contents(undisturbed)


def test_full_disk_during_synergy(
    world: World, dump: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("synergy", dump, *world.model_and_clt, "--pool", 40)
    before = contents(dump)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "replacing", FullDisk(1))
        run_cli(*command).refused("synergy.partial", "No space left on device")
    partial = "synergy.partial.safetensors"
    assert set(contents(dump)) == {*before, partial}
    assert run_cli(*command).code == 0
    assert set(contents(dump)) == {*before, "synergy.safetensors"}


@pytest.mark.parametrize(
    ("module", "stage"),
    [
        ("selecting", "capture"),
        ("selecting", "measure_synergy"),
        ("discover", "evaluate_circuit"),
        ("discover", "write_json"),
    ],
)
def test_a_failure_under_force_leaves_the_old_run(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, stage: str
) -> None:
    out = tmp_path / "run"
    command = ("discover", *world.sources, "--method", "fap-synergy", "--no-curve", "--out", out)
    assert run_cli(*command, "-k", 3).code == 0
    before = contents(out)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"pie_fast.{module}.{stage}", full)
        run_cli(*command, "-k", 4, "--force").refused("No space left")
    assert contents(out) == before
    # Where nothing was begun, nothing is left.
    assert (tmp_path / "run.partial").exists() == (stage != "capture")
    assert run_cli(*command, "-k", 4, "--force").code == 0
    assert len(json.loads((out / "result.json").read_text())["features"]) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_failure_of_the_last_rename_brings_the_old_run_back(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    command = ("discover", *world.sources, "--no-curve", "--out", out)
    assert run_cli(*command, "-k", 3).code == 0
    before = contents(out)
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name == "run.partial":
            raise OSError(errno.EIO, "Input/output error", str(self))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fails)
        run_cli(*command, "-k", 4, "--force").refused("Input/output error")
    assert contents(out) == before
    # A machine that goes down between the two renames leaves the old run beside.
    out.rename(tmp_path / "run.replaced")
    run_cli(*command, "-k", 4, "--resume").refused(out, "--force")
    assert contents(out) == before


def test_a_failure_under_force_leaves_the_old_dump(
    world: World, dump: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(dump)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "replacing", FullDisk(2))
        run_cli("capture", *world.sources, "--out", dump, "--force").refused("No space left")
    assert contents(dump) == before
