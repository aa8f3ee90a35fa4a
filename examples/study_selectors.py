"""Every selector on every behaviour, baseline and seed of prompts: what a budget buys.

    python examples/study_selectors.py study/                # runs what is missing, then reports
    python examples/study_selectors.py study/ --only-report --update README.md

Three disjoint sets of prompts: selection (the circuit is chosen on it), choice (the best selector
is named on it), report (every figure of the tables). One file a row is written, so a study that
was stopped goes on where it was; `--behaviors`, `--baselines`, `--seeds`, `--rows` run a part.
`journal.jsonl` has the commands, the versions and each row's seconds: a study is gone on with by
the same versions and numbers of prompts and by no other, and by one process at a time.

Rows that take minutes run where `ROWS` says: under the counterfactual baseline, at some budgets.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pie_fast.attribution import own_metric, run_metric
from pie_fast.behaviors import Behavior, load_behavior
from pie_fast.curves import SHARES
from pie_fast.data import demo_clt_path, demo_model_path
from pie_fast.identity import versions
from pie_fast.journal import Journal, begin, locked
from pie_fast.methods import SELECTORS, Ground, select_on
from pie_fast.metrics import kl_divergence
from pie_fast.model import Switches
from pie_fast.replacement_model import ReplacementModel, load_model
from pie_fast.storage import remove_leftovers, write_json
from study_report import write_report

BEHAVIORS = ("ioi", "docstring", "ioi-wide", "docstring-wide")
BASELINES = ("counterfactual", "mean", "zero")
BUDGETS = (20, 35, 50, 75, 100, 150, 200, 400, 800)

N_SELECTION, N_CHOICE, N_REPORT = 96, 64, 128


@dataclass(frozen=True)
class Row:
    """One line of the tables.

    Attributes:
        name: Its label, and its file's.
        method: A selector of `pie_fast.methods`.
        options: Of the selector.
        everywhere: Under every baseline; else under the counterfactual one only.
        narrow: On narrow behaviours only.
        budgets: Where not all of them are run.
        prompts: The selection sees the first so many; None: all.
    """

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    everywhere: bool = False
    narrow: bool = False
    budgets: tuple[int, ...] | None = None
    prompts: int | None = None


STRICT = (20, 35, 50)
SYNERGY = {"synergy_prompts": 16, "pool": 200}
SIGNED = {**SYNERGY, "synergy": "signed", "bonus": "sum"}
GROWN = {"share": 0.1}


def _grown(words: str, options: dict[str, Any], **where: Any) -> Row:
    return Row(f"conditional gradient{words}", "conditional-gradient", options, **where)


ROWS = [
    Row("random", "random", everywhere=True),
    Row("magnitude", "magnitude", everywhere=True),
    Row("FAP signed", "fap", {"rank_by": "signed"}, everywhere=True),
    Row("FAP |mean|", "fap", {"rank_by": "abs"}, everywhere=True),
    Row("FAP mean|.|", "fap", everywhere=True),
    Row("FAP-IG 5 points", "fap-ig", {"steps": 5}, everywhere=True),
    Row("FAP-IG 5 points of KL", "fap-ig", {"metric": "kl", "rank_by": "signed"}, everywhere=True),
    Row("RelP", "relp", everywhere=True),
    Row("GIM", "gim", everywhere=True),
    Row("FAP-Synergy paper", "fap-synergy", SYNERGY, everywhere=True),
    Row("FAP-Synergy paper on |mean|", "fap-synergy", {**SYNERGY, "rank_by": "abs"}),
    Row("FAP-Synergy signed sum", "fap-synergy", SIGNED),
    Row("FAP-Synergy signed sum denoising", "fap-synergy", {**SIGNED, "direction": "denoising"}),
    Row("FAP-Synergy signed sum both", "fap-synergy", {**SIGNED, "direction": "both"}),
    Row("exact ablation, 16 prompts", "exact", prompts=16),
    Row("ACDC-style, 16 prompts", "acdc", narrow=True, budgets=(35, 50), prompts=16),
    Row("Fisher-Gram", "fisher-gram"),
    Row("LinKL", "linkl"),
    _grown("", GROWN, everywhere=True),
    _grown(", anchored", {**GROWN, "anchor": 0.2}, everywhere=True),
    _grown(", 1 a pass", {"batch": 1}, budgets=STRICT),
    _grown(", 9 a pass", {"batch": 9}, budgets=(35, 50, 100)),
    _grown(", pairs", {"pairs": 8}, narrow=True, budgets=(50,)),
    Row(
        "conditional gradient, exact shortlist",
        "conditional-shortlist",
        {"batch": 5, "shortlist": 10},
        narrow=True,
        budgets=STRICT,
    ),
    Row("mask optimisation, best of 3", "masks", {"restarts": 3}, narrow=True, budgets=(35, 50)),
    Row("mask optimisation, K = 100", "masks", budgets=(100,)),
    *(
        _grown(f", {n} prompts", GROWN, budgets=(50, 100), prompts=n)
        for n in (8, 12, 16, 24, 32, 48)
    ),
]


@dataclass(frozen=True)
class Cell:
    """One behaviour under one baseline on the prompts of one seed."""

    behavior: str
    baseline: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.behavior}_{self.baseline}_{self.seed}"

    def rows(self) -> Iterator[Row]:
        """Those that run here."""
        for row in ROWS:
            if row.narrow and self.behavior.endswith("-wide"):
                continue
            if row.everywhere or self.baseline == "counterfactual":
                yield row


class Judge:
    """The prompts that selection does not see, prepared once: choice first, then report."""

    def __init__(self, model: ReplacementModel, behavior: Behavior, switches: Switches) -> None:
        self.model, self.metric = model, behavior.metric
        prepared = model.prepare_all(behavior.test_set, switches, behavior.behaviors, batch_size=32)
        self.setups = [setup for _, setup in prepared]

    def __call__(self, ids: NDArray[np.int64]) -> dict[str, list[float]]:
        """KL and metric of a circuit on every prompt."""
        pool = self.model.make_pool(ids.tolist())
        kl, metric = [], []
        with torch.no_grad():
            for setup in self.setups:
                run = self.model.run(setup, pool, rest="baseline")
                kl.append(kl_divergence(setup.logits, run.logits[0]))
                metric.append(run_metric(setup, run, self.metric)[0])
        return {"kl": _rounded(torch.cat(kl)), "metric": _rounded(torch.cat(metric))}

    def whole(self) -> list[float]:
        """The metric of the model itself."""
        return _rounded(torch.cat([own_metric(setup, self.metric) for setup in self.setups]))


def _rounded(values: torch.Tensor) -> list[float]:
    return [float(f"{v:.5g}") for v in values.tolist()]


@functools.cache
def _model() -> ReplacementModel:
    torch.set_num_threads(1)
    return load_model(demo_model_path(), demo_clt_path(), device="cpu")


def run_cell(cell: Cell, folder: Path, names: Sequence[str], sizes: tuple[int, int, int]) -> str:
    """Every missing row of a cell; the cell's own figures (empty circuit, model) once."""
    at = folder / "cells" / cell.name
    todo = [row for row in cell.rows() if row.name in names and not _file(at, row.name).exists()]
    if not todo:
        return f"{cell.name}: nothing to do"
    started = time.time()
    model, switches = _model(), Switches(cell.baseline)
    n_selection, n_choice, n_report = sizes
    behavior = load_behavior(
        cell.behavior,
        tokenizer=model.host.tokenizer,
        n_selection=n_selection,
        n_held_out=n_choice + n_report,
        seed=cell.seed,
    )
    judge = Judge(model, behavior, switches)
    at.mkdir(parents=True, exist_ok=True)
    ground = Ground(model, behavior.behaviors, behavior.metric, switches, seed=cell.seed)
    if not _file(at, "cell").exists():
        empty = judge(np.zeros(0, np.int64))
        about = {"n_choice": n_choice, "n_active": len(ground), "model": judge.whole(), **empty}
        write_json(_file(at, "cell"), about)
    for row in todo:
        began = time.time()
        write_json(_file(at, row.name), run_row(row, ground, judge, behavior))
        seconds = round(time.time() - began, 3)
        Journal(folder).write("row", cell=cell.name, row=row.name, seconds=seconds)
    return f"{cell.name}: {len(todo)} rows in {time.time() - started:.0f} s"


def run_row(row: Row, ground: Ground, judge: Judge, behavior: Behavior) -> dict[str, Any]:
    """A selector's circuits at every budget, judged, and what they cost."""
    mine = ground
    if row.prompts is not None and row.prompts < len(behavior.behaviors):
        few = behavior.behaviors[: row.prompts]
        mine = Ground(ground.model, few, behavior.metric, ground.switches, seed=ground.seed)
    n = len(mine)
    budgets = [k for k in row.budgets or BUDGETS if k <= n]
    circuits, cost = _circuits(row, mine, budgets)
    found: dict[str, Any] = {
        "row": row.name,
        "method": row.method,
        "options": row.options,
        "n_prompts": len(mine.prompts),
        "cost_at_50": cost,
        "points": {k: judge(ids)["kl"] for k, ids in circuits.items()},
    }
    if row.budgets is None and SELECTORS[row.method].nested:
        whole = _lengthened(circuits[budgets[-1]], ground)
        counts = [max(1, round(share * len(ground))) for share in SHARES]
        found["shares"] = [judge(whole[:count])["metric"] for count in counts]
    return found


def _circuits(
    row: Row, ground: Ground, budgets: Sequence[int]
) -> tuple[dict[int, NDArray[np.int64]], dict[str, float] | None]:
    """Circuits by budget, and the passes that K = 50 takes."""
    selector = SELECTORS[row.method]
    if not selector.nested:
        found = {k: select_on(ground.afresh(), row.method, k, **row.options) for k in budgets}
        return {k: one.ids for k, one in found.items()}, found[50].cost if 50 in found else None
    longest = select_on(ground.afresh(), row.method, budgets[-1], **row.options)
    cost = longest.cost
    if row.method.startswith("conditional") and budgets[-1] > 50:
        cost = select_on(ground.afresh(), row.method, 50, **row.options).cost
    return {k: longest.ids[:k] for k in budgets}, cost


def _lengthened(ids: NDArray[np.int64], ground: Ground) -> NDArray[np.int64]:
    """An order of all candidates: what was selected, then the rest by mean |effect|."""
    rest = select_on(ground.afresh(), "fap", len(ground)).ids
    return np.concatenate([ids, rest[~np.isin(rest, ids)]])


def _file(folder: Path, name: str) -> Path:
    name = name.lower().replace("|", "abs")
    return folder / (re.sub(r"[^a-z0-9]+", "-", name).strip("-") + ".json")


def load_cells(folder: Path) -> dict[Cell, dict[str, Any]]:
    """What has been run: cell -> row's name -> its figures; `""` is the cell's own."""
    found: dict[Cell, dict[str, Any]] = {}
    for at in sorted((folder / "cells").iterdir()):
        behavior, baseline, seed = at.name.split("_")
        rows = [json.loads(path.read_text()) for path in sorted(at.glob("*.json"))]
        found[Cell(behavior, baseline, int(seed))] = {row.get("row", ""): row for row in rows}
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="one file a row, and the report")
    parser.add_argument("--behaviors", nargs="+", default=BEHAVIORS)
    parser.add_argument("--baselines", nargs="+", default=BASELINES, choices=BASELINES)
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--rows", nargs="+", default=[row.name for row in ROWS])
    parser.add_argument(
        "--prompts",
        type=int,
        nargs=3,
        default=(N_SELECTION, N_CHOICE, N_REPORT),
        metavar=("SELECTION", "CHOICE", "REPORT"),
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only-report", action="store_true")
    parser.add_argument("--report", type=Path, help="FOLDER/report.md by default")
    parser.add_argument("--update", type=Path, help="a file whose marked tables are replaced")
    args = parser.parse_args(argv)
    strange = set(args.rows) - {row.name for row in ROWS}
    if strange:
        parser.error(f"no row {sorted(strange)[0]!r}; rows: {', '.join(row.name for row in ROWS)}")
    if not args.only_report:
        _run(args)
    write_report(
        load_cells(args.folder),
        [row.name for row in ROWS],
        args.report or args.folder / "report.md",
        args.folder / "curves.html",
        args.update,
    )


def _run(args: argparse.Namespace) -> None:
    cells = [
        Cell(behavior, baseline, seed)
        for baseline in args.baselines
        for seed in args.seeds
        for behavior in args.behaviors
    ]
    told = functools.partial(print, file=sys.stderr, flush=True)
    sizes = dict(zip(("selection", "choice", "report"), args.prompts, strict=True))
    with locked(args.folder, told) as journal, ProcessPoolExecutor(args.jobs) as pool:
        remove_leftovers(args.folder)
        begin(
            journal,
            "study",
            {"prompts": sizes, "versions": versions()},
            command=sys.argv,
            asked=None,
            threads=1,
            resume=True,
            note=told,
        )
        jobs = [
            pool.submit(run_cell, cell, args.folder, args.rows, tuple(args.prompts))
            for cell in cells
        ]
        for done, job in enumerate(as_completed(jobs), 1):
            told(f"[{done}/{len(jobs)}] {job.result()}")


if __name__ == "__main__":
    main()
