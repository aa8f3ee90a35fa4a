"""Jobs of tests; workers import them."""

from __future__ import annotations

import os

from pie_fast.crew import Held


def process(held: Held, shared: None, item: int) -> int:
    return os.getpid()
