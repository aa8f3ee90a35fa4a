"""One feature steered at every position and in every layer that it writes to.

    mlp_out_l' += (m * a_max - a(t)) d_{f -> l'}        for every l' >= l, every t with features

with `a_max` the largest `|activation|` it is known to reach: FADE's steering of a dictionary
feature (arXiv 2502.16994), which a hook on one layer would understeer for a CLT. A factor of 0
ablates; it is not the model left alone.

Prompts and factors share batches: a row is one prompt at one factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pie_fast.behaviors import Prompt
from pie_fast.cost import Cost
from pie_fast.errors import PieFastError
from pie_fast.intervene import Draws, PromptLike, as_prompt, decoded, end_of_text
from pie_fast.model import Batch, Replacer, make_batch
from pie_fast.model.steering import Move, Steering
from pie_fast.types import FeatureId

#: FADE's factors
FACTORS = (-50.0, -10.0, -1.0, 0.0, 1.0, 10.0, 50.0)


@dataclass(frozen=True)
class Continuation:
    """What the steered model wrote after a prompt.

    Attributes:
        tokens: The new tokens.
        text: The same as text; as numbers where the model has no tokenizer.
    """

    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class _Row:
    """A prompt, number `number` of those given, at a factor."""

    number: int
    prompt: Prompt
    factor: float


def continuations(
    model: Replacer,
    feature: FeatureId,
    a_max: float,
    prompts: Sequence[PromptLike],
    factors: Sequence[float] = FACTORS,
    *,
    n_tokens: int = 30,
    temperature: float = 0.0,
    seed: int = 0,
    stop: int | None = None,
    batch_size: int = 64,
) -> dict[float, tuple[Continuation, ...]]:
    """Continue every prompt at every factor, as `model.generate` does one by one.

    Args:
        model: The replacement model.
        feature: The feature.
        a_max: Its largest `|activation|` on natural text.
        prompts: Text, token ids, or `Prompt`s.
        factors: `m`, of either sign.
        n_tokens: New tokens at most.
        temperature: 0 takes the likeliest token, 1 draws from the model's distribution.
        seed: Of the draws; prompt number i has `seed + i`, the same at every factor.
        stop: As in `pie_fast.intervene.generate`.
        batch_size: Rows a forward pass.

    Returns:
        By factor, one for each prompt.

    Raises:
        PieFastError: A number out of range; no prompts or factors, or one factor twice.
        BehaviorError: The model cannot read a prompt.
        CheckpointError: The CLT does not have the feature.
    """
    rows = _rows(model, feature, a_max, prompts, factors, batch_size)
    if not (math.isfinite(temperature) and temperature >= 0):
        raise PieFastError(f"temperature is {temperature}, must be a finite number of at least 0")
    longest = max(len(row.prompt) for row in rows)
    if not 1 <= n_tokens <= model.host.n_ctx - longest:
        raise PieFastError(
            f"n_tokens is {n_tokens}, must be 1 to {model.host.n_ctx - longest}: the longest "
            f"prompt has {longest} tokens, the model's context {model.host.n_ctx}"
        )
    stop = end_of_text(model.host) if stop is None else stop
    written: list[Continuation] = []
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        draws = [Draws(temperature, seed + row.number) for row in some]
        for tokens in _written(model, feature, a_max, some, n_tokens, draws, stop):
            written.append(Continuation(tokens, decoded(model.host, tokens)))
    n = len(prompts)
    return {m: tuple(written[i * n : (i + 1) * n]) for i, m in enumerate(map(float, factors))}


def token_mass(
    model: Replacer,
    feature: FeatureId,
    a_max: float,
    prompts: Sequence[PromptLike],
    token_ids: Sequence[int],
    factors: Sequence[float] = FACTORS,
    *,
    batch_size: int = 64,
) -> dict[float, float]:
    """Probability that the next token is one of a set, at every factor, without generation.

    Args:
        model: The replacement model.
        feature, a_max, prompts, factors, batch_size: As in `continuations`; the next token is the
            one after a prompt's answer position, its last by default.
        token_ids: The set.

    Returns:
        By factor, the mean over prompts.

    Raises:
        PieFastError: A number out of range; no prompts, factors or tokens, or one twice.
        BehaviorError: The model cannot read a prompt.
        CheckpointError: The CLT does not have the feature.
    """
    rows = _rows(model, feature, a_max, prompts, factors, batch_size)
    tokens = _token_set(token_ids, model.host.vocab_size)
    mass: list[NDArray[np.float64]] = []
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        batch = make_batch([row.prompt for row in some], model.device)
        logits = _logits(model, feature, a_max, [row.factor for row in some], batch)
        p = torch.softmax(logits.cpu().double(), -1)
        mass.append(p[:, tokens].sum(-1).numpy())
    means = np.concatenate(mass).reshape(len(factors), -1).mean(1)
    return dict(zip(map(float, factors), means.tolist(), strict=True))


def _written(
    model: Replacer,
    feature: FeatureId,
    a_max: float,
    rows: Sequence[_Row],
    n_tokens: int,
    draws: Sequence[Draws],
    stop: int | None,
) -> list[tuple[int, ...]]:
    """The new tokens of each row; a row that has ended takes part no more."""
    new: list[list[int]] = [[] for _ in rows]
    going = list(range(len(rows)))
    for _ in range(n_tokens):
        texts = [Prompt((*rows[i].prompt.tokens, *new[i]), answer=0) for i in going]
        batch = make_batch(texts, model.device)
        logits = _logits(model, feature, a_max, [rows[i].factor for i in going], batch)
        ended = set()
        for i, row in zip(going, logits, strict=True):
            token = draws[i].next(row)
            if token == stop:
                ended.add(i)
            else:
                new[i].append(token)
        going = [i for i in going if i not in ended]
        if not going:
            break
    return [tuple(tokens) for tokens in new]


def _logits(
    model: Replacer, feature: FeatureId, a_max: float, factors: Sequence[float], batch: Batch
) -> Tensor:
    """`[n, vocab]` at the answer position, each row at its factor."""
    dtype = model.clt.b_dec.dtype
    # A value of 0 with a factor of 1 leaves alone: positions that have no features.
    steered = (~model.ignored(batch))[..., None].to(dtype)
    aims = a_max * torch.tensor(factors, device=model.device, dtype=dtype)
    ids = torch.tensor([feature.index], device=model.device)
    move = Move(ids, steered * aims[:, None, None], 1 - steered)
    steering = Steering(model.clt, (model.read_hook, model.write_hook), {feature.layer: move})
    model.spent += Cost(forward=len(batch))
    with torch.no_grad():
        return model.host.run(batch.tokens, batch.answer_position, steering.hooks())


def _rows(
    model: Replacer,
    feature: FeatureId,
    a_max: float,
    prompts: Sequence[PromptLike],
    factors: Sequence[float],
    batch_size: int,
) -> list[_Row]:
    """Every prompt at every factor, factor by factor."""
    model.clt.check_feature(feature.layer, feature.index)
    if not (math.isfinite(a_max) and a_max > 0):
        raise PieFastError(f"a_max of {feature} is {a_max}, must be finite and above 0")
    if not all(map(math.isfinite, factors)) or len({*factors}) != len(factors) or not factors:
        raise PieFastError(f"factors are {list(factors)}, must be finite, none twice, at least 1")
    if not prompts:
        raise PieFastError("there are 0 prompts; at least 1 is needed")
    if batch_size < 1:
        raise PieFastError(f"batch_size is {batch_size}, must be at least 1")
    checked = [as_prompt(model.host, prompt) for prompt in prompts]
    return [_Row(i, prompt, float(m)) for m in factors for i, prompt in enumerate(checked)]


def _token_set(token_ids: Sequence[int], vocab_size: int) -> list[int]:
    tokens = sorted({int(t) for t in token_ids})
    if not tokens or not (tokens[0] >= 0 and tokens[-1] < vocab_size):
        raise PieFastError(
            f"there are {len(tokens)} tokens, must be at least 1, with ids 0 to {vocab_size - 1}"
        )
    return tokens
