"""Capture: one forward and one backward pass a batch, streamed into a feature dump.

An entry is a (prompt, feature, position) whose activation or baseline is not zero, with the
activation and the first-order effect on the metric. Batches are cut from the first prompt on, so a
resumed capture runs the same batches as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pie_fast.attribution import gate_effects, own_metric, run_metric
from pie_fast.behaviors import Behavior, Prompt
from pie_fast.dump import DumpWriter, FeatureDump, PromptTable, open_dump
from pie_fast.entries import Entries, entries_of
from pie_fast.errors import BehaviorError, PieFastError
from pie_fast.gradients import check_gradient
from pie_fast.metrics import check_metric
from pie_fast.model import Batch, Replacer, Switches, batches

#: called with the number of prompts done and the number there are
Progress = Callable[[int, int], None]


def capture(
    model: Replacer,
    behavior: Behavior,
    path: str | Path,
    *,
    split: str = "selection",
    metric: str | None = None,
    switches: Switches | None = None,
    gradient: str = "full",
    batch_size: int = 32,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> FeatureDump:
    """Capture activations and attributions of a behaviour's prompts into a feature dump.

    Args:
        model: The replacement model.
        behavior: Whose prompts are run.
        path: Folder of the dump.
        split: `selection` or `held_out`.
        metric: The behaviour's own when None.
        switches: Baseline and the rest; by default counterfactual where the behaviour has them,
            else mean.
        gradient: A rule of `pie_fast.gradients`.
        batch_size: Prompts a batch; recorded, because it decides the last bits.
        resume: Go on with a dump that was stopped.
        force: Replace a dump that is there.
        progress: Called after each batch.

    Returns:
        The dump, opened.

    Raises:
        BehaviorError: The behaviour does not fit the model or the metric.
        OutputExistsError: `path` exists and neither `resume` nor `force` was given.
    """
    metric = metric or behavior.metric
    check_metric(metric, for_gradient_at_clean=True)
    check_gradient(gradient)
    if batch_size < 1:
        raise PieFastError(f"batch_size is {batch_size}, must be at least 1")
    prompts = split_prompts(behavior, split)
    behavior.check_fits(model.host.vocab_size, model.host.n_ctx)
    switches = switches or default_switches(behavior)
    # The metric of the clean and the empty circuit come first: they are part of the prompt table.
    values = [
        _metrics(model, batch, metric, switches, prompts)
        for _, batch in batches(prompts, batch_size, model.device)
    ]
    clean, empty = (np.concatenate([v[i] for v in values]) for i in range(2))
    table = prompt_table(prompts, clean, empty)
    manifest = describe(model, behavior, split, metric, switches, gradient, batch_size)
    writer = DumpWriter(path, prompts=table, manifest=manifest, resume=resume, force=force)
    # Batches start at multiples of the batch size; prompts that are already written are cut off.
    begin = writer.next_prompt - writer.next_prompt % batch_size
    for first, batch in batches(prompts, batch_size, model.device, begin):
        setup = model.prepare(batch, switches, prompts)
        effects = gate_effects(model, setup, metric, gradient=gradient)
        entries = entries_of(effects, setup, model.clt.n_features)
        _append(writer, entries, len(batch), done=max(writer.next_prompt - first, 0))
        if progress is not None:
            progress(first + len(batch), len(prompts))
    writer.close()
    return open_dump(path)


def split_prompts(behavior: Behavior, split: str) -> tuple[Prompt, ...]:
    """The prompts of one split.

    Raises:
        PieFastError: Unknown split.
        BehaviorError: The split is empty.
    """
    if split not in ("selection", "held_out"):
        raise PieFastError(f"split is {split!r}, must be selection or held_out")
    prompts = behavior.selection if split == "selection" else behavior.held_out
    if not prompts:
        raise BehaviorError(f"behavior {behavior.name!r} has no {split} prompts")
    return prompts


def default_switches(behavior: Behavior) -> Switches:
    """Counterfactual baseline where the behaviour has counterfactuals, else mean."""
    return Switches(baseline="counterfactual" if behavior.has_counterfactuals else "mean")


def prompt_table(
    prompts: Sequence[Prompt],
    metric_clean: NDArray[np.float64],
    metric_baseline: NDArray[np.float64],
) -> PromptTable:
    """The prompts of a dump as flat arrays."""

    def flat(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        ptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return np.asarray([t for row in rows for t in row], dtype=np.int32), ptr

    tokens, ptr = flat([p.tokens for p in prompts])
    twins = [p.counterfactual for p in prompts if p.counterfactual is not None]
    whole = len(twins) == len(prompts)
    cf_tokens, cf_ptr = flat(twins) if whole else (None, None)
    return PromptTable(
        tokens=tokens,
        prompt_ptr=ptr,
        answer=np.asarray([p.answer for p in prompts], dtype=np.int32),
        foil=np.asarray([-1 if p.foil is None else p.foil for p in prompts], dtype=np.int32),
        answer_position=np.asarray([p.answer_position for p in prompts], dtype=np.int32),
        metric_clean=metric_clean,
        metric_baseline=metric_baseline,
        counterfactual_tokens=cf_tokens,
        counterfactual_ptr=cf_ptr,
    )


def describe(
    model: Replacer,
    behavior: Behavior,
    split: str,
    metric: str,
    switches: Switches,
    gradient: str,
    batch_size: int,
) -> dict[str, Any]:
    """What the manifest of a dump records about how it was made."""
    return {
        "n_layers": model.clt.n_layers,
        "n_features": model.clt.n_features,
        "model": model.host.name,
        "clt": {"name": model.clt.name, "identity": model.clt.identity},
        "behavior": {"name": behavior.name, "hash": behavior.hash},
        "split": split,
        "metric": metric,
        **switches.to_dict(),
        "gradient": gradient,
        "unit": "feature",
        "ignore_positions": model.ignore_positions,
        "threshold": 0.0,
        "dropped_mass": 0.0,
        "batch_size": batch_size,
        "device": str(model.device.type),
    }


def _metrics(
    model: Replacer,
    batch: Batch,
    metric: str,
    switches: Switches,
    prompts: Sequence[Prompt],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The metric of the model and of the empty circuit: `[batch]` each."""
    setup = model.prepare(batch, switches, prompts)
    nothing = model.make_pool([])
    with torch.no_grad():
        clean = own_metric(setup, metric)
        empty = run_metric(setup, model.run(setup, nothing, rest="baseline"), metric)[0]
    return clean.double().cpu().numpy(), empty.double().cpu().numpy()


def _append(writer: DumpWriter, entries: Entries, n_prompts: int, done: int) -> None:
    """Hand over the prompts of a batch that the dump does not have yet."""
    ptr = entries.prompt_ptr(n_prompts)
    rest = entries.take(slice(ptr[done], None))
    writer.append(
        ptr[done:] - ptr[done],
        rest.feature.astype(np.uint32),
        rest.position,
        rest.activation,
        rest.effect,
    )
