"""Start-up of the commands that need no model, beside a bare interpreter and `import torch`.

python benches/bench_start.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness import Peer, Suite, absent, suite
from making_dumps import zipf_dump
from record import installed


def started(*arguments: str) -> Callable[[], object]:
    """A fresh interpreter with these arguments; it must succeed."""
    command = [sys.executable, *arguments]
    return lambda: subprocess.run(command, check=True, capture_output=True) and None


def bench(run: Suite, title: str, *arguments: str) -> None:
    run.compare(
        title,
        started("-m", "pie_fast.cli", *arguments),
        {
            # The target is 0.4 s; a bare interpreter starts in 10 ms where this was measured.
            "bare interpreter": Peer(started("-c", ""), gate=1 / 20, same=False),
            "import numpy": Peer(started("-c", "import numpy"), same=False),
            "import torch": Peer(started("-c", "import torch"), gate=1, same=False)
            if installed("torch")
            else absent("torch", 1),
        },
        equal=lambda ours, peer: True,
        target="start",
    )


if __name__ == "__main__":
    with suite() as run, tempfile.TemporaryDirectory() as name:
        dump = zipf_dump(Path(name) / "dump", 10_000, 2600)
        bench(run, "pie-fast --help", "--help")
        bench(run, "pie-fast inspect", "inspect", str(dump))
