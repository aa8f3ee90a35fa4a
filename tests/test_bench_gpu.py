"""The benchmark for a GPU runs, small, without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benches" / "bench_gpu.py"


def test_the_tiny_form_prints_what_the_large_one_does() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny", "--prompts", "16"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["prompts"], told["batch_size"]) == (16, 32)
    assert told["entries"] > 0
    assert told["share_outside_model"] < 1
    assert told["ms_per_prompt"] > 0 and told["own_ms_per_prompt"] > 0
