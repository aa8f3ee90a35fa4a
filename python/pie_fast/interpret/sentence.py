"""A rule and a feature's output tokens as one plain sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pie_fast.interpret.contexts import Activity
from pie_fast.interpret.facts import EARLIER, Facts, Value, is_of_tokens
from pie_fast.interpret.rules import Condition, Rule
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.interpretation import TokenEffect

#: roles whose names say little by themselves
_ROLES = {
    "IO": "the name that comes once",
    "S1": "the first mention of the repeated name",
    "S2": "the repeated name",
}

_CLASSES = {
    "blank": "a line break or indent",
    "capitalised": "a capitalised word",
    "lowercase": "a lower-case word",
    "number": "a number",
    "punctuation": "a punctuation mark",
    "special": "a special token",
}

_FLAGS = {
    "repeat": "seen earlier in the prompt",
    "repeated_pair": "that completes a pair of tokens seen earlier",
    "after_repeat": "after a token seen earlier in the prompt",
    "last": "at the end of the prompt",
}

#: families that can be what the sentence says the feature fires on; the others modify it
_NOUNS = ("token", "role", "class")

#: values of a set that are spelled out
_SPELLED = 4

#: from this held-out F1 on the sentence says "fires on"; below, "tends to fire on"
_SURE = 0.8


def label(
    rule: Rule | None,
    activity: Activity,
    facts: Facts,
    vocabulary: Vocabulary,
    promoted: Sequence[TokenEffect] = (),
    suppressed: Sequence[TokenEffect] = (),
) -> str:
    """The sentence, for example ``fires on S2 (the repeated name) in 97% of prompts [F1 .98]``."""
    parts = [_where(rule, activity, facts, vocabulary)]
    for verb, tokens in (("raises", promoted[:3]), ("lowers", suppressed[:2])):
        if tokens:
            parts.append(f"{verb} {', '.join(vocabulary.quoted(t.token_id) for t in tokens)}")
    return "; ".join(parts)


def describe(conditions: Sequence[Condition], vocabulary: Vocabulary, gloss: str = "") -> str:
    """A rule's conditions as a noun phrase: ``" to" after " bottle"``."""
    nouns = [c for name in _NOUNS for c in conditions if c.family == name]
    subject = _values(nouns[0], vocabulary) + gloss if nouns else "any token"
    rest = [_modifier(c, vocabulary) for c in conditions if c not in nouns[:1]]
    return " ".join([subject, *rest])


def _where(rule: Rule | None, activity: Activity, facts: Facts, vocabulary: Vocabulary) -> str:
    n_prompts, n_active = activity.corpus.n_prompts, activity.n_active_prompts
    if n_active == 0:
        why = " (only its baseline counts)" if activity.n_zero else ""
        return f"never fires on these {n_prompts} prompts{why}"
    if rule is None:
        return f"fires in 1 of {n_prompts} prompts, on {_peak(activity, vocabulary)}"
    quality = f"[F1 {_score(rule.held_out.f1)}]"
    where = f"in {activity.share_of_prompts:.0%} of prompts"
    if not rule.conditions:
        share = f"{activity.density:.0%}" if activity.density >= 0.01 else "under 1%"
        tail = "on almost every token" if activity.density > _SURE else "by no rule found"
        return f"fires on {share} of tokens {where}, {tail} {quality}"
    verb = "fires" if rule.held_out.f1 >= _SURE else "tends to fire"
    gloss = _gloss(rule, activity, facts, vocabulary)
    return f"{verb} on {describe(rule.conditions, vocabulary, gloss)} {where} {quality}"


def _peak(activity: Activity, vocabulary: Vocabulary) -> str:
    """The token at the only peak, and the one before it."""
    context = activity.peaks[0]
    tokens = activity.corpus.tokens_of(context.prompt)
    before = f" after {vocabulary.quoted(int(tokens[context.peak - 1]))}" if context.peak else ""
    return vocabulary.quoted(int(tokens[context.peak])) + before


def _gloss(rule: Rule, activity: Activity, facts: Facts, vocabulary: Vocabulary) -> str:
    """What a role is, for those who do not know its name: its meaning, or its usual token."""
    families = [condition.family for condition in rule.conditions]
    if "role" not in families or "token" in families:
        return ""
    values = rule.conditions[families.index("role")].values
    if len(values) == 1 and values[0] in _ROLES:
        return f" ({_ROLES[str(values[0])]})"
    there = facts.corpus.tokens[rule.holds(facts) & activity.fires]
    tokens, counts = np.unique(there, return_counts=True)
    if len(tokens) == 0 or counts.max() < 0.9 * counts.sum():
        return ""
    return f" ({vocabulary.quoted(int(tokens[counts.argmax()]))})"


def _modifier(condition: Condition, vocabulary: Vocabulary) -> str:
    if condition.family in _FLAGS:
        return _FLAGS[condition.family]
    if condition.family == "position":
        return _position(condition.values)
    if condition.family.startswith(EARLIER):
        role = _role(condition.family.removeprefix(EARLIER))
        return f"where {role} is {_values(condition, vocabulary)}"
    before = {"previous_token": "after", "previous_role": "after", "class": "that is"}
    return f"{before.get(condition.family, 'in the role')} {_values(condition, vocabulary)}"


def _position(values: Sequence[Value]) -> str:
    if tuple(values) == (0,):
        return "at the start of the prompt"
    return (
        f"at position{'s' if len(values) > 1 else ''} {_listed([str(v) for v in sorted(values)])}"
    )


def _values(condition: Condition, vocabulary: Vocabulary) -> str:
    if is_of_tokens(condition.family):
        return _listed([vocabulary.quoted(int(value)) for value in condition.values])
    if condition.family == "class":
        return _listed([_CLASSES[str(value)] for value in condition.values])
    return _listed([_role(str(value)) for value in condition.values])


def _role(name: str) -> str:
    """Roles are names (S2, A_doc) or plain words of the template (place, object)."""
    return f"the {name}" if name.islower() else name


def _listed(words: Sequence[str]) -> str:
    if len(words) > _SPELLED:
        shown = ", ".join(words[: _SPELLED - 1])
        return f"{shown} or {len(words) - _SPELLED + 1} others"
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _score(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")
