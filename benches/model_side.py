"""Rows of the table about a whole model: the reranking as pytest runs it, and what is not measured.

The rest of the model side is told as not measured, so that its absence is not read as success.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from record import HELD, MISSED, TOLD, Record, times

HERE = Path(__file__).parent
#: The goals of the reranking's cases; gates are the ratios that `bench_reranking.py` asserts.
GATES = {"toy": 2.0, "toy-batched": 20.0, "demo": 3.0}
GOALS = {"demo": "5x"}
NOT_MEASURED = (
    ("time outside the model, 1B-shaped, GPU", "", "< 15%", "no GPU; bench_gpu.py measures it"),
)


def records(folder: Path, full: bool) -> list[Record]:
    """One record for each reranking case and estimator, then what nothing here measures."""
    print("\n== bench_reranking.py", flush=True)
    file = folder / "reranking.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"]
    command += [str(HERE / "bench_reranking.py"), "-k", "ratio", f"--junitxml={file}"]
    command += ["-o", "junit_family=xunit1"]  # the other family knows no properties
    # One torch thread: on shared cores its pool waits for whoever holds the other one.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command + ["--full"] * full, env=environment, cwd=HERE.parent)
    rows = [
        Record("model", what, "", peer, goal=goal, note=f"not measured: {why}")
        for what, peer, goal, why in NOT_MEASURED
    ]
    if not file.exists():
        broken = Record("model", "bench_reranking.py", "", "", state=MISSED, note="broke")
        return [broken, *rows]
    cases = ElementTree.parse(file).iter("testcase")
    size = "pool 200, K=50" if full else "pool 24, K=12"
    return [record for case in cases for record in reranking(case, size)] + rows


def reranking(case: ElementTree.Element, size: str) -> list[Record]:
    """The exact ratio of a case, and the ratios and agreement of its other estimators."""
    name = case.get("name", "").split("[")[-1].rstrip("]")
    told = {p.get("name", ""): float(p.get("value", "nan")) for p in case.iter("property")}
    what, peer = f"whole reranking, {name}, {size}", "pie_fast.reference"
    broken = case.find("failure") is not None or case.find("error") is not None
    ratio = told.pop("ratio", None)
    record = Record(
        "model", what, "", peer, times(ratio), times(GATES.get(name)), goal=GOALS.get(name, "")
    )
    record.state = MISSED if broken else HELD
    if broken and ratio is None:
        record.note = "broke before it was measured"
    found = [record]
    for key, value in told.items():
        if key.startswith("ratio "):
            rho = told.get(key.replace("ratio", "spearman"))
            note = "" if rho is None else f"another estimate; rank correlation {rho:.3f}"
            exact = Record("model", f"{what}, {key[6:]}", "", peer, times(value), goal="50x")
            exact.state, exact.note = TOLD, note
            found.append(exact)
    return found
