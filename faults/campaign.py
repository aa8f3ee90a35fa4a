"""Inject faults and count what became of them: `python faults/campaign.py [--quick]`.

Prints a table as Markdown; `--json FILE` writes every fault. Ends with 1 if an answer was wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from random import Random

from clocks import clock_jumps
from disk import KIND as FULL_DISK
from disk import cannot_mount, full_disks
from files import file_faults
from kills import driver_kills
from tally import Tally
from world import make_world


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small part of it, for CI")
    parser.add_argument("--seed", type=int, default=0, help="of what is struck, where and when")
    parser.add_argument("--only", default="", help="files, kills, disk or clocks")
    parser.add_argument("--json", type=Path, help="write every fault to this file")
    options = parser.parse_args()
    rng = Random(options.seed)
    n_files, n_others = (96, 1) if options.quick else (1000, 20)
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "world").mkdir()
        world = make_world(Path(name) / "world")
        kinds = {"kills": driver_kills, "clocks": clock_jumps, "disk": full_disks}
        if why := cannot_mount(Path(name)):
            tally.not_run[FULL_DISK] = why
            del kinds["disk"]
        for kind, inject in kinds.items():
            if options.only in kind:
                tally.add(inject(world, n_others, rng))
        # Last: the others fork, which is best before this process has threads.
        if options.only in "files":
            tally.add(file_faults(world, n_files, rng))
    print(tally.markdown())
    if options.json:
        tally.save(options.json)
    sys.exit(1 if tally.n_wrong or not tally.faults else 0)


if __name__ == "__main__":
    main()
