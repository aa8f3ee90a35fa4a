"""Faithfulness of a rule: what the steered model writes, judged by the rule alone.

    mass        every term is of tokens and of nothing else: the probability that one of them is
                written next
    generation  every condition can be read off a text: the share of short continuations with a
                new position at which the rule holds
    none        otherwise: a text that was generated has no roles, and its places are not chosen

A number that the label has no part in (the mass of what the feature raises, say) is never given.
"""

from __future__ import annotations

from collections.abc import Sequence

from pie_fast.behaviors import Prompt
from pie_fast.interpret.contexts import Corpus
from pie_fast.interpret.fade.faithfulness import faithfulness_by_generation, faithfulness_by_mass
from pie_fast.interpret.rules import Rule
from pie_fast.interpret.rules.facts import Facts
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.interpretation import Measure
from pie_fast.model import Replacer
from pie_fast.types import FeatureId

#: new tokens of a continuation
N_NEW = 4

#: families that a text alone decides, and how many tokens before a position they look at besides
#: it: a rule counts where all that it speaks of is new. What was seen earlier may be old.
_BEFORE = {
    "token": 0,
    "class": 0,
    "repeat": 0,
    "repeated_pair": 0,
    "promoted": 0,
    "next_promoted": 0,
    "previous_token": 1,
    "after_repeat": 1,
    "previous_pair": 2,
}


def rule_faithfulness(
    model: Replacer,
    feature: FeatureId,
    a_max: float,
    rule: Rule,
    promoted: Sequence[int],
    prompts: Sequence[Prompt],
) -> Measure:
    """How much more often the steered model writes what the rule says than the ablated one.

    Args:
        model: The replacement model.
        feature: The rule's.
        a_max: Its largest ``|activation|``; of 0 there is no number.
        rule: Where it fires.
        promoted: What ``Facts.with_promoted`` was given when the rule was mined.
        prompts: They are continued at every factor of FADE's.

    Raises:
        PieFastError: There are no prompts.
        BehaviorError: The model cannot read a prompt.
    """
    families = {condition.family for condition in rule.conditions}
    if not all(rule.terms) or not families:
        return Measure(None, why="the rule holds at every position")
    if families == {"token"}:
        wanted = [v for c in rule.conditions for v in c.values if isinstance(v, int)]
        return faithfulness_by_mass(model, feature, a_max, prompts, wanted).measure
    if not families <= _BEFORE.keys():
        why = "the rule speaks of roles or places, which generated text has not"
        return Measure(None, why=why)
    before = max(_BEFORE[family] for family in families)
    n_tokens = min(N_NEW, model.host.n_ctx - max(len(prompt) for prompt in prompts))
    if n_tokens <= before:
        return Measure(None, why="the prompts leave no room for what the rule speaks of")
    vocabulary = Vocabulary(model.host.tokenizer)

    def holds(texts: Sequence[tuple[int, ...]], starts: Sequence[int]) -> list[bool]:
        corpus = Corpus.of([Prompt(text, answer=0) for text in texts])
        held = rule.holds(Facts.of(corpus, vocabulary).with_promoted(promoted))
        bounds = zip(corpus.ptr[:-1].tolist(), corpus.ptr[1:].tolist(), starts, strict=True)
        return [bool(held[a + start + before : b].any()) for a, b, start in bounds]

    return faithfulness_by_generation(
        model, feature, a_max, prompts, holds, n_tokens=n_tokens
    ).measure
