"""Faithfulness without a rater: the rule itself says whether a continuation expresses it.

Two kinds of `R_m` (`pie_fast.interpret.fade.scores`), by one steered forward pass a prompt and
factor, or by generation:

    mass        mean probability that the next token is one of a set
    generation  share of continuations in which the rule holds
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pie_fast.interpret.fade.scores import Faithful, faithfulness, with_zero
from pie_fast.interpret.fade.steered import FACTORS, continuations, token_mass
from pie_fast.interpretation import Measure
from pie_fast.intervene import PromptLike, as_prompt
from pie_fast.model import Replacer
from pie_fast.types import FeatureId

#: whether a rule holds in each of some texts (token ids) at any position from a first one on
Holds = Callable[[Sequence[tuple[int, ...]], Sequence[int]], Sequence[bool]]

_NEVER = Faithful(Measure(None, why="the feature is never active"))


def faithfulness_by_mass(
    model: Replacer,
    feature: FeatureId,
    a_max: float,
    prompts: Sequence[PromptLike],
    token_ids: Sequence[int],
    factors: Sequence[float] = FACTORS,
    *,
    batch_size: int = 64,
) -> Faithful:
    """Faithfulness by the probability of a set of tokens: deterministic, nothing is generated.

    Args:
        model, feature, prompts, token_ids, batch_size: See
            `pie_fast.interpret.fade.steered.token_mass`.
        a_max: Its largest `|activation|`; of 0 there is no number.
        factors: 0 is added where it is missing.
    """
    if a_max == 0:
        return _NEVER
    return faithfulness(
        token_mass(
            model, feature, a_max, prompts, token_ids, with_zero(factors), batch_size=batch_size
        )
    )


def faithfulness_by_generation(
    model: Replacer,
    feature: FeatureId,
    a_max: float,
    prompts: Sequence[PromptLike],
    holds: Holds,
    factors: Sequence[float] = FACTORS,
    *,
    n_tokens: int = 30,
    temperature: float = 0.0,
    seed: int = 0,
    stop: int | None = None,
    batch_size: int = 64,
) -> Faithful:
    """Faithfulness by the share of continuations in which a rule holds.

    Args:
        model, feature, prompts: See `pie_fast.interpret.fade.steered.continuations`.
        a_max: Its largest `|activation|`; of 0 there is no number.
        holds: Gets each prompt and its continuation as one text, and the position of the first new
            token in each; asked once a factor.
        factors: 0 is added where it is missing.
        n_tokens, temperature, seed, stop, batch_size: As in `continuations`.
    """
    if a_max == 0:
        return _NEVER
    starts = [as_prompt(model.host, prompt).tokens for prompt in prompts]
    written = continuations(
        model,
        feature,
        a_max,
        starts,
        with_zero(factors),
        n_tokens=n_tokens,
        temperature=temperature,
        seed=seed,
        stop=stop,
        batch_size=batch_size,
    )
    lengths = [len(start) for start in starts]
    held = {
        m: sum(holds([(*a, *b.tokens) for a, b in zip(starts, some, strict=True)], lengths))
        for m, some in written.items()
    }
    n, n_positive = len(starts), sum(held.values())
    return faithfulness(
        {m: count / n for m, count in held.items()},
        n_positive=n_positive,
        n_negative=n * len(held) - n_positive,
    )
