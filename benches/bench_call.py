"""What it costs to cross into the core: a call that borrows arrays and lets the GIL go.

    python benches/bench_call.py

The work behind the call is next to nothing (two candidates), so the time is the crossing's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness import Peer, Suite, suite
from pie_fast import _native

CALLS = 1000


def many(call: Callable[[], Any]) -> Callable[[], None]:
    """So many calls that the clock's own cost is nothing beside them."""

    def run() -> None:
        for _ in range(CALLS):
            call()

    return run


def bench(run: Suite) -> None:
    indptr, indices = np.arange(3), np.array([1, 0], np.int32)
    values = np.ones(2, np.float32)
    numbers = np.random.default_rng(0).random(400)
    csr = indptr, indices, values
    run.compare(
        f"{CALLS} calls with 3 borrowed arrays, GIL released",
        many(lambda: _native.synergy_clusters(csr, 0.5)),
        {
            "np.argmax of 400 numbers": Peer(
                many(lambda: np.argmax(numbers)),
                gate=1 / 7,
                goal=1 / 1.1,
                same=False,
                note="ours checks the CSR and makes an array too",
            ),
            "the argmax method of it": Peer(many(numbers.argmax), gate=1 / 7, same=False),
            "a Python function": Peer(many(lambda: None), same=False),
        },
        equal=lambda ours, peer: True,
        target="D",
    )


if __name__ == "__main__":
    with suite() as run:
        bench(run)
