"""Functions that workers run; they must be importable there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pie_fast.errors import DumpError


def nothing() -> None:
    return None


def ten() -> int:
    return 10


def with_environment(settings: dict[str, str], make: Callable[[], Any]) -> Any:
    os.environ.update(settings)
    return make()


def broken() -> int:
    raise DumpError("shard-0: feature 7 is outside [0, 5)")


def add(held: int, item: int) -> int:
    return held + item


def slow_first(held: int, item: int) -> int:
    time.sleep(0.3 if item == 0 else 0)
    return held + item


def refuse_three(held: int, item: int) -> int:
    if item == 3:
        raise DumpError(f"item {item} is not wanted")
    return held + item


def refuse_all(held: int, item: int) -> int:
    time.sleep(0.3 if item == 0 else 0)
    raise DumpError(f"item {item} is not wanted")


def once(marks: Path, item: int) -> bool:
    """Whether this is the first time that the item is seen."""
    try:
        (marks / str(item)).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def die_once(held: int, item: tuple[Path, int]) -> int:
    marks, number = item
    if number == 2 and once(marks, number):
        os.kill(os.getpid(), signal.SIGKILL)
    return held + number


def die(held: int, item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def hang_once(held: int, item: tuple[Path, int]) -> int:
    marks, number = item
    if number == 1 and once(marks, number):
        time.sleep(600)
    return held + number


def process(held: int, item: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def host(held: None, item: int) -> str:
    """The address of the host that this runs on."""
    import ray

    time.sleep(0.2)
    return str(ray.util.get_node_ip_address())
