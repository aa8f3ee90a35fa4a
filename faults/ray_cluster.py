"""A Ray cluster of this machine, in processes that can be struck one by one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

N_WORKERS = 2

#: how Ray calls the process of a worker that holds something
WORKER = "ray::_Held"

#: seconds until a cluster must be up
PATIENCE = 90


class RayCluster:
    """`ray start --head` with room for two workers.

    Attributes:
        address: For `--address`; the same after a restart.
    """

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        self._folder = Path(tempfile.mkdtemp(prefix="pie"))  # a socket's path is 107 bytes at most
        self._process: subprocess.Popen[bytes] | None = None
        #: processes that were ever seen; one that took over a number of another is not meant
        self._seen: set[psutil.Process] = set()

    def start(self) -> None:
        """Start it.

        Raises:
            RuntimeError: It does not come up.
        """
        log = self._folder / "start.log"
        start = (sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block")
        where = (f"--port={self._port}", "--node-ip-address=127.0.0.1")
        what = ("--include-dashboard=false", f"--num-cpus={N_WORKERS}")
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [*start, *where, *what, f"--temp-dir={self._folder / 'ray'}"],
                env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
                stdout=file,
                stderr=file,
            )
        end = time.monotonic() + PATIENCE
        while "Ray runtime started" not in (said := log.read_text(errors="replace")):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no Ray cluster: {said[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End every process of it, whatever state it is in."""
        if self._process is None:
            return
        left = [psutil.Process(self._process.pid), *self.processes()]
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(left, timeout=PATIENCE)
        self._process = None
        self._seen.clear()
        shutil.rmtree(self._folder / "ray", ignore_errors=True)

    def close(self) -> None:
        """Stop it and remove its files."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def workers(self) -> list[psutil.Process]:
        """Processes that hold a model, or load it, lowest first."""
        found = [one for one in self.processes() if title(one).startswith(WORKER)]
        return sorted(found, key=lambda one: one.pid)

    def head(self) -> psutil.Process:
        """The process that knows the cluster."""
        (found,) = (one for one in self.processes() if title(one).endswith("gcs_server"))
        return found

    def processes(self) -> set[psutil.Process]:
        """Everything below `ray start` that still runs."""
        assert self._process is not None
        with suppress(psutil.NoSuchProcess):
            self._seen.update(psutil.Process(self._process.pid).children(recursive=True))
        self._seen = {one for one in self._seen if one.is_running()}
        return self._seen


def title(process: psutil.Process) -> str:
    """What a process calls itself; empty where it is gone."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline()[:1])
    return ""
