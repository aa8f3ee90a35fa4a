"""The tables and plots of `study_selectors.py`, from the files of its rows.

Means over seeds with 95% bootstrap intervals over seeds and prompts. The best selector is named on
the choice prompts; all figures are of the report prompts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from marked import update
from pie_fast.curves import SHARES, cpr_cmd, log_area, log_auc, share_saved
from pie_fast.storage import write_text

#: what selectors are compared with
BASELINE_ROWS = ("FAP |mean|", "FAP mean|.|")

#: savings are averaged over these budgets where they are defined and the mean KL is not yet tiny
SAVED_AT = (20, 35, 50, 75, 100, 150, 200)
TINY_KL = 1e-3

#: needs more passes than a fair competitor may have
REFERENCES = ("mask optimisation, best of 3",)

N_BOOTSTRAP = 400

#: budget -> KL of every prompt
Points = dict[int, NDArray[np.float64]]


class Results:
    """What was measured, by behaviour, baseline, seed and row."""

    def __init__(self, cells: Mapping[Any, Mapping[str, Any]], order: Sequence[str]) -> None:
        self.cells, self.order = cells, order
        found = _unique(cell.behavior for cell in cells)
        self.behaviors = sorted(found, key=lambda name: name.endswith("-wide"))
        self.baselines = _unique(cell.baseline for cell in cells)
        self.rows = [name for name in order if any(name in found for found in cells.values())]

    def seeds(self, behavior: str, baseline: str, row: str) -> list[Any]:
        """Cells that have the row."""
        return [
            cell
            for cell, found in self.cells.items()
            if (cell.behavior, cell.baseline) == (behavior, baseline) and row in found
        ]

    def points(self, cell: Any, row: str, split: str = "report") -> Points:
        """KL of each prompt of a split, by budget."""
        own = self.cells[cell][""]
        part = slice(own["n_choice"]) if split == "choice" else slice(own["n_choice"], None)
        rows = self.cells[cell][row]["points"].items()
        return {int(k): np.asarray(kl)[part] for k, kl in rows}

    def curve(self, cell: Any, row: str, split: str = "report") -> dict[int, float]:
        """Mean KL by budget."""
        return {k: float(kl.mean()) for k, kl in self.points(cell, row, split).items()}

    def empty_kl(self, cell: Any) -> float:
        """Mean KL of the empty circuit on the report prompts."""
        own = self.cells[cell][""]
        return float(np.mean(own["kl"][own["n_choice"] :]))


HEAD = """# Study of the selectors

Made by `python examples/study_selectors.py` on the demo model (4 layers, 4 x 1024 features). Each
seed draws 96 prompts to select on, 64 to choose the best selector by, and 128 to report; the three
are disjoint, and every figure here is of the report prompts. Intervals (95%) are bootstraps over
seeds and prompts. *Passes* are forward (f) and backward (b) passes over the selection prompts for
K = 50, the prompts' own preparation left out. Rows that cost minutes were run where they stand.
*Saved* is 1 - K / the baseline's K at the same mean KL, interpolated in log KL; it is left out
where neither is below half of the empty circuit's KL, and where the mean KL is below 0.001.
"""


def write_report(
    cells: Mapping[Any, Mapping[str, Any]],
    order: Sequence[str],
    report: Path,
    plot: Path,
    page: Path | None,
) -> None:
    """Every table into `report`, the curves into `plot`, the short table into `page` if given."""
    results = Results(cells, order)
    short = must_reach(results)
    whole = [HEAD, *short, ""]
    for baseline in results.baselines:
        for behavior in results.behaviors:
            whole += [*kl_table(results, behavior, baseline), ""]
        whole += [*area_table(results, baseline), ""]
    whole += saved_table(results, "counterfactual")
    write_text(report, "\n".join(whole).rstrip() + "\n")
    write_text(plot, plots(results))
    print("\n".join(short))
    if page is not None:
        update(page, "study", "\n".join(short))


def kl_table(results: Results, behavior: str, baseline: str) -> list[str]:
    """Mean KL over budgets with intervals, and the cost."""
    some = [row for row in results.rows if results.seeds(behavior, baseline, row)]
    if not some:
        return []
    cells = max((results.seeds(behavior, baseline, row) for row in some), key=len)
    empty = np.mean([results.empty_kl(cell) for cell in cells])
    budgets = sorted({k for row in some for cell in cells for k in _known(results, cell, row)})
    lines = [
        f"| {behavior}, {baseline}: mean KL in nats, {len(cells)} seeds; empty circuit {empty:.2f} "
        "| passes | " + " | ".join(f"K = {k}" for k in budgets) + " |",
        "|---|---|" + "---|" * len(budgets),
    ]
    for row in some:
        mine = results.seeds(behavior, baseline, row)
        shown = [_with_interval([results.points(c, row).get(k) for c in mine]) for k in budgets]
        label = _escaped(row) + (f" ({len(mine)} seeds)" if len(mine) < len(cells) else "")
        lines.append(f"| {label} | {_cost(results, mine, row)} | {' | '.join(shown)} |")
    return lines


def area_table(results: Results, baseline: str) -> list[str]:
    """Log-K area of the KL, CPR, CMD and log-AUC of faithfulness: means over seeds."""
    lines = [
        f"| {baseline} | behaviour | log10 KL over log K | CPR | CMD | log-AUC |",
        "|---|---|---|---|---|---|",
    ]
    for row in results.rows:
        for behavior in results.behaviors:
            cells = results.seeds(behavior, baseline, row)
            cells = [c for c in cells if "shares" in results.cells[c][row]]
            if not cells:
                continue
            area = np.mean([log_area(results.curve(c, row)) for c in cells])
            f = [_faithfulness(results, c, row) for c in cells]
            both = np.mean([cpr_cmd(one) for one in f], axis=0)
            auc = np.mean([log_auc(one) for one in f])
            lines.append(
                f"| {_escaped(row)} | {behavior} | {area:.3f} | {both[0]:.4f} | {both[1]:.4f} "
                f"| {auc:.3f} |"
            )
    told = ", ".join(f"{share:g}" for share in SHARES)
    return [*lines, "", f"Shares of the active candidates for CPR, CMD and log-AUC: {told}."]


def saved_table(results: Results, baseline: str) -> list[str]:
    """Share of the budget saved against each baseline at every K where that is defined."""
    lines = []
    for against in BASELINE_ROWS:
        lines += [
            f"| saved against {_escaped(against)}, % | behaviour | "
            + " | ".join(f"K = {k}" for k in SAVED_AT)
            + " |",
            "|---|---|" + "---|" * len(SAVED_AT),
        ]
        for row in results.rows:
            for behavior in results.behaviors:
                cells = results.seeds(behavior, baseline, row)
                if not cells or row == against:
                    continue
                shown = []
                for k in SAVED_AT:
                    values = [saved_at(results, cell, row, against, k) for cell in cells]
                    known = [v for v in values if v is not None]
                    shown.append(f"{100 * np.mean(known):.0f}" if known else "")
                if any(shown):
                    lines.append(f"| {_escaped(row)} | {behavior} | {' | '.join(shown)} |")
        lines.append("")
    return lines


def saved_at(
    results: Results, cell: Any, row: str, against: str, k: int, split: str = "report"
) -> float | None:
    """Share saved by a row at a budget; None where it is undefined or the KL is tiny."""
    curve = results.curve(cell, row, split)
    if k not in curve or curve[k] < TINY_KL:
        return None
    return share_saved(curve, results.curve(cell, against, split), k, results.empty_kl(cell))


def mean_saved(
    results: Results, row: str, against: str, behavior: str, split: str = "report"
) -> float | None:
    """Mean over budgets and seeds, counterfactual baseline; None where it is nowhere defined."""
    cells = results.seeds(behavior, "counterfactual", row)
    values = [saved_at(results, c, row, against, k, split) for c in cells for k in SAVED_AT]
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def chosen_row(results: Results) -> str:
    """The best general selector by the choice prompts: mean saved against mean |FAP|."""

    def worth(row: str) -> float:
        found = [
            mean_saved(results, row, BASELINE_ROWS[1], behavior, "choice")
            for behavior in results.behaviors
        ]
        return float(np.mean([f for f in found if f is not None])) if None not in found else -9.0

    fair = [r for r in results.rows if r not in (*REFERENCES, *BASELINE_ROWS) and _full(results, r)]
    return max(fair, key=worth)


def must_reach(results: Results) -> list[str]:
    """The goals of the project, and what was reached."""
    best = chosen_row(results)
    lines = [
        f"Selector named by the choice prompts: **{best}**. Counterfactual baseline, demo model, "
        "held-out report prompts, means over seeds.",
        "",
        "| | reached | must | goal |",
        "|---|---|---|---|",
    ]
    ours, theirs = _fidelity(results, "ioi", best, 50), _fidelity(results, "ioi", "FAP |mean|", 100)
    lines.append(
        f"| narrow IOI: fidelity at K = 50, FAP \\|mean\\| at K = 100 | {ours:.3f}, {theirs:.3f} "
        "| within .01 | at least |"
    )
    for against, must, goal in (("FAP |mean|", 33, 50), ("FAP mean|.|", 20, 33)):
        each = {b: mean_saved(results, best, against, b) for b in results.behaviors}
        known = [v for v in each.values() if v is not None]
        told = ", ".join(f"{b} {100 * v:.0f}" for b, v in each.items() if v is not None)
        lines.append(
            f"| budget saved against {_escaped(against)}, mean of behaviours "
            f"| {100 * np.mean(known):.0f}% ({told}) | {must}% | {goal}% |"
        )
    for behavior in ("ioi", "docstring"):
        told = []
        for k in (35, 50):
            rows = (best, "conditional gradient, 9 a pass", *REFERENCES)
            told.append(
                f"K = {k}: "
                + ", ".join(f"{_fidelity(results, behavior, row, k):.3f}" for row in rows)
            )
        lines.append(
            f"| {behavior}: fidelity of {best}, of 9 a pass (6 passes), of mask optimisation "
            f"(best of 3) | {'; '.join(told)} | within .01 | at least |"
        )
    if "docstring-wide" in results.behaviors:
        lines.append(_wide_docstring(results, best))
    lines += _prompts_needed(results)
    nodes = "`unit` node against feature: units at the same KL | the table of `study_nodes.py`"
    return [*lines, f"| {nodes} | reported | fewer |"]


def _wide_docstring(results: Results, best: str) -> str:
    """Mean KL at K = 100 beside mean |FAP| at K = 150, and what gates learnt for K = 100 reach."""
    learnt = "mask optimisation, K = 100"
    cells = _cells(results, "docstring-wide", learnt) or _cells(results, "docstring-wide", best)
    kls = [
        float(
            np.mean([results.curve(cell, row)[k] for cell in cells if row in results.cells[cell]])
        )
        for row, k in ((best, 100), ("FAP mean|.|", 150), ("FAP mean|.|", 100), (learnt, 100))
        if any(row in results.cells[cell] for cell in cells)
    ]
    bound = f"; mask optimisation {kls[3]:.3f}" if len(kls) > 3 else ""
    return (
        "| wide docstring: mean KL at K = 100, FAP mean \\|.\\| at K = 150 "
        f"| {kls[0]:.3f}, {kls[1]:.3f} (at K = 100: FAP mean \\|.\\| {kls[2]:.3f}{bound}; "
        f"{len(cells)} seeds) | at most | at most |"
    )


def _prompts_needed(results: Results) -> list[str]:
    """Fidelity at K = 50 of circuits from fewer prompts, beside that from all."""
    lines = []
    for behavior in results.behaviors:
        whole = _fidelity(results, behavior, "conditional gradient", 50)
        few = {}
        for row in results.rows:
            number = re.fullmatch(r"conditional gradient, (\d+) prompts", row)
            if number and _cells(results, behavior, row):
                few[int(number[1])] = _fidelity(results, behavior, row, 50)
        if not few or not whole > 0:
            continue
        enough = [n for n in sorted(few) if min(few[m] for m in few if m >= n) >= whole - 0.01]
        told = ", ".join(f"{n}: {f:.3f}" for n, f in sorted(few.items()))
        lines.append(
            f"| {behavior}: selection prompts within .01 of the circuit from 96 at K = 50 "
            f"({whole:.3f}) | {enough[0] if enough else 'more than ' + str(max(few))} ({told}) "
            "| 32 | 12 |"
        )
    return lines


def plots(results: Results) -> str:
    """Mean KL over K of every row, a figure for each behaviour and baseline: one HTML page."""
    parts = []
    for baseline in results.baselines:
        for behavior in results.behaviors:
            figure = go.Figure()
            for row in results.rows:
                cells = results.seeds(behavior, baseline, row)
                if not cells:
                    continue
                curves = [results.curve(cell, row) for cell in cells]
                budgets = sorted(set.intersection(*(set(curve) for curve in curves)))
                means = [float(np.mean([curve[k] for curve in curves])) for k in budgets]
                figure.add_scatter(x=budgets, y=means, name=row, mode="lines+markers")
            figure.update_layout(
                title=f"{behavior}, {baseline}: mean KL of the circuit",
                xaxis={"type": "log", "title": "K"},
                yaxis={"type": "log", "title": "mean KL, nats"},
            )
            parts.append(figure.to_html(full_html=False, include_plotlyjs=not parts))
    return "<!doctype html><meta charset='utf-8'><title>Selectors</title>" + "".join(parts)


def _fidelity(results: Results, behavior: str, row: str, k: int) -> float:
    """`1 - min(mean KL, 1)`, mean over seeds; NaN where it was not run."""
    cells = [c for c in _cells(results, behavior, row) if k in results.points(c, row)]
    found = [1 - min(results.curve(c, row)[k], 1.0) for c in cells]
    return float(np.mean(found)) if found else float("nan")


def _cells(results: Results, behavior: str, row: str) -> list[Any]:
    return results.seeds(behavior, "counterfactual", row)


def _full(results: Results, row: str) -> bool:
    """Whether a row ran at every budget of the savings, on every behaviour."""
    for behavior in results.behaviors:
        cells = _cells(results, behavior, row)
        if not cells or not set(SAVED_AT) <= set(results.points(cells[0], row)):
            return False
    return True


def _known(results: Results, cell: Any, row: str) -> Iterable[int]:
    found = results.cells[cell].get(row)
    return [int(k) for k in found["points"]] if found else []


def _cost(results: Results, cells: Sequence[Any], row: str) -> str:
    costs = [results.cells[cell][row]["cost_at_50"] for cell in cells]
    known = [c for c in costs if c is not None]
    if not known:
        return ""
    forward, backward = (np.mean([c[key] for c in known]) for key in ("forward", "backward"))
    return f"{forward:.0f} f + {backward:.0f} b"


def _with_interval(samples: Sequence[NDArray[np.float64] | None]) -> str:
    """Mean of the seeds' means, and its interval: seeds drawn anew, and prompts within each."""
    known = [s for s in samples if s is not None]
    if not known:
        return ""
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(N_BOOTSTRAP):
        seeds = rng.integers(0, len(known), len(known))
        draws.append(
            np.mean([known[s][rng.integers(0, len(known[s]), len(known[s]))].mean() for s in seeds])
        )
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{np.mean([s.mean() for s in known]):.3f} ({low:.3f} to {high:.3f})"


def _faithfulness(results: Results, cell: Any, row: str) -> list[float]:
    own = results.cells[cell][""]
    known = [own["metric"], own["model"], *results.cells[cell][row]["shares"]]
    empty, whole, *kept = (float(np.mean(m[own["n_choice"] :])) for m in known)
    return [(m - empty) / (whole - empty) for m in kept]


def _unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
