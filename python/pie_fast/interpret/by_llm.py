"""What a language model says of a circuit: labels, their scores, and the story of the whole.

    labels                from contexts, tokens and neighbours
    detection, fuzzing    on held-out contexts (Delphi)
    FADE                  on sequences, where it is asked for: the costly part
    narrative             from all labels

What it will cost is told before, what it has cost after. A question without an answer is reported,
never dropped: the feature keeps the rule's label, the measure says why it has no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from pie_fast.behaviors import Prompt
from pie_fast.engine import Engine, LocalEngine
from pie_fast.interpret.circuit import CircuitInterpretation
from pie_fast.interpret.llm_choices import LlmChoices
from pie_fast.model import Replacer
from pie_fast.progress import Reporter

__all__ = ["LlmChoices", "with_llm"]


def with_llm(
    model: Replacer,
    circuit: CircuitInterpretation,
    prompts: Sequence[Prompt],
    choices: LlmChoices,
    reporter: Reporter,
    engine: Engine | None = None,
) -> tuple[CircuitInterpretation, dict[str, Any]]:
    """Ask a language model about a circuit.

    Args:
        model: The replacement model; it is steered for FADE.
        circuit: Interpreted by rules.
        prompts: That are continued under steering.
        choices: What is asked.
        reporter: Shows and times the stages.
        engine: Whose workers ask for labels, scores and the story; FADE, which steers the model
            between its questions, is asked for here. None, or the local one: all of it here.

    Returns:
        The circuit with labels and measures of the language model, and what asking took.

    Raises:
        UnusableError: The endpoint answers nothing.
    """
    from pie_fast.interpret.asking import Asking  # the extra starts here
    from pie_fast.llm.spread import ask_by_workers

    with choices.chat(reporter, dry_run=True) as planned:
        Asking(model, circuit, prompts, choices, planned, Reporter()).run()
    at_most = "at most " if choices.fade else ""  # a gate may spare the rating of steered texts
    reporter.note(f"{choices.model}: {at_most}{planned.budget.told(planned.price)}")
    if choices.dry_run:
        return circuit, {"model": choices.model, "dry_run": True, **asdict(planned.budget)}
    with choices.chat(reporter, dry_run=False) as chat:
        if engine is not None and not isinstance(engine, LocalEngine):
            before = replace(choices, fade=False)
            with reporter.stage("ask"):
                ask_by_workers(
                    lambda some: Asking(model, circuit, prompts, before, some, Reporter()).run(),
                    chat,
                    engine,
                    cache=choices.cache,
                    **choices.options(),
                )
        asking = Asking(model, circuit, prompts, choices, chat, reporter)
        told = asking.run()
    reporter.note(f"{choices.model}: {chat.spent.told(chat.price)}")
    # features are asked about together: which question failed first is by chance
    failures = sorted(chat.failures, key=lambda one: (one.about, one.template, one.reason))
    if failures:
        reporter.note(f"{len(failures)} questions have no answer, one of them: {failures[0]}")
    return told, {
        "model": choices.model,
        "dry_run": False,
        "spent": asdict(chat.spent),
        "cost": chat.cost,
        "failures": [asdict(failure) for failure in failures],
        "fade": {str(feature): one.to_dict() for feature, one in asking.rated.items()},
        "narrative": asking.narrative,
    }
