"""Commands in processes that can be killed, forked from this one: importing torch costs seconds."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Before the forks, for all of them.
import torch
import transformers  # noqa: F401

import pie_fast.replacement_model  # noqa: F401
from pie_fast.cli import main


@dataclass(frozen=True)
class Child:
    """A command that runs.

    Attributes:
        pid: Its process.
        log: What it says.
    """

    pid: int
    log: Path

    def wait(self, timeout: float = 600) -> tuple[int, str]:
        """Exit code (minus the signal that ended it) and what it said; killed at the timeout."""
        end = time.monotonic() + timeout
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                end = float("inf")
            time.sleep(0.005)
        said = self.log.read_text(errors="replace")
        self.log.unlink()
        return os.waitstatus_to_exitcode(status), said

    def runs(self) -> bool:
        """Whether it has not ended."""
        with suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        return False

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def in_child(command: tuple[object, ...], before: Callable[[], object] = lambda: None) -> Child:
    """`pie-fast COMMAND` in a process of its own, which calls `before` first."""
    descriptor, name = tempfile.mkstemp(suffix=".log")
    pid = os.fork()
    if pid:
        os.close(descriptor)
        return Child(pid, Path(name))
    code = 70
    try:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.argv = ["pie-fast", *map(str, command)]
        torch.set_num_threads(1)
        before()
        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
