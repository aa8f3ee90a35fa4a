"""`pie-fast report` and `pie-fast compare`: what a person looks at after a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from running import DEMO_BUDGET as K
from running import run_cli, written


def test_a_report_is_written_in_either_form(demo_run: Path, tmp_path: Path) -> None:
    page, text = tmp_path / "report.html", tmp_path / "report.md"
    assert run_cli("report", demo_run, "-o", page).stdout == f"written to {page}\n"
    assert page.read_text().lower().startswith("<!doctype html>")
    said = run_cli("report", demo_run, "-o", text, "--json").json
    assert said == {"report": str(text), "format": "md"}
    first = written(demo_run / "result.json")["features"][0]
    for path in (page, text):
        assert f"L{first['layer']}:{first['index']}" in path.read_text()
    run_cli("report", demo_run, "-o", page).refused("report.html exists", "--force")
    run_cli("report", tmp_path, "-o", tmp_path / "x.html").refused("result.json")


def test_a_page_that_cannot_be_written_is_named(demo_run: Path, tmp_path: Path) -> None:
    for more in ((), ("--force",)):
        said = run_cli("report", demo_run, "-o", tmp_path, *more)
        said.refused(f"{tmp_path} is a folder; give the name of a file")
        assert "--force" not in said.stderr
    page = tmp_path / "none" / "page.html"
    said = run_cli("report", demo_run, "-o", page)
    said.refused(f"{page}: No such file or directory")
    assert ".tmp" not in said.stderr


def test_two_runs_are_compared(demo_run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(demo_run, tmp_path / "other"))
    content = written(other / "result.json")
    features = content["features"]
    features[0]["rank"], features[2]["rank"] = 2, 0
    features[-1]["index"] = features[-1]["index"] + 1
    kl = content["evaluation"]["kl_divergences"]
    content["evaluation"]["kl_divergences"] = [0.5 * value for value in kl]
    content["settings"]["seed"] = 3
    (other / "result.json").write_text(json.dumps(content))
    found = run_cli("compare", demo_run, other, "--json").json
    assert (found["shared"], found["jaccard"]) == (K - 1, (K - 1) / (K + 1))
    assert [one["rank_second"] - one["rank_first"] for one in found["moved"][:2]] == [2, -2]
    assert found["settings"] == {"seed": [0, 3]}
    mean = sum(kl) / len(kl)
    expected = min(mean, 1) - min(mean / 2, 1)
    low, high = found["interval"]
    assert low <= found["difference"] <= high
    assert abs(found["difference"] - expected) < 1e-12
    said = run_cli("compare", demo_run, other)
    assert said.code == 0, said.stderr
    for part in (f"kept by both: {K - 1} of {K} and {K}", "95%", "+2", "only in 1", "seed"):
        assert part in said.stdout
    same = run_cli("compare", demo_run, demo_run)
    assert "Jaccard 1.000" in same.stdout and "moved" not in same.stdout


def test_what_is_no_run_is_named(demo_run: Path, tmp_path: Path) -> None:
    run_cli("compare", demo_run, tmp_path).refused(tmp_path, "is not a run")
    (tmp_path / "result.json").write_text("{")
    run_cli("compare", tmp_path, demo_run).refused("result.json", "not valid JSON")
    (tmp_path / "result.json").write_text("{}")
    run_cli("compare", tmp_path, demo_run).refused("the first result lists no features")
    result = written(demo_run / "result.json")
    for name in ("settings", "evaluation", "features"):
        (tmp_path / "result.json").write_text(json.dumps({**result, name: "damaged"}))
        said = run_cli("compare", demo_run, tmp_path)
        said.refused(tmp_path / "result.json", f"{name} is 'damaged', must be ")
