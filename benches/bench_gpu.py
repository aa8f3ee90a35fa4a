"""A capture of a 1B-shaped random Llama with a CLT of 16 x 32,768 features: time outside the model.

    python benches/bench_gpu.py [--device cuda] [--dtype bfloat16] [--prompts 256] [--length 64]
    python benches/bench_gpu.py --tiny                  # the same code on a CPU, in seconds

The model's own time is what plain HuggingFace takes for the passes that a capture needs: three
forward passes (prompt, counterfactual, empty circuit) and one forward and backward pass. Goal: less
than 15% of a capture is anything else. Decoders are files without blocks, so that the 18 GB of them
are read and multiplied but take no disk.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from making_models import ONE_B, TINY, random_behavior, random_model
from pie_fast.capture import capture
from pie_fast.model import resolve_device

GOAL = 0.15


def timed(work: Callable[[], object], device: torch.device, rounds: int = 3) -> float:
    """Seconds, the least of several rounds after one that warms up."""
    spent = []
    for _ in range(rounds + 1):
        _finish(device)
        start = time.perf_counter()
        work()
        _finish(device)
        spent.append(time.perf_counter() - start)
    return min(spent[1:])


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def own_seconds(model: Any, tokens: torch.Tensor, n_forward: int) -> float:
    """Of plain HuggingFace: so many forward passes, and one forward and backward pass."""
    plain, embed = model.host.bridge.original_model, None

    def forward() -> None:
        with torch.no_grad():
            plain(tokens, logits_to_keep=1, use_cache=False)

    def both() -> None:
        nonlocal embed
        embed = plain.get_input_embeddings()(tokens).detach().requires_grad_()
        plain(inputs_embeds=embed, logits_to_keep=1, use_cache=False).logits.sum().backward()

    return n_forward * timed(forward, model.device) + timed(both, model.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    device = resolve_device("cpu" if options.tiny else options.device)
    sizes = TINY if options.tiny else ONE_B
    if options.tiny:
        options.prompts, options.length = min(options.prompts, 32), min(options.length, 16)
    behavior = random_behavior(sizes, options.prompts, options.length)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clt").mkdir()
        model = random_model(sizes, folder / "clt", str(device), zeros=not options.tiny)
        model.host.bridge.to(getattr(torch, options.dtype))
        notes: list[str] = []
        start = time.perf_counter()
        first = capture(
            model, behavior, folder / "first", batch_size=options.batch_size, note=notes.append
        )
        cold = time.perf_counter() - start
        size = min(n for _, n in first.manifest.get("batches", [[0, options.batch_size]]))
        whole = timed(
            lambda: capture(model, behavior, folder / "again", batch_size=size, force=True),
            device,
            2,
        )
        tokens = torch.tensor(
            [prompt.tokens for prompt in behavior.selection[:size]], device=device
        )
        n_batches = -(-options.prompts // size)
        own = own_seconds(model, tokens, 3) * n_batches
        print(
            json.dumps(
                {
                    "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
                    "dtype": options.dtype,
                    "layers x features": [sizes.n_layers, sizes.n_features],
                    "prompts": options.prompts,
                    "length": options.length,
                    "batch_size": size,
                    "entries": int(first.n_active),
                    "first_seconds": round(cold, 3),
                    "ms_per_prompt": round(1e3 * whole / options.prompts, 3),
                    "own_ms_per_prompt": round(1e3 * own / options.prompts, 3),
                    "share_outside_model": round(1 - own / whole, 3),
                    "goal": GOAL,
                    "peak_gpu_bytes": torch.cuda.max_memory_allocated()
                    if device.type == "cuda"
                    else None,
                    "notes": notes,
                }
            )
        )


if __name__ == "__main__":
    main()
