"""Records say what was checked where, and the table never shows an old or failed one as fine."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT / "trust"))

import figures  # noqa: E402
import recording as record  # noqa: E402
import trust_table as table  # noqa: E402

NAMED = ["-c", "user.name=a", "-c", "user.email=a@example.org"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit."""
    root = tmp_path / "repository"
    root.mkdir()
    record.git("init", "-q", root=root)
    commit(root, "code")
    return root


def commit(root: Path, name: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("1")
    record.git("add", name, root=root)
    record.git(*NAMED, "commit", "-q", "-m", name, root=root)


FIGURES = """import os; open(os.environ['RECORD_FIGURES'], 'w').write('{"n": 3}')"""


@pytest.mark.parametrize("code", [0, 3])
def test_a_step_is_recorded_as_it_ended(checkout: Path, tmp_path: Path, code: int) -> None:
    command = [sys.executable, "-c", f"{FIGURES}; import sys; sys.exit({code})"]
    made, ended = record.run("step", command, checkout, tmp_path)
    assert ended == code
    assert made.passed == (code == 0)
    assert made.figures == {"n": 3}
    assert made.commit == record.git("rev-parse", "HEAD", root=checkout)
    assert made.clean
    record.save(made, tmp_path / "records")
    assert record.load(tmp_path / "records") == [made]


def test_figures_of_a_step_that_records_itself_are_kept(checkout: Path, tmp_path: Path) -> None:
    old = record.made("step", "true", {"n": 1}, True, checkout)
    own = record.save(old, tmp_path)
    made, _ = record.run("step", ["true"], checkout, tmp_path)
    assert made.figures == {}, "those of an older run"
    made, _ = record.run(
        "step", ["sh", "-c", f'echo \'{{"figures": {{"n": 2}}}}\' > {own}'], checkout, tmp_path
    )
    assert made.figures == {"n": 2}


def test_a_signal_is_a_failure(checkout: Path, tmp_path: Path) -> None:
    made, ended = record.run("step", ["sh", "-c", "kill -9 $$"], checkout, tmp_path)
    assert not made.passed
    assert ended == 137


def test_changes_that_are_not_committed_are_told(checkout: Path) -> None:
    (checkout / "code").write_text("2")
    made = record.made("step", "true", {}, True, checkout)
    assert not made.clean
    assert "not committed" in table.age(made, 0)


def test_a_file_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match=r"x\.json: no record"):
        record.load(tmp_path)


def test_commits_since_are_counted_but_those_of_records(checkout: Path) -> None:
    made = record.made("fuzz", "true", {"inputs": 12345}, True, checkout)
    assert table.behind(made.commit, checkout) == 0
    commit(checkout, "records/fuzz.json")
    assert table.behind(made.commit, checkout) == 0
    commit(checkout, "more")
    assert table.behind(made.commit, checkout) == 1
    (line,) = [one for one in table.table([made], checkout).splitlines() if "12,345" in one]
    assert "| fuzz |" in line
    assert "stale: 1 commit since" in line
    unknown = replace(made, commit="0" * 40)
    assert "no ancestor" in table.table([unknown], checkout)


def test_steps_without_a_record_and_failed_ones_are_lines(checkout: Path) -> None:
    made = record.made("faults", "true", {}, False, checkout)
    lines = table.table([made], checkout).splitlines()
    assert len(lines) == 2 + len(table.STEPS)
    assert sum("never run" in line for line in lines) == len(table.STEPS) - 1
    assert sum("FAILED" in line for line in lines) == 1


def test_records_of_this_repository_are_read_and_shown() -> None:
    shown = table.table(record.load())
    assert all(f"| {name} |" in shown for name in table.STEPS)


def test_figures_of_campaigns(tmp_path: Path) -> None:
    summary = {"targets": {"a": {}, "b": {}}, "executions": 9, "crashes": 0, "left_out": []}
    printed = f"told\n{json.dumps(summary, indent=2)}\n"
    expected = {"targets": 2, "executions": 9, "crashes": 0, "left_out": 0}
    found = figures.of_fuzz(printed, tmp_path)
    assert {key: found[key] for key in expected} == expected
    assert found["in_all_cpu_s"] > 3600
    past = "| all | 1,000 | 7 |\n| all | 24 | 5 |\n| found by | what |\n| --- | --- |\n| a | b |\n"
    assert figures.fuzzed_in_all(past) == {
        **{"in_all_executions": 1024, "in_all_cpu_s": 12, "found_and_fixed": 1},
    }
    report = tmp_path / "report.json"
    faults = [{"verdict": "survived"}, {"verdict": "survived"}, {"verdict": "refused"}]
    part = {"faults": faults, "not_run": {"disk": "why"}, "commit": "abc"}
    report.write_text(json.dumps(part))
    found = {"faults": 3, "WRONG": 0, "survived": 2, "refused": 1}
    assert figures.of_faults("", report) == {**found, "not_run": "disk", "struck_at": "abc"}


def test_kept_parts_of_a_campaign_are_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And fail where an answer was wrong; what one part left out another may have."""
    monkeypatch.delenv("RECORD_FIGURES", raising=False)
    for name, verdict in (("a", "survived"), ("b", "WRONG")):
        part = {"faults": [{"verdict": verdict}], "not_run": {"disk": name}, "commit": name}
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    names = [str(tmp_path / f"{name}.json") for name in "ab"]
    assert figures.of_faults("", *map(Path, names)) == {
        **{"faults": 2, "WRONG": 1, "survived": 1},
        **{"not_run": "disk", "struck_at": "a b"},
    }
    assert figures.main("faults", *names) == 1
    assert figures.main("faults", names[0]) == 0
    with pytest.raises(SystemExit, match=r"fuzz: no report is kept as .*a\.json"):
        figures.main("fuzz", names[0])
    with pytest.raises(SystemExit, match=r"nowhere\.json"):
        figures.main("faults", str(tmp_path / "nowhere.json"))


BENCHES = """Here.

|  | what | ours | beside | ratio | gate | floor | goal |  | note |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| A | greedy | 1 us | numpy | 1,200x | 100x |  |  | held |  |
| B | scores | 1 s | torch | 3x | 2x | 4x |  | held | why the gate is lower |
| B | scores | 1 s | polars | 5x |  |  |  | told |  |
| B | growth | 1 | T | 1.02 | <= 1.1 |  |  | MISSED |  |

2 of 3 gates held
- missed: growth
"""


def test_figures_of_a_kept_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, handed_on = tmp_path / "table.md", tmp_path / "figures.json"
    kept.write_text(BENCHES)
    monkeypatch.setenv("RECORD_FIGURES", str(handed_on))
    assert figures.main("benches", str(kept)) == 1
    assert json.loads(handed_on.read_text()) == {
        **{"gates_held": 2, "gates": 3},
        "A": "1 of 1 at the floor, least 12.00x",
        "B": "0 of 1 at the floor, least 0.75x",
    }
    kept.write_text(BENCHES.replace("2 of 3", "3 of 3"))
    assert figures.main("benches", str(kept)) == 0
    kept.write_text("")
    with pytest.raises(SystemExit, match="no number of gates"):
        figures.main("benches", str(kept))


def test_every_step_of_the_table_is_run_by_full() -> None:
    full = (ROOT / ".ci/full").read_text("utf-8")
    assert all(f"\n  {name}) echo " in full for name in table.STEPS)
    done = subprocess.run(
        [ROOT / ".ci/full", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no step 'nothing'" in done.stderr
