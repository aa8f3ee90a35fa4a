"""What a language model is told a feature fires on: words alone, nothing that was measured."""

from __future__ import annotations

from pie_fast.interpretation import Interpretation, Measure

#: the score of a feature that rules found no words for
UNDESCRIBED = Measure(None, why="no rule says where it fires")


def description_of(interpretation: Interpretation) -> str | None:
    """The words that a judge judges and a writer writes to.

    A label of rules says too how well it holds and what the feature raises: a judge who reads
    that judges something else. So it is the rule's text where rules wrote the label, and the label
    where anybody else did.

    Returns:
        None where rules wrote the label and there is no rule.
    """
    if interpretation.explainer != "rules":
        return interpretation.label
    return (interpretation.rule or {}).get("text")
