"""The built-in behaviours by name, and :func:`load_behavior`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from pie_fast.behaviors.behavior import Behavior, Prompt
from pie_fast.behaviors.docstring import Docstring
from pie_fast.behaviors.drafting import Draws, Task, check_tokenizer, realise
from pie_fast.behaviors.greater_than import GreaterThan
from pie_fast.behaviors.induction import Induction
from pie_fast.behaviors.ioi import IOI
from pie_fast.behaviors.jsonl import read_jsonl
from pie_fast.behaviors.pools import ARGUMENTS, NAMES
from pie_fast.behaviors.pronoun import Pronoun
from pie_fast.behaviors.successor import Successor
from pie_fast.errors import BehaviorError
from pie_fast.suggestions import did_you_mean

#: Narrow tasks draw on few names and templates, so that a small circuit can carry them on the
#: demo model; the wide ones need hundreds of features, because each name brings its own.
TASKS: dict[str, Task] = {
    "ioi": IOI(names=NAMES[:5], templates=IOI.templates[:2]),
    "ioi-wide": IOI(),
    "docstring": Docstring(arguments=ARGUMENTS[:12]),
    "docstring-wide": Docstring(),
    "greater-than": GreaterThan(),
    "successor": Successor(),
    "induction": Induction(),
    "pronoun": Pronoun(),
}

#: prompts of a generated behaviour when no number is given: half selection, half held out
DEFAULT_PROMPTS = 256

#: tasks with fewer distinct prompts than that
SMALL_TASKS = {"successor": 160}

#: how many draws a new prompt may take before the task is called exhausted
_PATIENCE = 200


def known_behaviors() -> tuple[str, ...]:
    """Names :func:`load_behavior` knows."""
    return tuple(TASKS)


def load_behavior(
    name_or_jsonl: str | Path,
    *,
    tokenizer: Any = None,
    n_prompts: int | None = None,
    seed: int = 0,
    metric: str | None = None,
    n_selection: int | None = None,
    n_held_out: int | None = None,
    counterfactual: str | None = None,
) -> Behavior:
    """Generate a built-in behaviour, or read a JSON Lines file.

    Equal arguments give equal bytes. The splits share no prompt; held-out prompts are drawn
    first, so that they stay the same when only ``n_selection`` changes.

    Args:
        name_or_jsonl: One of :func:`known_behaviors`, or the path of a ``.jsonl`` file.
        tokenizer: HuggingFace tokenizer of the model; files that hold only ids need none.
        n_prompts: Prompts in both splits together (usually 256; files: all).
        seed: Seed of the draws, and of the split of a file that names no splits.
        metric: One of ``METRICS`` instead of the task's own.
        n_selection: Size of the selection split; the rest of ``n_prompts`` if not given.
        n_held_out: Size of the held-out split; half of ``n_prompts`` if not given.
        counterfactual: Another kind of counterfactual, where the task has several.

    Raises:
        BehaviorError: The name is unknown, a size is not valid, the task does not fit the
            tokenizer, or it has fewer distinct prompts than asked for.
    """
    check_known(name_or_jsonl)
    name = str(name_or_jsonl)
    if name not in TASKS:
        if counterfactual is not None:
            raise BehaviorError(
                f"counterfactual {counterfactual!r} cannot be chosen for {name!r}: "
                "a file brings its own"
            )
        behavior = read_jsonl(name, tokenizer=tokenizer, seed=seed, metric=metric)
        return _cut(behavior, n_prompts, n_selection, n_held_out)
    if tokenizer is None:
        raise BehaviorError(f"behavior {name!r} is generated and needs the model's tokenizer")
    usual = SMALL_TASKS.get(name, DEFAULT_PROMPTS) // 2
    sizes = _sizes(n_prompts, n_selection, n_held_out, usual)
    task = TASKS[name]
    if counterfactual is not None:
        if counterfactual not in task.kinds:
            raise BehaviorError(
                f"unknown counterfactual {counterfactual!r} of {name!r}; "
                f"known: {', '.join(task.kinds)}"
            )
        task = replace(task, counterfactual=counterfactual)  # type: ignore[type-var]
    prompts = generate(task, name, tokenizer, sum(sizes), seed)
    return Behavior(
        name=name,
        selection=prompts[sizes[1] :],
        held_out=prompts[: sizes[1]],
        metric=metric or task.metric,
        seed=seed,
        counterfactual=task.counterfactual,
    )


def check_known(name_or_jsonl: str | Path) -> None:
    """Refuse a name that :func:`load_behavior` would not know, before a model is loaded for it.

    Raises:
        BehaviorError: With the names that are known.
    """
    name = str(name_or_jsonl)
    if name in TASKS or isinstance(name_or_jsonl, Path):
        return
    if not (name.endswith(".jsonl") or Path(name).is_file()):
        raise BehaviorError(
            f"unknown behavior {name!r}; known: {', '.join(TASKS)}, or the path of a .jsonl "
            f"file{did_you_mean(name, TASKS)}"
        )


def generate(
    task: Task, name: str, tokenizer: Any, n_prompts: int, seed: int
) -> tuple[Prompt, ...]:
    """Draw ``n_prompts`` prompts, no two with the same tokens.

    Raises:
        BehaviorError: The task does not fit the tokenizer or has fewer distinct prompts.
    """
    prompts = tuple(islice(_distinct(task, name, tokenizer, seed), n_prompts))
    if len(prompts) < n_prompts:
        raise BehaviorError(
            f"behavior {name!r} ran out of distinct prompts at {len(prompts)} of {n_prompts}; "
            "ask for fewer or use a wider variant"
        )
    return prompts


def draw_more(behavior: Behavior, tokenizer: Any, n: int) -> tuple[Prompt, ...]:
    """Prompts of the same task that a behaviour does not have.

    Args:
        behavior: A built-in one; of a file there are no others.
        tokenizer: HuggingFace tokenizer of the model.
        n: At most so many; fewer where the task has no more.
    """
    if behavior.name not in TASKS:
        return ()
    task = TASKS[behavior.name]
    known = {prompt.tokens for prompt in behavior.selection + behavior.held_out}
    drawn = _distinct(task, behavior.name, tokenizer, behavior.seed + 1)
    return tuple(islice((p for p in drawn if p.tokens not in known), n))


def _distinct(task: Task, name: str, tokenizer: Any, seed: int) -> Iterator[Prompt]:
    """Prompts, no two with the same tokens, until none has been new for a while."""
    check_tokenizer(tokenizer)
    task = task.fitted(tokenizer)
    draws = Draws(f"pie_fast/{name}/{seed}")
    seen: set[str] = set()
    misses = 0
    while misses < _PATIENCE:
        draft = task.draft(draws, len(seen))
        if draft.text in seen:
            misses += 1
            continue
        misses = 0
        seen.add(draft.text)
        yield realise(tokenizer, draft)


def _sizes(
    n_prompts: int | None, n_selection: int | None, n_held_out: int | None, default: int
) -> tuple[int, int]:
    """Sizes of selection and held-out split from what was asked for."""
    asked = (("n_prompts", n_prompts), ("n_selection", n_selection), ("n_held_out", n_held_out))
    for what, value in asked:
        if value is not None and value < 0:
            raise BehaviorError(f"{what} {value} is negative; valid: 0 and above")
    if n_prompts is None:
        n_selection = default if n_selection is None else n_selection
        n_held_out = default if n_held_out is None else n_held_out
    elif n_held_out is None:
        n_held_out = n_prompts // 2 if n_selection is None else n_prompts - n_selection
    if n_selection is None:
        assert n_prompts is not None
        n_selection = n_prompts - n_held_out
    if min(n_selection, n_held_out) < 0 or n_prompts not in (None, n_selection + n_held_out):
        raise BehaviorError(
            f"n_selection {n_selection} and n_held_out {n_held_out} do not add up "
            f"to n_prompts {n_prompts}"
        )
    return n_selection, n_held_out


def _cut(
    behavior: Behavior, n_prompts: int | None, n_selection: int | None, n_held_out: int | None
) -> Behavior:
    """The part of a file's behaviour that was asked for."""
    have = len(behavior.selection), len(behavior.held_out)
    if n_prompts is not None:
        n_selection, n_held_out = _sizes(n_prompts, n_selection, n_held_out, 0)
    return behavior.take(
        have[0] if n_selection is None else n_selection,
        have[1] if n_held_out is None else n_held_out,
    )
