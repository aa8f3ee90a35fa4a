"""Decoder rows and their cosines, read from a bf16 file, against numpy and torch.

    python benches/bench_decoder.py [--full]

The small file is the decoder of one layer of a toy CLT; --full makes the 3.9 GB of layer 0 of a
CLT with 32,768 features a layer, 26 layers and d_model 2,304. Peak memory of each way is measured
in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import pie_fast
from harness import Peer, Suite, suite
from pie_fast.storage import replacing, to_bf16


@dataclass
class Case:
    """A decoder file and the rows that are asked for."""

    folder: Path
    shape: tuple[int, int, int]
    ids: np.ndarray

    @property
    def file(self) -> Path:
        return self.folder / "W_dec_0.safetensors"


def make_case(folder: Path, shape: tuple[int, int, int], m: int) -> Case:
    """A bf16 decoder of random numbers, written in pieces, and ``m`` of its rows."""
    n_features, n_targets, d_model = shape
    case = Case(folder, shape, np.sort(np.random.default_rng(1).permutation(n_features)[:m]))
    folder.mkdir(exist_ok=True)
    if case.file.exists():
        return case
    n_bytes = n_features * n_targets * d_model * 2
    header = (
        f'{{"W_dec_0":{{"dtype":"BF16","shape":[{n_features},{n_targets},{d_model}],'
        f'"data_offsets":[0,{n_bytes}]}}}}'
    ).encode()
    header += b" " * (-len(header) % 8)
    rng = np.random.default_rng(0)
    with replacing(case.file) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for begin in range(0, n_features, 256):
            rows = min(256, n_features - begin)
            values = rng.standard_normal((rows, n_targets, d_model), dtype=np.float32)
            file.write(to_bf16(values).tobytes())
    return case


def ours_rows(case: Case) -> np.ndarray:
    return pie_fast.decoder_rows(case.file, "W_dec_0", case.ids)


def ours_cosines(case: Case) -> np.ndarray:
    n_features, n_targets, _ = case.shape
    return pie_fast.redundancy(case.folder, case.ids, n_layers=n_targets, n_features=n_features)


def memmap(case: Case) -> np.ndarray:
    with case.file.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    return np.memmap(case.file, np.uint16, "r", start, case.shape)


def widened(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def numpy_rows(case: Case) -> np.ndarray:
    return widened(memmap(case)[case.ids])


def torch_rows(case: Case) -> np.ndarray:
    import torch
    from safetensors import safe_open

    with safe_open(case.file, "pt") as file:
        rows = file.get_slice("W_dec_0")[torch.from_numpy(case.ids)]
    return rows.float().numpy()


def cosines(gram: np.ndarray) -> np.ndarray:
    norms = np.sqrt(np.diag(gram))
    return gram / norms / norms[:, None]


def numpy_cosines(case: Case) -> np.ndarray:
    """Layer by layer, so that memory stays small; `x @ x.T` is a syrk."""
    bits = memmap(case)
    gram = np.zeros((len(case.ids), len(case.ids)), np.float32)
    for target in range(case.shape[1]):
        rows = widened(bits[case.ids, target])
        gram += rows @ rows.T
    return cosines(gram)


def torch_cosines(case: Case) -> np.ndarray:
    import torch

    rows = torch.from_numpy(torch_rows(case)).flatten(1)
    return cosines((rows @ rows.T).numpy())


def close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Sums of f32 products in another order."""
    return np.allclose(ours, theirs, atol=2e-5)


WAYS = {
    "ours": ours_cosines,
    "numpy": numpy_cosines,
    "torch": torch_cosines,
}


def peak_mib(case: Case, way: str) -> float:
    """Peak resident memory of one way, in a process of its own, above that of its imports."""
    arguments = [str(case.folder), ",".join(map(str, case.shape)), str(len(case.ids)), way]
    command = [sys.executable, __file__, "--peak", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def print_peak(folder: str, shape: str, m: str, way: str) -> None:
    n_features, n_targets, d_model = map(int, shape.split(","))
    case = make_case(Path(folder), (n_features, n_targets, d_model), int(m))
    if way == "torch":
        import torch

        torch.ones(8, 8) @ torch.ones(8, 8)
    # Forget the peak of the imports (Linux only).
    Path("/proc/self/clear_refs").write_text("5")
    before = status_kib("VmRSS")
    WAYS[way](case)
    print((status_kib("VmHWM") - before) / 1024)


def status_kib(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def bench(run: Suite, case: Case, gates: dict[str, float]) -> None:
    size = f"M={len(case.ids)} of {list(case.shape)} bf16"
    if asked := os.environ.get("PIE_FAST_KERNELS"):
        size += f", {asked} kernels"
    run.compare(
        f"decoder rows {size}",
        partial(ours_rows, case),
        {
            "numpy memmap": Peer(partial(numpy_rows, case), gate=gates["rows"]),
            "torch get_slice": Peer(partial(torch_rows, case), gate=gates["rows"]),
        },
        equal=np.array_equal,
        target="C rows",
    )
    run.compare(
        f"redundancy {size}",
        partial(ours_cosines, case),
        {
            "numpy memmap, layer by layer": Peer(
                partial(numpy_cosines, case), gate=gates["numpy"], goal=3, **FLOORS["numpy"]
            ),
            "torch get_slice, f32": Peer(
                partial(torch_cosines, case), gate=gates["torch"], goal=6, **FLOORS["torch"]
            ),
        },
        equal=close,
        target="C(ii)",
    )
    if not Path("/proc/self/clear_refs").exists() or run.only not in f"redundancy {size}":
        return
    peaks = {way: peak_mib(case, way) for way in WAYS}
    print(
        "  peak memory above the imports, MiB: "
        + ", ".join(f"{way} {mib:.0f}" for way, mib in peaks.items())
    )


#: With avx512_bf16; on AVX2 only the f32 kernel is about as fast as numpy's.
WHY_LOWER = "floor: 4000 rows of 26 x 2304; the gate holds without avx512_bf16 too"
FLOORS = {
    "numpy": {"floor": 1.4, "note": WHY_LOWER},
    "torch": {"floor": 3.0, "note": WHY_LOWER},
}
GATES = {"rows": 0.8, "numpy": 0.8, "torch": 1.5}


def main() -> None:
    with suite() as run, tempfile.TemporaryDirectory() as name:
        bench(run, make_case(Path(name) / "small", (2048, 12, 768), 400), GATES)
        bench(run, make_case(Path(name) / "small", (2048, 12, 768), 2000), GATES)
        if run.full:
            bench(run, make_case(Path(name) / "full", (32_768, 26, 2304), 400), GATES)
            bench(run, make_case(Path(name) / "full", (32_768, 26, 2304), 4000), GATES)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print_peak(*sys.argv[2:])
    else:
        main()
