"""A small world of prompts with roles, in which features can be planted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pie_fast.interpret import Activity, Corpus, Facts, Vocabulary, mine_rule
from pie_fast.interpret.rules import Rule
from pie_fast.interpret.rules.sentence import label

WORDS = ["<bos>", " Mary", " John", " Tom", " Ann", " went", " gave", " to", " bottle", " book"]
WORDS += [".", "\n   ", " 7", " 42", " and", " the"]
BOS, NAMES, TO, BOTTLE, BOOK, DOT, NEWLINE = 0, (1, 2, 3, 4), 7, 8, 9, 10, 11
FILLERS = (5, 6, 12, 13, 14, 15)


class Tokenizer:
    all_special_ids = (BOS,)

    def decode(self, ids: list[int]) -> str:
        return WORDS[ids[0]] if ids[0] < len(WORDS) else ""


@dataclass(frozen=True)
class Prompt:
    tokens: tuple[int, ...]
    roles: tuple[str | None, ...] | None = None


def make_prompts(n: int = 80, *, roles: bool = True, seed: int = 0) -> list[Prompt]:
    """Like IOI: two names, fillers, one of the names again, an object, and " to" at the end.

    Loose enough that no role, position, token or neighbour stands for another one.
    """
    rng = np.random.default_rng(seed)

    def filler(least: int, most: int) -> list[int]:
        return rng.choice(FILLERS, rng.integers(least, most + 1)).tolist()

    prompts = []
    for _ in range(n):
        s, io = rng.permutation(NAMES)[:2].tolist()
        head = [BOS, *filler(0, 2)]
        middle = [*filler(1, 3), int(rng.choice([DOT, NEWLINE, TO])), *filler(0, 2)]
        thing = int(rng.choice([BOTTLE, BOOK]))
        tail = [*filler(0, 1), thing, int(rng.choice([TO, DOT])), *filler(0, 1), TO]
        tokens = [*head, s, 14, io, *middle, s, *tail]
        first, second = len(head), len(head) + 3 + len(middle)
        parts = {first: "S1", first + 2: "IO", second: "S2", len(tokens) - 1: "END"}
        names = tuple(parts.get(t) for t in range(len(tokens)))
        prompts.append(Prompt(tuple(tokens), names if roles else None))
    return prompts


def activity_where(corpus: Corpus, where: np.ndarray, seed: int = 0) -> Activity:
    at = np.flatnonzero(where)
    values = np.random.default_rng(seed).uniform(0.5, 2.0, len(at)).astype(np.float32)
    return Activity.of(corpus, corpus.prompt[at], corpus.position[at], values)


def explain(prompts: list[Prompt], where) -> tuple[Rule, str]:
    """The rule and label of a feature that fires where `where(token, previous, prompt, t)`."""
    corpus, vocabulary = Corpus.of(prompts), Vocabulary(Tokenizer())
    facts = Facts.of(corpus, vocabulary)
    fires = [where(p, t) for p in prompts for t in range(len(p.tokens))]
    activity = activity_where(corpus, np.asarray(fires))
    rule = mine_rule(facts, activity)
    assert rule is not None
    return rule, label(rule, activity, facts, vocabulary)
