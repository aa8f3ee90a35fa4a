"""A feature dump to try an installed pie_fast on: `python packing/small_dump.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pie_fast.dump import DumpWriter, PromptTable

N_PROMPTS, LENGTH, N_LAYERS, N_FEATURES = 4, 5, 2, 8


def write(path: Path) -> None:
    """Write a dump: every feature of layer 0 active in the first prompt, the last one strongest."""
    prompts = PromptTable(
        tokens=np.zeros(N_PROMPTS * LENGTH, np.int32),
        prompt_ptr=np.arange(N_PROMPTS + 1, dtype=np.int64) * LENGTH,
        answer=np.ones(N_PROMPTS, np.int32),
        foil=np.zeros(N_PROMPTS, np.int32),
        answer_position=np.full(N_PROMPTS, LENGTH - 1, np.int32),
        metric_clean=np.ones(N_PROMPTS),
        metric_baseline=np.zeros(N_PROMPTS),
    )
    shape = {"n_layers": N_LAYERS, "n_features": N_FEATURES}
    features = np.arange(N_FEATURES, dtype=np.uint32)
    rising = np.arange(1, N_FEATURES + 1, dtype=np.float32)
    pointers = np.array([0, *[N_FEATURES] * N_PROMPTS], np.int64)
    with DumpWriter(path, prompts=prompts, manifest=shape) as writer:
        writer.append(pointers, features, np.zeros(N_FEATURES, np.uint32), rising, rising)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
