"""Terms and conditions as noun phrases: ``" to" after " bottle"``."""

from __future__ import annotations

from collections.abc import Sequence

from pie_fast.interpret.rules.conditions import Condition, Term
from pie_fast.interpret.rules.facts import EARLIER, Value, is_of_tokens
from pie_fast.interpret.vocabulary import Vocabulary

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
    "promoted": "that it raises itself",
    "next_promoted": "before a token that it raises",
}

#: families that can be what the sentence says the feature fires on; the others modify it
_NOUNS = ("token", "role", "class")

#: how the conditions begin that end a phrase
_WHERE = "where "

#: values of a set that are spelled out in a sentence
SPELLED = 4


def describe(
    terms: Sequence[Term],
    vocabulary: Vocabulary,
    gloss: str = "",
    spelled: int | None = SPELLED,
) -> str:
    """A rule's terms as a noun phrase, joined by "or".

    Args:
        terms: Of the rule.
        vocabulary: Texts of tokens.
        gloss: Said after what the first term fires on.
        spelled: Values of a set that are spelled out; all if None.
    """
    glosses = [gloss] + [""] * (len(terms) - 1)
    pairs = zip(terms, glosses, strict=True)
    return ", or on ".join(_term(term, vocabulary, said, spelled) for term, said in pairs)


def texts_of(condition: Condition, vocabulary: Vocabulary) -> list[str]:
    """Each value of a condition as text."""
    return [_value(condition.family, value, vocabulary) for value in condition.values]


def _term(term: Term, vocabulary: Vocabulary, gloss: str, spelled: int | None) -> str:
    nouns = [c for name in _NOUNS for c in term if c.family == name]
    subject = _values(nouns[0], vocabulary, spelled) + gloss if nouns else "any token"
    said = [_modifier(c, vocabulary, spelled) for c in term if c not in nouns[:1]]
    clauses = [text for text in said if text.startswith(_WHERE)]
    where = " and ".join([*clauses[:1], *(text.removeprefix(_WHERE) for text in clauses[1:])])
    plain = [text for text in said if not text.startswith(_WHERE)]
    return " ".join([subject, *plain, *([where] if where else [])])


def _modifier(condition: Condition, vocabulary: Vocabulary, spelled: int | None) -> str:
    family, values = condition.family, _values(condition, vocabulary, spelled)
    if family in _FLAGS:
        return _FLAGS[family]
    if family == "position":
        if condition.values == (0,):
            return "at the start of the prompt"
        return f"at position{'s' if len(condition.values) > 1 else ''} {values}"
    if family.startswith(EARLIER):
        return f"{_WHERE}{_role(family.removeprefix(EARLIER))} is {values}"
    if family == "due":
        return f"{_WHERE}{values} is next by repetition"
    before = {"class": "that is", "role": "in the role", "token": "that is"}
    return f"{before.get(family, 'after')} {values}"


def _values(condition: Condition, vocabulary: Vocabulary, spelled: int | None) -> str:
    values = condition.values
    if condition.family == "position":
        values = tuple(sorted(int(str(value)) for value in values))
    return _listed([_value(condition.family, value, vocabulary) for value in values], spelled)


def _value(family: str, value: Value, vocabulary: Vocabulary) -> str:
    if isinstance(value, tuple):
        return " ".join(vocabulary.quoted(token) for token in value)
    if isinstance(value, int):
        return vocabulary.quoted(value) if is_of_tokens(family) else str(value)
    return _CLASSES[value] if family == "class" else _role(value)


def _role(name: str) -> str:
    """Roles are names (S2, A_doc) or plain words of the template (place, object)."""
    return f"the {name}" if name.islower() else name


def _listed(words: Sequence[str], spelled: int | None) -> str:
    if spelled is not None and len(words) > spelled:
        shown = ", ".join(words[: spelled - 1])
        return f"{shown} or {len(words) - spelled + 1} others"
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
