"""8 GB of decoders: capture and FAP within 2 GiB, and the same numbers as without the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "benches" / "bench_large_clt.py"


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_decoders_are_never_loaded_whole() -> None:
    command = [sys.executable, str(BENCH), "--way", "lazy", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    lazy = found["lazy"]
    assert found["decoder_bytes"] > 8e9
    assert lazy["memory"] < 2 * 1024**3
    assert lazy["read"] < found["files"]
    assert lazy["entries"] > 100_000
