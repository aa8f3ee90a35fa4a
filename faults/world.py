"""A tiny model, a behaviour, a dump of two shards, its synergies and a run: what faults strike."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from children import in_child

import tiny
from running import write_behavior

#: a shard ends after 256 prompts; a run needs no more than a few
N_PROMPTS, N_FEW = 280, 24

#: more than a block of rows
POOL = 24


@dataclass(frozen=True)
class World:
    """Folders of one campaign.

    Attributes:
        folder: All of it.
    """

    folder: Path

    @property
    def model_and_clt(self) -> tuple[object, ...]:
        """`--model` and `--clt`."""
        return ("--model", self.folder / "model", "--clt", self.folder / "clt")

    @property
    def many(self) -> Path:
        """A behaviour of more than a shard."""
        return self.folder / "many.jsonl"

    @property
    def few(self) -> Path:
        """A smaller one."""
        return self.folder / "few.jsonl"

    @property
    def dump(self) -> Path:
        """Captured on `many`, with synergies."""
        return self.folder / "dump"

    @property
    def run(self) -> Path:
        """What `discover` made of `few`."""
        return self.folder / "run"

    def capture(self, out: Path) -> tuple[object, ...]:
        """The command that makes `dump`."""
        sources = (*self.model_and_clt, "--behavior", self.many, "--batch-size", 48)
        return ("capture", *sources, "--out", out, "--ignore-estimate")

    def discover(self, out: Path) -> tuple[object, ...]:
        """The command that makes `run`."""
        small = ("-k", 6, "--method", "fap-synergy", "--no-curve", "--stability", 0)
        sources = (*self.model_and_clt, "--behavior", self.few)
        return ("discover", *sources, "--out", out, *small, "--ignore-estimate")


def make_world(folder: Path) -> World:
    """All of it; commands run in processes of their own."""
    world = World(folder)
    tiny.write_gpt2(folder / "model")
    tiny.write_clt(folder / "clt")
    write_behavior(world.many, N_PROMPTS, 0)
    write_behavior(world.few, N_FEW, 8)
    synergy = ("synergy", world.dump, *world.model_and_clt, "--pool", POOL)
    for command in (world.capture(world.dump), synergy, world.discover(world.run)):
        code, said = in_child(command).wait()
        if code:
            raise RuntimeError(f"{command[0]} ended with {code}: {said}")
    return world
