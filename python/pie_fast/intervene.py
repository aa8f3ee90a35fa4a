"""Interventions: a prompt run, or continued, with some features set to other activations.

The run is of the model itself, its own MLPs included, plus what the changed activations write
(`pie_fast.model.steering`); what an intervention says is in `pie_fast.interventions`. By default
everything downstream reacts. It can be held to what it is in the model itself:

    attention="freeze"      attention patterns (circuit-tracer's default)
    activations="freeze"    MLP outputs, and the activations that new ones are measured against
    norms="freeze"          what norms divide by

All three frozen leave the direct effects, linear in the change of activation: circuit-tracer's
`constrained_layers=range(n_layers)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pie_fast.behaviors import Prompt, check_prompts
from pie_fast.behaviors.drafting import encode
from pie_fast.cost import Cost
from pie_fast.errors import BehaviorError, PieFastError
from pie_fast.intervened import Change, Decode, Generated, Intervened
from pie_fast.interventions import Edit, check_interventions
from pie_fast.model import Host, Replacer, make_batch
from pie_fast.model.host import Hook
from pie_fast.model.steering import Move, Steering
from pie_fast.types import FeatureId

#: what an intervention may be on: text, token ids, or a prompt of a behaviour
PromptLike = str | Sequence[int] | Prompt


def intervene(
    model: Replacer,
    prompt: PromptLike,
    interventions: Iterable[Sequence[Any]],
    *,
    attention: str = "recompute",
    activations: str = "recompute",
    norms: str = "recompute",
    logits_at: str = "answer",
) -> Intervened:
    """Run a prompt with some features set to other activations.

    Args:
        model: The replacement model.
        prompt: Text, token ids, or a `Prompt`.
        interventions: `(feature, positions, value)` each, see `pie_fast.interventions`.
        attention, activations, norms: `recompute` or `freeze`.
        logits_at: `answer`, the last position unless the prompt says another; or `all`.

    Raises:
        PieFastError: Bad interventions or options; the message names value and valid range.
        BehaviorError: The model cannot read the prompt.
    """
    frozen = {"attention": attention, "activations": activations, "norms": norms}
    for name, value in frozen.items():
        _one_of(name, value, ("recompute", "freeze"))
    _one_of("logits_at", logits_at, ("answer", "all"))
    edits = _checked(model, interventions)
    asked = as_prompt(model.host, prompt)
    batch = make_batch([asked], model.device)
    moves = _moves(model, edits, len(asked), batch.tokens)
    if not moves:
        raise PieFastError(f"no intervention is on a position of the prompt's {len(asked)} tokens")
    at = None if logits_at == "all" else batch.answer_position
    clean = _Clean(model, moves, frozen)
    with torch.no_grad():
        original = model.host.run(batch.tokens, at, clean.hooks())
        held = clean.activations if activations == "freeze" else None
        steering = Steering(model.clt, _sites(model), moves, held)
        logits = model.host.run(batch.tokens, at, clean.holding() + steering.hooks())
    model.spent += Cost(forward=2)
    return Intervened(
        asked.tokens,
        asked.answer_position,
        logits[0].cpu().numpy(),
        original[0].cpu().numpy(),
        _changes(model, moves, clean.activations, steering.current),
        {**frozen, "ignore_positions": int(model.ignored(batch).sum())},
        _decoder(model.host),
    )


def generate(
    model: Replacer,
    prompt: PromptLike,
    interventions: Iterable[Sequence[Any]],
    *,
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    seed: int = 0,
    stop: int | None = None,
) -> Generated:
    """Continue a prompt with some features set to other activations, and without.

    Every token is a forward pass over all of the text so far, for either continuation: no key and
    value cache, so that the outcome is that of `intervene` on the whole text.

    Args:
        model: The replacement model.
        prompt: Text, token ids, or a `Prompt`; its answer position is of no concern.
        interventions: As for `intervene`; None and slices without an end reach to new tokens.
        max_new_tokens: At most so many.
        temperature: 0 takes the likeliest token, 1 draws from the model's distribution.
        seed: Of the draws; both continuations use the same.
        stop: The token that ends a continuation, itself left out; the tokenizer's end of text when
            None.

    Raises:
        PieFastError: Bad interventions or options, or a text longer than the model's context.
        BehaviorError: The model cannot read the prompt.
    """
    host = model.host
    edits = _checked(model, interventions)
    tokens = as_prompt(host, prompt).tokens
    if max_new_tokens < 1 or len(tokens) + max_new_tokens > host.n_ctx:
        raise PieFastError(
            f"max_new_tokens is {max_new_tokens}, must be 1 to {host.n_ctx - len(tokens)}: the "
            f"prompt has {len(tokens)} tokens, the model's context {host.n_ctx}"
        )
    if not (np.isfinite(temperature) and temperature >= 0):
        raise PieFastError(f"temperature is {temperature}, must be a finite number of at least 0")
    _check_reached(model, edits, tokens, len(tokens) + max_new_tokens - 1)
    if stop is None:
        stop = end_of_text(host)
    both = []
    for some in ([], edits):
        draws = Draws(temperature, seed)
        both.append(_continue(model, tokens, some, max_new_tokens, draws, stop))
    before, after = both
    return Generated(tokens, after, before, decoded(host, after), decoded(host, before))


def _continue(
    model: Replacer,
    tokens: tuple[int, ...],
    edits: Sequence[Edit],
    n: int,
    draws: Draws,
    stop: int | None,
) -> tuple[int, ...]:
    now = torch.tensor([tokens], device=model.device)
    for _ in range(n):
        moves = _moves(model, edits, len(tokens), now)
        last = torch.tensor([now.shape[1] - 1], device=model.device)
        with torch.no_grad():
            logits = model.host.run(now, last, Steering(model.clt, _sites(model), moves).hooks())
        model.spent += Cost(forward=1)
        token = draws.next(logits[0])
        if token == stop:
            break
        now = torch.cat([now, now.new_tensor([[token]])], 1)
    return tuple(now[0, len(tokens) :].tolist())


@dataclass
class Draws:
    """Takes next tokens; the same draws on every device."""

    temperature: float
    seed: int
    random: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.seed)

    def next(self, logits: Tensor) -> int:
        """A token by `[vocab]` logits."""
        if self.temperature == 0:
            return int(logits.argmax())
        p = torch.softmax(logits.cpu().double() / self.temperature, -1)
        return int(torch.multinomial(p, 1, generator=self.random))


class _Clean:
    """What a run of the model itself shows: activations, and what is to be held."""

    def __init__(self, model: Replacer, moves: dict[int, Move], frozen: dict[str, str]) -> None:
        self.model, self.moves = model, moves
        self.activations: dict[int, Tensor] = {}
        self._held: dict[str, Tensor] = {}
        self._names = _held_names(model, [name for name, how in frozen.items() if how == "freeze"])

    def hooks(self) -> list[tuple[str, Hook]]:
        """That look."""
        hooks: list[tuple[str, Hook]] = []
        for layer in self.moves:
            hooks.append((f"blocks.{layer}.{_sites(self.model)[0]}", self._look(layer)))
        return hooks + [(name, self._keep(name)) for name in self._names]

    def holding(self) -> list[tuple[str, Hook]]:
        """That give back what was seen."""
        return [(name, self._give(value)) for name, value in self._held.items()]

    def _look(self, layer: int) -> Hook:
        clt, ids = self.model.clt, self.moves[layer].ids

        def look(x: Tensor) -> None:
            x = x.to(clt.b_dec.dtype)
            self.activations[layer] = clt.encoder(layer).encode_only(x, ids)

        return look

    def _keep(self, name: str) -> Hook:
        def keep(x: Tensor) -> None:
            self._held[name] = x

        return keep

    @staticmethod
    def _give(value: Tensor) -> Hook:
        return lambda _: value


def _checked(model: Replacer, interventions: Iterable[Sequence[Any]]) -> list[Edit]:
    """The interventions as edits, of features that there are."""
    edits = check_interventions(interventions, model.clt.n_layers, model.clt.n_features)
    for edit in edits:
        model.clt.check_feature(edit.feature.layer, edit.feature.index)
    return edits


def _sites(model: Replacer) -> tuple[str, str]:
    """The hook points that features read and write."""
    return model.read_hook, model.write_hook


def _held_names(model: Replacer, frozen: Sequence[str]) -> list[str]:
    """The hook points that stay as they are in the model itself."""
    layers = range(model.clt.n_layers)
    names = []
    if "attention" in frozen:
        names += [f"blocks.{layer}.attn.hook_pattern" for layer in layers]
    if "activations" in frozen:
        names += [f"blocks.{layer}.{_sites(model)[1]}" for layer in layers]
    if "norms" in frozen:
        names += [n for n in model.host.bridge.hook_dict if n.endswith("hook_scale")]
    return names


def _moves(
    model: Replacer, edits: Sequence[Edit], n_prompt: int, tokens: Tensor
) -> dict[int, Move]:
    """Edits as moves of a text (`[1, n_pos]`) that began as a prompt of `n_prompt` tokens."""
    n_now = tokens.shape[1]
    n_ignored = _n_ignored(model, tokens)
    places: dict[FeatureId, dict[int, Edit]] = {}
    for edit in edits:
        covered = edit.covered(n_prompt, n_now)
        if isinstance(edit.positions, int) and covered[0] < n_ignored:
            raise PieFastError(
                f"position {edit.positions} of {edit.feature} has no features: the first "
                f"{n_ignored} are ignored (ignore_positions), so valid are {n_ignored} to "
                f"{n_prompt - 1}"
            )
        at = {t: edit for t in covered if t >= n_ignored and t < n_now}
        if at:
            places.setdefault(edit.feature, {}).update(at)
    moves = {}
    for layer in sorted({feature.layer for feature in places}):
        features = sorted(feature for feature in places if feature.layer == layer)
        value, factor = torch.zeros(1, n_now, len(features)), torch.ones(1, n_now, len(features))
        for slot, feature in enumerate(features):
            for t, edit in places[feature].items():
                value[0, t, slot], factor[0, t, slot] = edit.value, edit.factor
        ids = torch.tensor([feature.index for feature in features])
        device, dtype = model.device, model.clt.b_dec.dtype
        moves[layer] = Move(ids.to(device), value.to(device, dtype), factor.to(device, dtype))
    return moves


def _n_ignored(model: Replacer, tokens: Tensor) -> int:
    """How many first positions have no features."""
    prompt = Prompt(tuple(tokens[0].tolist()), answer=0)
    return int(model.ignored(make_batch([prompt], model.device)).sum())


def _changes(
    model: Replacer,
    moves: dict[int, Move],
    clean: dict[int, Tensor],
    current: dict[int, Tensor],
) -> tuple[Change, ...]:
    found = []
    for layer, move in moves.items():
        # A value of 0 with a factor of 1 leaves alone; times(1) does too, and nothing is lost.
        moved = ((move.value != 0) | (move.factor != 1))[0].T.cpu()
        new = (move.value + move.factor * current[layer])[0].T.tolist()
        was, ran = clean[layer][0].T.tolist(), current[layer][0].T.tolist()
        for slot, t in moved.nonzero().tolist():
            feature = FeatureId(layer, int(move.ids[slot]))
            found.append(Change(feature, t, was[slot][t], ran[slot][t], new[slot][t]))
    return tuple(found)


def _check_reached(
    model: Replacer, edits: Sequence[Edit], tokens: tuple[int, ...], longest: int
) -> None:
    """Refuse interventions that no token of the longest text would feel."""
    text = torch.zeros(1, longest, dtype=torch.int64, device=model.device)
    text[0, : len(tokens)] = torch.tensor(tokens)
    if not _moves(model, edits, len(tokens), text):
        raise PieFastError(f"no intervention is on a position of the text's {longest} tokens")


def as_prompt(host: Host, given: PromptLike) -> Prompt:
    """Text, ids or a prompt as a prompt that the model can read.

    Raises:
        BehaviorError: It cannot.
    """
    if isinstance(given, str):
        if host.tokenizer is None:
            raise BehaviorError(f"the prompt is text, and {host.name} has no tokenizer: give ids")
        given = encode(host.tokenizer, given)
    prompt = given if isinstance(given, Prompt) else Prompt(tuple(given), answer=0)
    problem = prompt.problem()
    if problem is not None:
        raise BehaviorError(f"prompt: {problem}")
    check_prompts([prompt], host.vocab_size, host.n_ctx)
    return prompt


def end_of_text(host: Host) -> int | None:
    """The token that ends a continuation, None where the tokenizer has none."""
    found = getattr(host.tokenizer, "eos_token_id", None)
    return None if found is None else int(found)


def _decoder(host: Host) -> Decode:
    if host.tokenizer is None:
        return str
    return lambda token: str(host.tokenizer.decode([token]))


def decoded(host: Host, tokens: tuple[int, ...]) -> str:
    """Tokens as text; as numbers where the model has no tokenizer."""
    if host.tokenizer is None:
        return " ".join(map(str, tokens))
    return str(host.tokenizer.decode(list(tokens)))


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise PieFastError(f"{name} is {value!r}, must be one of {', '.join(valid)}")
