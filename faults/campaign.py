"""Inject faults and count what became of them: `python faults/campaign.py [--quick]`.

Prints a table as Markdown; `--json FILE` writes every fault. Ends with 1 if an answer was wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from clocks import clock_jumps
from disk import cannot_mount, full_disks
from files import file_faults
from kills import driver_kills
from ray_faults import driver_faults, head_faults, worker_faults
from tally import Fault, Tally
from world import World, make_world

#: kind -> what injects it, how many there are of each part of it, and how many in a quick campaign
KINDS: dict[str, tuple[Callable[[World, int, Random], Iterator[Fault]], int, int]] = {
    "kills": (driver_kills, 20, 1),
    "clocks": (clock_jumps, 20, 1),
    "disk": (full_disks, 20, 1),
    "ray-workers": (worker_faults, 20, 1),
    "ray-drivers": (driver_faults, 20, 1),
    "ray-heads": (head_faults, 20, 1),
    # Last: the others fork, which is best before this process has threads.
    "files": (file_faults, 1000, 96),
}


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small part of it")
    parser.add_argument("--n", type=int, help="faults of each part of a kind")
    parser.add_argument("--seed", type=int, default=0, help="of what is struck, where and when")
    parser.add_argument("--only", nargs="+", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--json", type=Path, help="write every fault to this file")
    return parser.parse_args()


def cannot(kind: str, folder: Path) -> str:
    """Why a kind of fault cannot be injected here; empty where it can."""
    if kind == "disk":
        return cannot_mount(folder)
    if kind.startswith("ray") and importlib.util.find_spec("ray") is None:
        return "Ray is not installed"
    return ""


def main() -> None:
    """The command."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a cluster ends with this
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "world").mkdir()
        world = make_world(Path(name) / "world")
        for kind in options.only or KINDS:
            if why := cannot(kind, Path(name)):
                tally.not_run[kind] = why
                continue
            inject, *usual = KINDS[kind]
            n = options.n or usual[options.quick]
            # Drawn by kind: a kind alone has the faults that it has among all.
            rng = Random(f"{options.seed} {kind}")
            for fault in inject(world, n, rng):
                tally.add(fault)
                if options.json:  # at once: what is stopped has told what it found
                    tally.save(options.json)
    print(tally.markdown())
    sys.exit(1 if tally.n_wrong or not tally.faults else 0)


if __name__ == "__main__":
    main()
