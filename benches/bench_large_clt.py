"""Capture and FAP with a CLT whose decoders do not fit: peak memory and bytes read.

    python benches/bench_large_clt.py [--small] [--way lazy|eager] [--json]     # Linux only

8 GB of decoders (a sparse file), a GPT-2 of 24 layers, 32 prompts. Each way runs in a process of
its own; memory is the peak resident set over what the model alone takes. Every entry of the dump
must equal that of the same transcoder cut down to the features that can fire, all in memory. Fails
above 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import pie_fast
from making_clts import Shape, alive, write_alive, write_large, write_model

#: 8.3 GB of decoders
LARGE = Shape(n_layers=24, n_features=27_000, d_model=512, n_alive=300)
SMALL = Shape(n_layers=6, n_features=2_000, d_model=128, n_alive=100)
N_PROMPTS, LENGTH, BATCH = 32, 16, 16
LIMIT = 2 * 1024**3
WAYS = ("lazy", "eager")


def resident(key: str) -> int:
    """`VmRSS` or `VmHWM` (the peak) of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def bytes_read() -> int:
    """What this process has asked the system to read."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def prompts() -> pie_fast.Behavior:
    from pie_fast.behaviors import Behavior, Prompt

    rng = np.random.default_rng(7)

    def tokens() -> tuple[int, ...]:
        return (0, *rng.integers(1, 500, LENGTH - 1).tolist())

    some = [Prompt(tokens(), answer=3, foil=5, counterfactual=tokens()) for _ in range(N_PROMPTS)]
    return Behavior("random", tuple(some), ())


def measure(model: str, clt: str, out: str, lazy: bool) -> dict[str, float]:
    """One capture in this process."""
    from pie_fast.capture import capture
    from pie_fast.clt import load_clt
    from pie_fast.replacement_model import load_model

    # The model with a transcoder of next to nothing, and its first pass: what is not ours.
    own = load_model(model, str(Path(clt).parent / "alive"), device="cpu")
    capture(own, prompts(), Path(out) / "alive", batch_size=BATCH)
    alone, read = resident("VmRSS"), bytes_read()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = time.perf_counter()
    large = load_clt(clt, lazy_encoder=lazy)
    ready = load_model(own.host.bridge, large, device="cpu")
    capture(ready, prompts(), Path(out) / "large", batch_size=BATCH)
    return {
        "seconds": time.perf_counter() - start,
        "memory": resident("VmHWM") - alone,
        "read": bytes_read() - read,
    }


def check_equal(folder: Path, shape: Shape) -> int:
    """Every entry of the large one, by the features that can fire; how many there are."""
    places = np.stack([alive(shape, layer) for layer in range(shape.n_layers)])
    one, other = (pie_fast.open_dump(folder / name) for name in ("large", "alive"))
    for rank_by in ("mean_abs", "signed", "magnitude"):
        large = one.score(rank_by).reshape(shape.n_layers, shape.n_features)
        small = other.score(rank_by).reshape(shape.n_layers, shape.n_alive)
        mine = np.take_along_axis(large, places, 1)
        assert np.allclose(mine, small, rtol=1e-3, atol=1e-8), rank_by
        assert np.count_nonzero(large) == np.count_nonzero(mine), rank_by
    assert one.n_active == other.n_active
    return int(one.n_active)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--way", choices=WAYS, help="of the encoders; both by default")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    shape = SMALL if chosen.small else LARGE
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model", shape)
        write_large(folder / "large", shape)
        write_alive(folder / "alive", shape)
        on_disk = sum(path.stat().st_size for path in (folder / "large").iterdir())
        for way in [chosen.way] if chosen.way else WAYS:
            out = folder / way
            command = [sys.executable, __file__, "--one", folder / "model", folder / "large", out]
            done = subprocess.run(
                [*map(str, command), way], check=True, capture_output=True, text=True
            )
            found[way] = json.loads(done.stdout.splitlines()[-1])
            found[way]["entries"] = check_equal(out, shape)
    said = {"decoder_bytes": shape.decoder_bytes, "files": on_disk, **found}
    if chosen.json:
        print(json.dumps(said))
    else:
        print(f"decoders {shape.decoder_bytes / 1e9:.2f} GB, files {on_disk / 1e9:.2f} GB")
        for way, row in found.items():
            print(
                f"{way} encoders: peak {row['memory'] / 2**20:.0f} MiB over the model's, read "
                f"{row['read'] / 1e9:.2f} GB ({row['read'] / on_disk:.0%} of the files), "
                f"{row['seconds'] / N_PROMPTS:.2f} s a prompt, {row['entries']} entries"
            )
    missed = [way for way, row in found.items() if row["memory"] > LIMIT]
    if missed:
        sys.exit(f"over {LIMIT / 2**20:.0f} MiB: {', '.join(missed)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(*sys.argv[2:5], lazy=sys.argv[5] == "lazy")))
    else:
        main()
