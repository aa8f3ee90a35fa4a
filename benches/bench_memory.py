"""Peak memory of scores and of decoder cosines, each way in a process of its own.

    python benches/bench_memory.py [--full]      # Linux only

Anonymous memory is what a machine must have; pages of a mapped file can be dropped. The kernel
keeps no peak of it, so a thread looks every millisecond. Ours maps no file. What the imports took
is subtracted, and every way has run once on two rows, so that its threads and buffers are there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import bench_decoder
import bench_score
import pie_fast
from harness import Peer, Suite, absent, suite
from making_dumps import zipf_dump
from record import installed

#: Less than this is the noise of the allocator: no ratio is taken to less.
LEAST_MIB = 1.0

#: Entries that take long enough to be watched.
LONG = 10**7


def status_mib(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def peak_anonymous(work: Callable[[], object], times: int = 1) -> float:
    """The most anonymous memory above what was there before, in MiB.

    Short work is done several `times`, so that the watcher sees all of it.
    """
    before = peak = status_mib("RssAnon")
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(1e-3):
            peak = max(peak, status_mib("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    answer = work()  # kept: the answer counts
    for _ in range(times - 1):
        del answer
        answer = work()
    peak = max(peak, status_mib("RssAnon"))
    done.set()
    watcher.join()
    del answer
    return peak - before


SCORES: dict[str, Callable[[pie_fast.FeatureDump], np.ndarray]] = {
    "ours": lambda dump: dump.score("mean_abs"),
    "numpy": bench_score.numpy_mean_abs,
    "torch": bench_score.torch_mean_abs,
}


def measure(kind: str, folder: str, way: str, *sizes: str) -> float:
    """One way in this process; ``sizes`` are the numbers that make the input."""
    numbers = [int(size) for size in sizes]
    if way == "torch":
        import torch

        torch.ones(8, 8) @ torch.ones(8, 8)
    if kind == "score":
        dump = pie_fast.open_dump(folder)
        return peak_anonymous(partial(SCORES[way], dump), max(1, LONG // numbers[0]))
    m, *shape = numbers
    n_features, n_targets, d_model = shape
    case = bench_decoder.make_case(Path(folder), (n_features, n_targets, d_model), m)
    two = bench_decoder.Case(case.folder, case.shape, case.ids[:2])
    bench_decoder.WAYS[way](two)
    return peak_anonymous(partial(bench_decoder.WAYS[way], case))


def fresh(kind: str, folder: Path, way: str, *sizes: int) -> float:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--one", kind, str(folder), way, *map(str, sizes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return max(float(done.stdout), LEAST_MIB)


def score(run: Suite, folder: Path) -> None:
    n_ids, found = 16_384 * 26, {}
    for t in [10**6, 10**7] + [10**8] * run.full:
        dump = zipf_dump(folder / str(t), t, n_ids)
        found[t] = fresh("score", dump, "ours", t)
        peers = {}
        for way in ("numpy", "torch"):
            if installed(way):
                peers[f"{way}, whole shard"] = fresh("score", dump, way, t), Peer(lambda: None)
            else:
                peers[f"{way}, whole shard"] = 0.0, absent(way)
        run.figures(f"memory of scores, T={t:.0e} N={n_ids:.3g}", "MiB", found[t], peers, "B")
    least, most = found[10**6], found[max(found)]
    # Memory is by features and threads, not by entries: ten times the entries, a quarter more.
    bound = Peer(lambda: None, gate=0.8, note="ours at fewer entries: does not grow with T")
    title = f"memory of scores, ours at T={max(found):.0e}"
    run.figures(title, "MiB", most, {"ours at T=1e+06": (least, bound)}, "B")


#: The target's gate, of 4,000 rows of 26 x 2304.
FLOOR = 10


def decoder(
    run: Suite, folder: Path, shape: tuple[int, int, int], m: int, gate: float | None
) -> None:
    bench_decoder.make_case(folder, shape, m)
    ours = fresh("decoder", folder, "ours", m, *shape)
    note = "" if gate == FLOOR else "rows are short here: the answer, M x M, is much of ours"
    torch_peer = Peer(lambda: None, gate=gate, floor=FLOOR, goal=20, note=note)
    if not installed("torch"):
        torch_peer = absent("torch", torch_peer.gate)
    peers = {
        "numpy, layer by layer": (fresh("decoder", folder, "numpy", m, *shape), Peer(lambda: None)),
        "torch get_slice, f32": (
            0.0 if torch_peer.missing else fresh("decoder", folder, "torch", m, *shape),
            torch_peer,
        ),
    }
    title = f"anonymous memory of redundancy, M={m} of {list(shape)}"
    run.figures(title, "MiB", ours, peers, "C(ii)")


def main() -> None:
    with suite() as run, tempfile.TemporaryDirectory() as name:
        score(run, Path(name))
        small = (2048, 12, 768)
        decoder(run, Path(name) / "small", small, 400, gate=6)
        decoder(run, Path(name) / "small", small, 2000, gate=None)
        if run.full:
            for m in (400, 4000):
                decoder(run, Path(name) / "full", (32_768, 26, 2304), m, gate=FLOOR)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(measure(*sys.argv[2:]))
    else:
        main()
