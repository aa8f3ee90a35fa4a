"""Behaviours: prompts with answers, foils and counterfactuals, in two splits.

Generators of the standard tasks, checked against the model's own tokenizer, and a reader and
writer of users' own behaviours as JSON Lines. No torch.
"""

from pie_fast.behaviors.behavior import (
    METRICS,
    NEEDS_FOIL,
    Behavior,
    Prompt,
    Prompts,
    check_prompts,
)
from pie_fast.behaviors.jsonl import read_jsonl, write_jsonl
from pie_fast.behaviors.registry import (
    TASKS,
    check_known,
    draw_more,
    known_behaviors,
    load_behavior,
)

__all__ = [
    "METRICS",
    "NEEDS_FOIL",
    "TASKS",
    "Behavior",
    "Prompt",
    "Prompts",
    "check_known",
    "check_prompts",
    "draw_more",
    "known_behaviors",
    "load_behavior",
    "read_jsonl",
    "write_jsonl",
]
