"""A disk that is full: a small tmpfs, mounted for the purpose, that later has room again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from children import in_child
from kills import resumed, undisturbed
from tally import WRONG, Fault
from world import World

KIND = "full disk"


def cannot_mount(folder: Path) -> str:
    """Why no tmpfs can be mounted here; empty where one can."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        return "mounting a tmpfs needs root"
    try:
        with small_disk(folder / "probe", 1 << 16):
            return ""
    except subprocess.CalledProcessError as error:
        return f"a tmpfs cannot be mounted: {error.stderr.decode().strip()}"


def full_disks(world: World, n: int, rng: Random) -> Iterator[Fault]:
    """Run `capture` and `discover` where there is room for a part of what they write."""
    place = world.folder.with_name("disk")
    place.mkdir(exist_ok=True)
    for name, command in (("capture", world.capture), ("discover", world.discover)):
        job = undisturbed(name, command, place / f"{name}-whole")
        needed = sum(len(data) for data in job.expected.values() if isinstance(data, bytes))
        for _ in range(n):
            n_bytes = int(needed * rng.uniform(0.02, 0.98))
            with small_disk(place / "small", n_bytes) as disk:
                code, said = in_child(command(disk / "out")).wait()
                how = f"{name}: {n_bytes} bytes of {needed}"
                if code != 2 or "No space left" not in said or "small" not in said:
                    yield Fault(KIND, how, WRONG, f"ended with {code}: {said[-300:]}")
                    continue
                mount("-o", f"remount,size={4 * needed}", str(disk))
                yield Fault(KIND, how, *resumed(job, disk / "out"))


@contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[Path]:
    """A tmpfs of so many bytes (the system rounds up to pages)."""
    folder.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={n_bytes}", "none", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def mount(*args: str) -> None:
    """`mount ARGS`."""
    subprocess.run(["mount", *args], check=True, capture_output=True)
