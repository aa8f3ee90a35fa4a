"""Fuzz every target for some seconds and tell what became of it.

The Rust targets are built here with the stable toolchain: libFuzzer needs coverage counters, which
are a pass of LLVM that `-C passes` names (what `cargo fuzz build -s none` does), and no sanitizer.
The Python targets need atheris (`pip install atheris`) and are left out, by name, without it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent.resolve()
TRIPLE = f"{platform.machine()}-unknown-linux-gnu"
FLAGS = (
    "--cfg fuzzing -C passes=sancov-module -C codegen-units=1 -C link-dead-code "
    "-C llvm-args=-sanitizer-coverage-level=4 "
    "-C llvm-args=-sanitizer-coverage-inline-8bit-counters "
    "-C llvm-args=-sanitizer-coverage-pc-table "
    "-C llvm-args=-sanitizer-coverage-trace-compares"
)

#: libFuzzer: memory, seconds of one input, longest input
LIMITS = ("-rss_limit_mb=3000", "-timeout=60", "-max_len=65536")

#: inputs that campaigns may add to the corpus of a target, and the bytes of the longest
KEPT, KEPT_BYTES = 40, 600


@dataclass(frozen=True)
class Result:
    """What became of one target.

    Attributes:
        executions: Inputs that were run.
        cpu_s: User and system seconds.
        crashes: Inputs that ended the target, by path.
    """

    executions: int
    cpu_s: float
    crashes: list[str]


def rust_targets() -> list[str]:
    """Names of the binaries of the crate."""
    manifest = tomllib.loads((HERE / "Cargo.toml").read_text())
    return [target["name"] for target in manifest["bin"]]


def python_targets() -> list[str]:
    """Names of the scripts of `fuzz/python`."""
    return sorted(path.stem for path in (HERE / "python").glob("[a-z]*.py"))


def build() -> Path:
    """Build the Rust targets; the folder of their binaries."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"), "fuzz")
    env = os.environ | {"RUSTFLAGS": FLAGS, "CARGO_TARGET_DIR": str(target)}
    command = ["cargo", "build", "--release", "--quiet", "--locked", "--target", TRIPLE]
    subprocess.run(command, cwd=HERE, env=env, check=True)
    return target / TRIPLE / "release"


def commands(names: list[str]) -> dict[str, list[str]]:
    """How each target is started; Rust ones are built."""
    rust = set(rust_targets())
    binaries = build() if rust & {*names} else None
    scripts = HERE / "python"
    return {
        name: [str(binaries / name)]
        if binaries is not None and name in rust
        else [sys.executable, str(scripts / f"{name}.py")]
        for name in names
    }


def run(command: list[str], options: list[str]) -> tuple[int, float, str]:
    """Exit status, CPU seconds and what was said of one process, its files in memory."""
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch,
        tempfile.TemporaryFile() as said,
    ):
        process = subprocess.Popen(
            [*command, *options],
            env=os.environ | {"TMPDIR": scratch},
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode(errors="replace")
    return process.returncode, used.ru_utime + used.ru_stime, text


def fuzz(name: str, command: list[str], seconds: int, work: Path) -> Result:
    """Run one target on its corpus."""
    corpus, crashes = work / "corpus" / name, work / "crashes" / name
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    known = {*crashes.iterdir()}  # those of earlier runs
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={crashes}/", *LIMITS]
    status, cpu_s, said = run(command, [*options, str(corpus), str(HERE / "corpus" / name)])
    counts = re.findall(r"^(?:#|Done )(\d+)", said, re.MULTILINE)
    if status:
        print(said[-4000:], file=sys.stderr)
    new = {*crashes.iterdir()} - known
    # What took ten seconds is written down too, which on a busy machine says nothing.
    found = sorted(str(path) for path in new if not path.name.startswith("slow-unit-"))
    if status and not found:
        found = [f"{name} ended with {status}"]
    return Result(max(map(int, counts), default=0), round(cpu_s, 1), found)


def keep(name: str, work: Path) -> None:
    """Add inputs that reached something new to the corpus: the longest that are short enough, as
    they reach the most."""
    corpus = HERE / "corpus" / name
    found = {path.read_bytes() for path in (work / "corpus" / name).iterdir()}
    found -= {path.read_bytes() for path in corpus.iterdir()}
    room = KEPT - len([*corpus.glob("kept-*")])
    short = sorted((data for data in found if len(data) <= KEPT_BYTES), key=lambda d: (-len(d), d))
    for data in short[: max(room, 0)]:
        (corpus / f"kept-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)


def summary(results: dict[str, Result], left_out: list[str]) -> dict[str, object]:
    """All targets, and their sums."""
    return {
        "targets": {name: asdict(result) for name, result in results.items()},
        "executions": sum(result.executions for result in results.values()),
        "cpu_s": round(sum(result.cpu_s for result in results.values()), 1),
        "crashes": sum(len(result.crashes) for result in results.values()),
        "left_out": left_out,
    }


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="fuzz/smoke", description="Fuzz every target.")
    parser.add_argument("seconds", type=int, nargs="?", default=5, help="per target, 5 by default")
    parser.add_argument("--build", action="store_true", help="build the Rust targets, no more")
    parser.add_argument("--only", nargs="+", metavar="TARGET", help="these targets")
    parser.add_argument("--jobs", type=int, default=1, help="targets side by side")
    parser.add_argument("--work", type=Path, help="folder of the corpus and crashes, to go on with")
    parser.add_argument("--keep", action="store_true", help="add what was found to fuzz/corpus")
    given = parser.parse_args()
    known = rust_targets() + python_targets()
    unknown = sorted({*(given.only or ())} - {*known})
    if unknown:
        parser.error(f"no target {unknown[0]!r}; there are {', '.join(known)}")
    given.only = [name for name in known if not given.only or name in given.only]
    return given


def main() -> int:
    """Build, run and tell; 1 where a target crashed."""
    given = arguments()
    if given.build:
        build()
        return 0
    without = importlib.util.find_spec("atheris") is None
    left_out = [name for name in given.only if without and name in python_targets()]
    starts = commands([name for name in given.only if name not in left_out])
    work = given.work or Path(tempfile.mkdtemp(prefix="pie-fast-fuzz."))
    with ThreadPoolExecutor(given.jobs) as pool:
        one = [pool.submit(fuzz, *start, given.seconds, work) for start in starts.items()]
        results = {name: found.result() for name, found in zip(starts, one, strict=True)}
    if given.keep:
        for name in starts:
            keep(name, work)
    told = summary(results, left_out)
    print(json.dumps(told, indent=2))
    if not told["crashes"] and given.work is None:
        shutil.rmtree(work)
    return bool(told["crashes"])


if __name__ == "__main__":
    sys.exit(main())
