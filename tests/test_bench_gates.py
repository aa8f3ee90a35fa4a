"""The gates of the benchmarks fail when they should: on made-up records and programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pie_fast import _native

BENCHES = Path(__file__).parents[1] / "benches"


@pytest.fixture
def benches(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The folder of benchmarks as scripts see it."""
    monkeypatch.syspath_prepend(str(BENCHES))
    import counting

    return counting


def states(found: dict[str, float], recorded: dict[str, float], most: float = 1.03) -> list[str]:
    import counting

    return [one.state for one in counting.judge("t", found, recorded, most, "instructions")]


def test_counts_are_held_to_their_record(benches: ModuleType) -> None:
    recorded = {"avx2: score": 1_000_000.0, "portable: score": 2_000_000.0}
    assert states(dict(recorded), recorded) == ["held", "held"]
    assert states(recorded | {"avx2: score": 1_029_000.0}, recorded) == ["held", "held"]
    assert states(recorded | {"avx2: score": 1_031_000.0}, recorded) == ["MISSED", "held"]
    assert states({"avx2: score": 1_000_000.0}, recorded) == ["held", "MISSED"]
    assert states(recorded | {"avx2: new": 1.0}, recorded) == ["MISSED", "held", "held"]


def test_counts_of_another_compiler_are_told(benches: ModuleType) -> None:
    """But none may vanish."""
    recorded = {"a": 100.0, "b": 100.0}
    judged = benches.judge("t", {"a": 200.0}, recorded, 1.03, "instructions", "rustc 1.2")
    assert [one.state for one in judged] == ["told", "MISSED"]
    assert judged[0].note == "recorded with rustc 1.2"


def test_the_record_names_every_kernel_of_both_kinds(benches: ModuleType) -> None:
    import instructions
    import start_instructions

    recorded = json.loads((BENCHES / "instructions.json").read_text())
    wanted = {f"{k}: {name}" for k in instructions.KERNELS for name in instructions.WORK}
    assert set(recorded["kernels"]) == wanted
    assert set(recorded["start"]) == set(start_instructions.starts(Path("dump")))
    assert recorded["rustc"].startswith("rustc ")
    assert all(n > 10_000 for n in recorded["kernels"].values())
    assert all(1.0 < ratio < 100 for ratio in recorded["start"].values())


SUITE = """
import sys, time
sys.path.insert(0, {benches!r})
from harness import Peer, suite
with suite() as run:
    if {kind!r} == "ratio":
        peer = Peer(lambda: time.sleep(2e-3), gate={gate})
        run.compare("two sleeps", lambda: time.sleep(1e-3), {{"peer": peer}},
                    equal=lambda a, b: a == b, seconds=0.05)
    elif {kind!r} == "growth":
        run.growth("squares", lambda n: float(n * n), [10, 100], {gate})
    elif {kind!r} == "memory":
        peer = Peer(lambda: None, gate={gate})
        run.figures("memory", "MiB", 10.0, {{"peer": (15.0, peer)}}, "B")
    elif {kind!r} == "broken":
        raise MemoryError
"""


@pytest.mark.parametrize(
    ("kind", "gate", "held"),
    [
        *[("ratio", 1.2, True), ("ratio", 20, False)],
        *[("growth", 2.1, True), ("growth", 1.9, False)],
        *[("memory", 1.4, True), ("memory", 1.6, False)],
        *[("nothing", 1, False), ("broken", 1, False)],
    ],
)
def test_a_missed_gate_fails_its_row(
    benches: ModuleType, tmp_path: Path, kind: str, gate: float, held: bool
) -> None:
    """What `table.py` makes of a suite, and the exit code of the suite itself."""
    if held and _native.build_profile == "debug":
        pytest.skip("no gate holds of a debug build")
    import table

    script = tmp_path / "suite.py"
    script.write_text(SUITE.format(benches=str(BENCHES), kind=kind, gate=gate))
    records = table.run_suite(str(script), [], tmp_path)
    assert [record.state for record in records] == ["held" if held else "MISSED"]
    assert table.verdict(records).startswith(f"{int(held)} of 1 gates held")


def test_the_table_of_ci_is_written_and_fails_where_one_gate_is_missed(
    benches: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import table

    def made_up(script: str, options: list[str], folder: Path) -> list[table.Record]:
        state = table.MISSED if script == "bench_top.py" else table.HELD
        return [table.Record("A", script, "1 ms", "peer", ratio="2x", gate="3x", state=state)]

    monkeypatch.setattr(table, "run_suite", made_up)
    monkeypatch.setattr(sys, "argv", ["table.py", "--ci", "-o", str(tmp_path / "bench.md")])
    with pytest.raises(SystemExit) as error:
        table.main()
    assert error.value.code == 1
    written = (tmp_path / "bench.md").read_text()
    assert "`python benches/table.py --ci`" in written
    assert "missed: bench_top.py, peer: 2x (gate 3x)" in written
