"""A cluster of two hosts: network namespaces joined by one cable, as machines of a rack are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from running import World, contents, run_cli, write_behavior

#: name, address and network card of each host; the first is the cluster's head
HOSTS = (("pie-fast-a", "10.213.77.1", "pf-a"), ("pie-fast-b", "10.213.77.2", "pf-b"))
PORT = 6399

#: where a worker of each asks its network who it is
WHERE = """
import sys
import tempfile
from pie_fast.engine import open_engine
import engine_work as work
with open_engine("ray", address="auto", workers=2) as engine, engine.workers(work.nothing) as some:
    print(*sorted(set(some.map(work.host, range(6)))))
"""


def permitted() -> str | None:
    """Why there can be no second host here; None where there can."""
    try:
        subprocess.run(["ip", "netns", "add", "pie-fast-try"], check=True, capture_output=True)
        subprocess.run(["ip", "netns", "del", "pie-fast-try"], check=True, capture_output=True)
    except FileNotFoundError:
        return "there is no ip (Debian's iproute2) on this machine"
    except subprocess.CalledProcessError as error:
        return f"this machine permits no network namespaces: {error.stderr.decode().strip()}"
    return None


@dataclass(frozen=True)
class Rack:
    """Two hosts.

    Attributes:
        env: Of whatever runs there.
    """

    env: dict[str, str]

    def on(self, host: int, *command: object) -> list[str]:
        """A command on a host."""
        return ["ip", "netns", "exec", HOSTS[host][0], *map(str, command)]

    def run(self, *command: object) -> str:
        """What a command on the first host says."""
        done = subprocess.run(
            self.on(0, *command), env=self.env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture(scope="module")
def rack() -> Iterator[Rack]:
    why_not = permitted()
    if why_not is not None:
        pytest.skip(why_not)
    here = str(Path(__file__).parents[1])
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])),
        "RAY_ADDRESS": f"{HOSTS[0][1]}:{PORT}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",  # nobody else is on this network
    }
    found = Rack(env)
    with ExitStack() as stack:
        for name, _, _ in HOSTS:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
        ip("link", "add", HOSTS[0][2], "type", "veth", "peer", "name", HOSTS[1][2])
        for name, address, card in HOSTS:
            ip("link", "set", card, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", card)
            for device in (card, "lo"):
                ip("-n", name, "link", "set", device, "up")
        folder = tempfile.mkdtemp(prefix="pie")  # the path of a socket is 107 bytes at most
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for host, (_, address, _) in enumerate(HOSTS):
            role = ("--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={folder}")
            if host:
                role = (f"--address={HOSTS[0][1]}:{PORT}",)
            start = ("-m", "ray.scripts.scripts", "start", f"--node-ip-address={address}")
            # One processor each: two workers need both hosts.
            started = subprocess.Popen(
                found.on(host, sys.executable, *start, "--num-cpus=1", "--block", *role),
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(started.wait)
            stack.callback(started.terminate)
            assert started.stdout is not None
            stack.callback(started.stdout.close)
            said = []
            for line in started.stdout:
                said.append(line)
                if "Ray runtime started" in line:
                    break
            assert "Ray runtime started" in said[-1], said
        yield found


def test_two_hosts_make_the_run_of_one(
    rack: Rack, tiny_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    assert rack.run(sys.executable, "-c", WHERE).split() == [address for _, address, _ in HOSTS]
    world = World(*tiny_folders, write_behavior(tmp_path / "some.jsonl", 8, 4))
    asked = ("discover", *world.sources, "--budget", 4, "--batch-size", 2, "--no-curve")
    runs = {"one": tmp_path / "one", "two": tmp_path / "two"}
    assert run_cli(*asked, "--out", runs["one"]).code == 0
    spread = ("--engine", "ray", "--address", "auto", "--workers", 2)
    rack.run(sys.executable, "-m", "pie_fast.cli", *asked, *spread, "--out", runs["two"])
    assert result_of(runs["one"]) == result_of(runs["two"])


def result_of(run: Path) -> dict[str, object]:
    """All files, the result but for what it says of this very run."""
    files: dict[str, object] = dict(contents(run))
    result = json.loads((run / "result.json").read_bytes())
    files["result.json"] = {k: v for k, v in result.items() if k not in ("command", "checksum")}
    del files["journal.jsonl"]
    return files
