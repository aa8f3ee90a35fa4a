"""Processes that end by SIGKILL at an exact write, and the same stop without a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
import torch

from pie_fast import storage
from running import Outcome, run_cli

_KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from pie_fast import storage

name, n_left, whole = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "whole"
replacing = storage.replacing

@contextmanager
def killed(path):
    global n_left
    with replacing(path) as file:
        yield file
        n_left -= path.name == name
        if path.name == name and n_left == 0 and not whole:
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    if path.name == name and n_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

storage.replacing = killed
sys.argv = ["pie-fast", *sys.argv[4:]]
from pie_fast.cli import main
main()
"""


def same_threads() -> dict[str, str]:
    """The environment of a process with as many threads as this one: they decide last bits."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def kill_at(name: str, n: int, *args: object, whole: bool = True) -> None:
    """Run `pie-fast ARGS` until its n-th write of a file of that name, and kill it there.

    Args:
        name: Of the file.
        n: From 1.
        args: The command.
        whole: After the write; else before the rename, with a temporary file left behind.
    """
    when = (name, str(n), "whole" if whole else "torn")
    process = subprocess.run(
        [sys.executable, "-c", _KILLED, *when, *map(str, args)],
        capture_output=True,
        text=True,
        env=same_threads(),
        timeout=120,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr


def stop_at(n: int, *args: object) -> Outcome:
    """The same in this process, by Ctrl-C after the n-th write of any file."""
    replacing, n_left = storage.replacing, n

    @contextmanager
    def stopped(path: Path) -> Iterator[IO[bytes]]:
        nonlocal n_left
        with replacing(path) as file:
            yield file
        n_left -= 1
        if n_left == 0:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "replacing", stopped)
        return run_cli(*args)
