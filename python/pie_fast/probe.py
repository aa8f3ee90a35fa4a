"""Look at a few prompts to say what all of them will need: active features, and seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from pie_fast.attribution import gate_effects
from pie_fast.behaviors import Behavior, Prompt
from pie_fast.capture import split_prompts
from pie_fast.estimate import Activity, Shape, memory_left
from pie_fast.model import Replacer, Setup, Switches, make_batch

#: prompts that tell how many features are active; times need a batch of the run's own size
FEW = 4


def shape_of(model: Replacer) -> Shape:
    """The sizes of a model that is loaded."""
    host = model.host
    return Shape(
        n_layers=host.n_layers,
        d_model=host.d_model,
        n_heads=int(host.bridge.cfg.n_heads),
        vocab=host.vocab_size,
        n_parameters=sum(p.numel() for p in host.bridge.original_model.parameters()),
        n_features=model.clt.n_features,
        n_writes=model.clt.n_writes,
        lazy_encoder=not all(model.clt.encoder(layer).held for layer in model.clt.covered),
    )


def probe(
    model: Replacer,
    behavior: Behavior,
    switches: Switches,
    metric: str,
    gradient: str = "full",
    n_prompts: int = FEW,
) -> Activity:
    """Run the first prompts forward and backward; nothing of it is counted as spent.

    Args:
        model: The replacement model.
        behavior: Its selection prompts.
        switches: Of the run to come.
        metric: Of the behaviour.
        gradient: A rule of `pie_fast.gradients`.
        n_prompts: How many, together in one batch.

    Raises:
        BehaviorError: There are no selection prompts.
    """
    prompts = split_prompts(behavior, "selection")[:n_prompts]
    spent = model.spent
    try:
        one, *_ = _run(model, prompts[:1], switches, metric, gradient)
        setup, prepared, differentiated = _run(model, prompts, switches, metric, gradient)
    finally:
        model.spent = spent
    both = 2 if switches.baseline == "counterfactual" else 1
    tokens, first = (int(s.counted.sum()) * both for s in (setup, one))
    distinct, alone = _distinct(setup), _distinct(one)
    exponent = 1.0
    if tokens > first > 0 and alone > 0:
        exponent = math.log(distinct / alone) / math.log(tokens / first)
    forward = prepared / (both * len(prompts))
    counted = setup.counted[..., None]
    active = sum(int(((c.values != 0) & counted).sum()) for c in setup.clean)
    places = max(int(setup.counted.sum()), 1) * len(setup.clean)
    return Activity(
        active=active / places,
        entries=_entries(setup) / places,
        distinct=distinct,
        tokens=tokens,
        exponent=min(max(exponent, 0.0), 1.0),
        seconds_forward=forward,
        seconds_backward=max(differentiated / len(prompts) - forward, 0.0),
    )


def memory_left_on(device: torch.device) -> int:
    """Bytes that a device can still give."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device)
    return memory_left()


def _run(
    model: Replacer, prompts: Sequence[Prompt], switches: Switches, metric: str, gradient: str
) -> tuple[Setup, float, float]:
    """A prepared batch, the seconds of that, and of its forward and backward pass."""
    batch = make_batch(prompts, model.device)
    start = time.perf_counter()
    setup = model.prepare(batch, switches, prompts)
    _finish(model.device)
    prepared = time.perf_counter()
    gate_effects(model, setup, metric, gradient=gradient)
    _finish(model.device)
    return setup, prepared - start, time.perf_counter() - prepared


def _distinct(setup: Setup) -> int:
    """Features that are active on some token, or at its baseline."""
    pairs = zip(setup.clean, setup.baseline, strict=True)
    return sum(len(torch.unique(torch.cat([clean.ids, base.ids]))) for clean, base in pairs)


def _entries(setup: Setup) -> int:
    """Places where a feature is active or has a baseline."""
    total = 0
    for clean, base in zip(setup.clean, setup.baseline, strict=True):
        ids = torch.unique(torch.cat([clean.ids, base.ids]))
        there = (clean.at(ids) != 0) | (base.at(ids) != 0)
        total += int((there & setup.counted[..., None]).sum())
    return total


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
