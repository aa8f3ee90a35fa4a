"""The table of mutants, and those that survive without an argument.

python .ci/mutants_left.py FOLDER DOCUMENT
python .ci/mutants_left.py known FOLDER/MODULE/TREE DOCUMENT

FOLDER is what `.ci/mutants` kept. DOCUMENT argues survivors in a table whose lines begin with
``| `NAME` | NUMBER |``: a mutant's name without its line, and how many of that name may survive.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

CORE = "rust/core/src/"
MODULES = {"select": "select", "topk": "topk.rs", "synergy": "synergy", "dump": "dump"}
PYTHON = ("python/pie_fast/evaluate.py", "python/pie_fast/attribution.py")
KINDS = ("caught", "timeout", "unviable", "missed")


@dataclass
class Found:
    """What is known of the mutants of one module.

    Attributes:
        made: How many there are.
        of: The names of each kind.
        commits: Whose tests were run.
    """

    made: int
    of: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    commits: set[str] = field(default_factory=set)

    @property
    def not_run(self) -> int:
        """How many nothing is known of."""
        return self.made - sum(map(len, self.of.values()))


@dataclass
class Run:
    """One run of cargo-mutants over a module.

    Attributes:
        commit: What was mutated.
        of: Mutant -> kind, those of files that are in HEAD as they were.
    """

    commit: str
    of: dict[str, str] = field(default_factory=dict)


def runs(module: Path) -> list[Run]:
    """All runs of a module, whatever its other files were, from the oldest on."""
    found = []
    for file in sorted(module.glob("*/[0-9]*/commit"), key=lambda file: file.stat().st_mtime):
        run = Run(file.read_text().strip())
        changed = changed_since(run.commit, f"{CORE}{MODULES[module.name]}")
        for kind in KINDS:
            names = file.parent / "mutants.out" / f"{kind}.txt"
            for name in names.read_text().splitlines() if names.exists() else []:
                if changed is not None and name.partition(":")[0] not in changed:
                    run.of[name] = kind
        found.append(run)
    return found


def changed_since(commit: str, path: str) -> set[str] | None:
    """Files below a path that HEAD does not have as they were; None of a commit that is gone."""
    command = ["git", "diff", "--name-only", commit, "HEAD", "--", path]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return None
    return {*done.stdout.splitlines()}


def outcomes(module: Path) -> dict[str, str]:
    """Mutant -> kind over all runs; of one that was run twice the last one counts."""
    last: dict[str, str] = {}
    for run in runs(module):
        last.update(run.of)
    return last


def plain(name: str) -> str:
    """The name of a Rust mutant without its line."""
    return re.sub(rf"^{CORE}(.*?):\d+:\d+:", r"\1:", name)


def hashes(*paths: str) -> list[str]:
    """Those that git has for paths in HEAD, twelve digits of each."""
    command = ["git", "rev-parse", *(f"HEAD:{path}" for path in paths)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line[:12] for line in said.splitlines()]


def of_rust(folder: Path, source: str) -> Found:
    """What is known of the files as they are in HEAD."""
    (tree,) = hashes(f"{CORE}{source}")
    if not (folder / tree / "all.txt").exists():
        return Found(0)
    made = {*(folder / tree / "all.txt").read_text().splitlines()}
    found = Found(len(made), commits={run.commit[:9] for run in runs(folder) if run.of})
    for name, kind in outcomes(folder).items():
        if name in made:
            found.of[kind].append(plain(name))
    return found


def of_python(folder: Path) -> Found:
    """The same of mutmut; one that no test runs is missed."""
    results = folder / ("-".join(hashes(*PYTHON)) + ".txt")
    if not results.exists():
        return Found(0)
    lines = results.read_text().splitlines()
    found = Found(len(lines), commits={c[:9] for c in (folder / "commits.txt").read_text().split()})
    kinds = {"killed": "caught", "timeout": "timeout", "survived": "missed", "no tests": "missed"}
    for line in lines:
        mutant, _, status = line.strip().rpartition(": ")
        module, _, function = mutant.removeprefix("pie_fast.").partition(".")
        function = re.sub("^x[_ǁ]", "", function.partition("__mutmut_")[0])
        if status in kinds:
            found.of[kinds[status]].append(f"{module}.py: {function.replace('ǁ', '.')}")
    return found


def argued(document: Path) -> Counter[str]:
    """How many of each name may survive."""
    rows = re.findall(r"^\| `(.+?)` \| (\d+) \|", document.read_text(), re.MULTILINE)
    return Counter({name.replace("\\|", "|"): int(number) for name, number in rows})


def known(folder: str, document: str) -> int:
    """Print the Rust mutants that need not be run again: all but survivors that are not argued."""
    found = outcomes(Path(folder).parent)
    left = Counter(plain(name) for name, kind in found.items() if kind == "missed")
    left -= argued(Path(document))
    print(
        *(name for name, kind in found.items() if kind != "missed" or not left[plain(name)]),
        sep="\n",
    )
    return 0


def main(folder: str, document: str) -> int:
    """Print all of it, hand the counts to `.ci/record`; 1 where something is left."""
    modules = {name: of_rust(Path(folder) / name, source) for name, source in MODULES.items()}
    modules["python"] = of_python(Path(folder) / "python")
    may_stay = argued(Path(document))
    columns = ("mutants", "caught", "timed out", "unviable", "survived", "argued", "not run")
    figures: dict[str, int | str] = dict.fromkeys(columns, 0)
    left: Counter[str] = Counter()
    print("| module | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 1))
    for name, found in modules.items():
        missed = Counter(found.of["missed"])
        unargued = missed - may_stay
        left += unargued
        counts = (len(found.of[kind]) for kind in KINDS)
        row = (found.made, *counts, missed.total() - unargued.total(), found.not_run)
        print(f"| {name} | " + " | ".join(map(str, row)) + " |")
        for column, count in zip(columns, row, strict=True):
            figures[column] = int(figures[column]) + count
    print("| all | " + " | ".join(map(str, figures.values())) + " |")
    commits = " ".join(sorted(set().union(*(found.commits for found in modules.values()))))
    print(f"\ntests of {commits}", "survived, and not argued:", sep="\n\n")
    print(*(f"  {number} of {name}" for name, number in sorted(left.items())), sep="\n")
    figures = {name.replace(" ", "_"): count for name, count in figures.items()}
    if file := os.environ.get("RECORD_FIGURES"):
        Path(file).write_text(json.dumps({**figures, "tests_of": commits}))
    return 1 if left or figures["not_run"] or not all(f.made for f in modules.values()) else 0


if __name__ == "__main__":
    sys.exit(known(*sys.argv[2:]) if sys.argv[1] == "known" else main(*sys.argv[1:]))
