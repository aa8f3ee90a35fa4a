"""Folders of processes that were killed are removed by the next, those in use are not."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pie_fast.scratch import held_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")

HOLDS = """
import sys
from pathlib import Path
from pie_fast.scratch import held_folder
with held_folder(Path(sys.argv[1])) as folder:
    (folder / "0-0.safetensors").write_bytes(b"half")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path: Path) -> None:
    mine = tmp_path / f"pie-fast-{socket.gethostname()}-notes"
    other = tmp_path / "pie-fast-another-host"
    for folder in (mine, other):
        folder.mkdir()
    (other / "lock").touch()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with held_folder(tmp_path) as first:
            assert left.exists() and first.exists() and first != left
            with held_folder(tmp_path):
                assert first.exists() and left.exists(), "in use"
        process.send_signal(signal.SIGKILL)
        process.wait()
    with held_folder(tmp_path) as folder:
        assert sorted(tmp_path.iterdir()) == sorted([folder, mine, other])
