"""Capture: every batch prepared once, run forward and backward, and streamed into a feature dump.

An entry is a (prompt, feature, position) whose activation or baseline is not zero, with the
activation and the first-order effect on the metric. Batches are cut from the first prompt on, so a
resumed capture runs the same batches as one that was never stopped; where memory runs out they are
halved from there on, which the manifest records (`batches`).

While a batch runs, another thread checks, sorts and writes what the one before gave. With an engine
batches run on its workers; what they give is appended here, in order, so the files are the same.
Means are summed by the workers too, once, and sent with what all batches share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.behaviors import Behavior, Prompt
from pie_fast.behind import Behind
from pie_fast.crew import Crew, crew_of
from pie_fast.cuts import Cuts
from pie_fast.dump import DumpWriter, FeatureDump, PromptTable, open_dump
from pie_fast.errors import BehaviorError, PieFastError
from pie_fast.gradients import check_gradient
from pie_fast.measuring import Batches, Measured, Measuring
from pie_fast.metrics import check_metric
from pie_fast.model import Replacer, Switches

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
    unit: str = "feature",
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
    crew: Crew | None = None,
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
        batch_size: Prompts a batch; recorded, because it decides the last bits. Halved as often as
            memory runs out.
        unit: What the run counts, `feature` or `node`; recorded, entries are the same.
        resume: Go on with a dump that was stopped.
        force: Replace a dump that is there.
        progress: Called after each batch.
        note: Called with what is to be told, as that batches were halved.
        crew: Workers that hold the model; None: this process.

    Returns:
        The dump, opened.

    Raises:
        BehaviorError: The behaviour does not fit the model or the metric.
        PieFastError: One prompt alone needs more memory than there is.
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
    unmeasured = np.zeros(len(prompts))
    writer = DumpWriter(
        path,
        prompts=prompt_table(prompts, unmeasured, unmeasured),
        manifest=describe(model, behavior, split, metric, switches, gradient, batch_size, unit),
        measured=False,
        resume=resume,
        force=force,
    )
    cuts = Cuts(batch_size, writer.recorded.get("batches"))

    def halved(told: str) -> None:
        writer.record("batches", cuts.spans)
        if note is not None:
            note(told)

    try:
        with crew_of(model) if crew is None else nullcontext(crew) as asked:
            batches = Batches(asked, prompts, cuts, halved)
            means = batches.means() if switches.baseline == "mean" else None
            how = Measuring(switches, means, metric, gradient)
            _write_batches(writer, batches, how, progress)
    except PieFastError:
        # A behaviour or a model that is wrong from the start leaves nothing behind.
        if writer.next_prompt == 0:
            writer.discard()
        raise
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
    unit: str = "feature",
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
        "unit": unit,
        "ignore_positions": model.ignore_positions,
        "hooks": [model.read_hook, model.write_hook],
        "threshold": 0.0,
        "dropped_mass": 0.0,
        "batch_size": batch_size,
        "device": str(model.device.type),
        "dtypes": model.host.dtypes,
    }


def _write_batches(
    writer: DumpWriter, batches: Batches, how: Measuring, progress: Progress | None
) -> None:
    """All batches that the dump does not have yet."""
    written = writer.next_prompt
    # The last batch of what is there runs again: its metrics tell whether this is the same model.
    first = batches.cuts.start(max(written - 1, 0))
    with Behind() as behind:
        for found in batches.measured(how, first):
            behind.call(_append, writer, found, first, written)
            first += found.n_prompts
            if progress is not None:
                progress(first, len(batches.prompts))


def _append(writer: DumpWriter, found: Measured, first: int, written: int) -> None:
    """Hand over the prompts of a batch that the dump does not have yet."""
    if first < written:
        writer.check_metrics(first, found.clean, found.empty)
    done = min(max(written - first, 0), found.n_prompts)
    if done == found.n_prompts:
        return
    entries = found.entries.wait()
    ptr = entries.prompt_ptr(found.n_prompts)
    rest = entries.take(slice(ptr[done], None))
    writer.append(
        ptr[done:] - ptr[done],
        rest.feature.astype(np.uint32),
        rest.position,
        rest.activation,
        rest.effect,
        metrics=(found.clean[done:], found.empty[done:]),
    )
