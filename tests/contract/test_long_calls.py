"""Every native call that can last lets other threads run and ends soon after Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import long_calls
import numpy as np
import pytest

from pie_fast import _native

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and hard links of POSIX")

#: From the signal to its exception, in seconds.
SOON = 0.5
#: A shared machine may hold up a call that is not slow itself.
TRIES = 4
#: Calls of the other thread before it sends the signal.
TICKS = 20


@dataclass
class Interrupter:
    """Another thread: it ticks while the call runs, makes native calls itself, then sends SIGINT.

    Where the call held the GIL there would be no tick and no signal before it ends.
    """

    ticks: int = 0
    sent: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        scores = np.arange(100.0)
        while self.ticks < TICKS:
            assert _native.top_k(scores, 1, None, 1).tolist() == [99]
            self.ticks += 1
            if self.ended.wait(2e-3):
                return
        main = threading.main_thread().ident
        assert main is not None
        self.sent = time.perf_counter()
        signal.pthread_kill(main, signal.SIGINT)


def delay(call: Callable[[], object]) -> float:
    """Seconds from SIGINT in the middle of a call to its KeyboardInterrupt."""
    other = Interrupter()
    thread = threading.Thread(target=other.run)
    try:
        thread.start()
        call()
    except KeyboardInterrupt:
        after = time.perf_counter() - other.sent
    else:
        pytest.fail(f"the call ended after {other.ticks} ticks, too soon for a signal")
    finally:
        other.ended.set()
        thread.join()
    assert other.ticks == TICKS
    return after


Groups = dict[str, dict[str, Callable[[], object]]]


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Groups:
    return long_calls.groups(tmp_path_factory.mktemp("long"))


@pytest.mark.parametrize("group", ["arrays", "files", "dumps", "caches"])
def test_threads_run_and_ctrl_c_is_heard(group: str, groups: Groups) -> None:
    late = {}
    for name, call in groups[group].items():
        delays: list[float] = []
        while not delays or (delays[-1] > SOON and len(delays) < TRIES):
            delays.append(delay(call))
        if delays[-1] > SOON:
            late[name] = [f"{one:.2f} s" for one in delays]
    assert not late


def test_every_native_call_is_in_the_table_or_named_as_short(groups: Groups) -> None:
    there = set()
    for name in _native.__all__:
        value = getattr(_native, name)
        if not callable(value):
            continue
        there.add(name)
        if isinstance(value, type):
            methods = (m for m in vars(value) if callable(getattr(value, m)) and m[0] != "_")
            there |= {f"{name}.{method}" for method in methods}
    long = {name.partition(",")[0] for calls in groups.values() for name in calls}
    python = {"merge_dumps", "convert_delphi"}
    assert long - python | set(long_calls.SHORT) == there
    assert not long & set(long_calls.SHORT)
