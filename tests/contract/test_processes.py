"""Forks after the native module was used, kernels by the environment, free-threaded Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from pie_fast import _native

ROOT = Path(__file__).parents[2]

WORK = """
import numpy as np
from pie_fast import _native

def work(seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=3_000_000)
    matrix = np.zeros((200, 200), np.float32)
    top = _native.top_k(scores, 50, None, 4)
    rows = _native.greedy_select_many(scores[:20_000].reshape(100, 200), matrix, 50, "mean", 4)
    return top.tobytes() + rows.tobytes()
"""

FORKED = """
import os, sys, threading
before = work()
stop = threading.Event()
def others():
    while not stop.is_set():
        work(1)
thread = threading.Thread(target=others)
if {busy}:
    thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        os._exit(0 if work() == before else 7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert work() == before
stop.set()
if {busy}:
    thread.join()
"""

POOL = """
import multiprocessing
if __name__ == "__main__":
    wanted = [work(seed) for seed in range(4)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(work, range(4)) == wanted
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script of its own, killed where it hangs."""
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.parametrize(
    "code",
    [FORKED.format(busy=False), FORKED.format(busy=True), POOL],
    ids=["idle", "busy", "pool"],
)
def test_a_forked_child_works_as_its_parent_does(code: str) -> None:
    """No thread outlives a call, so a child misses none; one that was busy does not matter."""
    done = run(WORK + code)
    assert done.returncode == 0, done.stderr


def test_kernels_by_the_environment_give_the_same_bytes() -> None:
    names = ("portable", "avx2", "avx512")
    may = names[: names.index(_native.kernels) + 1]
    code = WORK + "import hashlib; print(_native.kernels, hashlib.sha256(work()).hexdigest())"
    told = [run(code, PIE_FAST_KERNELS=name).stdout.split() for name in may]
    assert [name for name, _ in told] == list(may)
    assert len({digest for _, digest in told}) == 1


def test_kernels_that_are_none_end_the_import() -> None:
    done = run("import pie_fast._native", PIE_FAST_KERNELS="fast")
    assert done.returncode == 1
    message = 'PIE_FAST_KERNELS is "fast", must be portable, avx2 or avx512'
    assert done.stderr.splitlines()[-1] == f"pie_fast.errors.PieFastError: {message}"


def test_free_threaded_python_is_not_declared() -> None:
    """Nothing was tested there; the stable ABI that wheels are built for has no such Python."""
    source = (ROOT / "rust" / "py" / "src" / "lib.rs").read_text()
    assert re.findall(r"pyo3::pymodule\b(.*)\]", source) == ["(gil_used = true)"]
    assert "Free Threading" not in (ROOT / "pyproject.toml").read_text()
    suffix = next(one for one in EXTENSION_SUFFIXES if "abi3" in one)
    assert str(_native.__file__).endswith(suffix)
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        code = "import sys, pie_fast._native; sys.exit(not sys._is_gil_enabled())"
        assert run(code).returncode == 0
