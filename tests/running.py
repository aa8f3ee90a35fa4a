"""The command line, run inside the test process, so that torch is imported once."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pie_fast.behaviors import Behavior, write_jsonl
from pie_fast.cli import main
from torch_prompts import random_prompts

N_SELECTION, N_HELD_OUT, BUDGET = 8, 4, 10

#: features of the run of the demo model
DEMO_BUDGET = 6


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        stderr: Without what it says of the CLT's fit: nearly all CLTs of tests are random.
        fit_note: That.
    """

    code: int
    stdout: str
    stderr: str
    fit_note: str = field(default="", compare=False)

    @classmethod
    def of(cls, code: int, stdout: str, stderr: str) -> Outcome:
        """From all that was written."""
        lines = stderr.splitlines(keepends=True)
        fit = [line for line in lines if line.startswith("pie-fast: note: the CLT reads ")]
        rest = [line for line in lines if line not in fit]
        return cls(code, stdout, "".join(rest), "".join(fit))

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as the one JSON object that it must be."""
        assert self.code == 0, self.stderr
        found: dict[str, Any] = json.loads(self.stdout)
        return found

    def refused(self, *parts: object) -> None:
        """Exit code 2, nothing on standard output, one line that says all of `parts`."""
        assert self.code == 2, self
        assert self.stdout == ""
        (line,) = [one for one in self.stderr.splitlines() if "note:" not in one]
        assert line.startswith("pie-fast: error: ")
        for part in parts:
            assert str(part) in line, line


@dataclass(frozen=True)
class World:
    """A tiny model, its CLT and a behaviour, on disk.

    Attributes:
        sources: `--model`, `--clt` and `--behavior` with their values.
    """

    model: Path
    clt: Path
    behavior: Path

    @property
    def model_and_clt(self) -> tuple[object, ...]:
        return ("--model", self.model, "--clt", self.clt)

    @property
    def sources(self) -> tuple[object, ...]:
        return (*self.model_and_clt, "--behavior", self.behavior)


def run_cli(*args: object) -> Outcome:
    """`pie-fast ARGS`."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["pie-fast", *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            main()
    code = exit_.value.code
    assert isinstance(code, int)
    return Outcome.of(code, out.getvalue(), err.getvalue())


def write_behavior(path: Path, n_selection: int, n_held_out: int, **of_prompts: Any) -> Path:
    """Random prompts of the tiny model as ids: no tokenizer is needed to read them."""
    prompts = random_prompts(n_selection + n_held_out, **of_prompts)
    behavior = Behavior(path.name, tuple(prompts[:n_selection]), tuple(prompts[n_selection:]))
    write_jsonl(path, behavior)
    return path


def written(file: Path) -> dict[str, Any]:
    """A JSON file without its checksum: what was written, or what is to be changed."""
    found: dict[str, Any] = json.loads(file.read_text())
    found.pop("checksum", None)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
