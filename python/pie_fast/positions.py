"""Which first positions of a prompt have no features. No torch.

A CLT that never saw the BOS in training fires hundreds of features on it, and models give it a norm
far from all others. There the model's own MLP output stays, as a constant.

    auto             1 where a prompt starts with the BOS, else 0
    circuit-tracer   1 always; 4 for instruction-tuned Gemma 3, whose prompts start with a template
    N                that many, always
"""

from __future__ import annotations

from operator import index

from pie_fast.errors import PieFastError

AUTO, CIRCUIT_TRACER = "auto", "circuit-tracer"

#: the start of instruction-tuned Gemma 3's prompts: BOS, start of turn, user, line break
_GEMMA_3_IT = 4


def check_ignored(choice: int | str | None) -> int | str:
    """A choice, None as `auto` and digits as their number.

    Raises:
        PieFastError: It is none of the choices.
    """
    if choice is None:
        return AUTO
    if choice in (AUTO, CIRCUIT_TRACER):
        return choice
    if isinstance(choice, str) and choice.isascii() and choice.isdigit():
        return int(choice)
    if hasattr(choice, "__index__") and not isinstance(choice, bool) and index(choice) >= 0:
        return index(choice)
    raise PieFastError(
        f"ignore_positions is {choice!r}, must be {AUTO}, {CIRCUIT_TRACER} or a number "
        "of at least 0"
    )


def n_ignored(choice: int | str, model_name: str) -> int | None:
    """How many positions of every prompt; None where it depends on the prompt."""
    if choice == AUTO:
        return None
    if choice == CIRCUIT_TRACER:
        return _GEMMA_3_IT if "gemma-3" in model_name and model_name.endswith("-it") else 1
    return int(choice)
