"""Our features as the records that Delphi's explainers and scorers take.

Attribute names and meanings are those of Delphi (`eai-delphi` 0.1.3, `delphi/latents/latents.py`):
a record has `latent`, `examples` (strongest first), `train`, `test`, `not_active`, `neighbours`,
`explanation` and two frequencies; an example has `tokens`, `str_tokens`, `activations`,
`normalized_activations` (0 to 10, rounded up, 10 being the feature's strongest) and
`max_activation`.

Explainers ask for attributes only and take the records below as they are. Scorers also ask for the
class of an example: hand in Delphi's own classes with `types=delphi.latents`. Nothing of Delphi is
needed otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pie_fast.errors import PieFastError
from pie_fast.interpretation import Interpretation, TopContext

#: quantiles that examples are numbered by; 0 holds the strongest
N_QUANTILES = 10

#: what Delphi calls the distance of an example that is not of a neighbouring latent
NO_NEIGHBOUR = -1.0


@dataclass
class Latent:
    """Names a feature: `layers.3.mlp_latent17`."""

    module_name: str
    latent_index: int

    def __repr__(self) -> str:
        return f"{self.module_name}_latent{self.latent_index}"


@dataclass
class ActivatingExample:
    """A sequence in which the feature fires; arrays or tensors of one length."""

    tokens: Any
    activations: Any
    normalized_activations: Any = None
    str_tokens: list[str] | None = None
    quantile: int = 0

    @property
    def max_activation(self) -> float:
        """The strongest activation."""
        return float(self.activations.max())


@dataclass
class NonActivatingExample:
    """A sequence in which the feature does not fire."""

    tokens: Any
    activations: Any
    str_tokens: list[str]
    distance: float = NO_NEIGHBOUR

    @property
    def max_activation(self) -> float:
        """The strongest activation."""
        return float(self.activations.max())


@dataclass
class LatentRecord:
    """A feature with its examples; lists may be changed, as Delphi does."""

    latent: Any
    examples: list[Any] = field(default_factory=list)
    not_active: list[Any] = field(default_factory=list)
    train: list[Any] = field(default_factory=list)
    test: list[Any] = field(default_factory=list)
    neighbours: list[Any] = field(default_factory=list)
    explanation: str = ""
    extra_examples: list[Any] | None = None
    per_token_frequency: float = 0.0
    per_context_frequency: float = 0.0

    @property
    def max_activation(self) -> float:
        """The strongest activation of all examples."""
        return float(self.examples[0].max_activation)


class _Ours:
    """The classes above, under the names that `delphi.latents` has."""

    Latent = Latent
    ActivatingExample = ActivatingExample
    NonActivatingExample = NonActivatingExample
    LatentRecord = LatentRecord


def delphi_records(
    interpretations: Iterable[Interpretation],
    *,
    module: str = "layers.{layer}.mlp",
    token_id: Callable[[str], int] | None = None,
    types: Any = None,
) -> list[Any]:
    """Records of several features; see `delphi_record`."""
    how: dict[str, Any] = {"module": module, "token_id": token_id, "types": types}
    return [delphi_record(one, **how) for one in interpretations]


def delphi_record(
    interpretation: Interpretation,
    *,
    module: str = "layers.{layer}.mlp",
    token_id: Callable[[str], int] | None = None,
    types: Any = None,
) -> Any:
    """A feature's contexts as a record for Delphi.

    The examples it fires in, strongest first, go to `train` and `test` by turns, so that an
    explanation is never scored on what it was written from and both halves are spread alike.

    Args:
        interpretation: With contexts that hold the activation of every token.
        module: Name of the module; `{layer}` becomes the feature's layer.
        token_id: Gives the id of a token's text. Without it all of `tokens` are -1: Delphi's
            explainers and its detection and fuzzing scorers read `str_tokens` only.
        types: Where the classes are taken from: `delphi.latents`, or anything with `Latent`,
            `LatentRecord`, `ActivatingExample` and `NonActivatingExample`. By default ours.

    Returns:
        A `LatentRecord`. Its arrays are torch tensors (int64 `[n_tokens]`, float32 `[n_tokens]`),
        or numpy arrays where there is no torch.

    Raises:
        PieFastError: The feature has no layer or index, a context has only its peak, or the
            activations do not fit the tokens.
    """
    feature, types = interpretation.feature, types or _Ours
    layer, index = getattr(feature, "layer", None), getattr(feature, "index", None)
    if not isinstance(layer, int) or not isinstance(index, int):
        raise PieFastError(f"feature {feature} has no layer and index, so no latent of Delphi's")
    silent = [c for c in interpretation.contexts if c.kind == "silent"]
    active = [(c, _activations(feature, c)) for c in interpretation.contexts if c.kind != "silent"]
    active.sort(key=lambda pair: -max(pair[1]))  # stable: equals stay in their order
    make = _Maker(types, token_id, max(active[0][1]) if active else 0.0)
    examples = [
        make.activating(context, values, N_QUANTILES * rank // len(active))
        for rank, (context, values) in enumerate(active)
    ]
    return types.LatentRecord(
        latent=types.Latent(module.format(layer=layer), index),
        examples=examples,
        not_active=[make.silent(context) for context in silent if context.tokens],
        train=examples[::2],
        test=examples[1::2],
        explanation=interpretation.label,
        per_token_frequency=interpretation.density or 0.0,
    )


@dataclass(frozen=True)
class _Maker:
    """Makes examples of one feature; `strongest` is its largest activation."""

    types: Any
    token_id: Callable[[str], int] | None
    strongest: float

    def activating(self, context: TopContext, values: Sequence[float], quantile: int) -> Any:
        top = max(self.strongest, 1e-6)  # Delphi's own floor
        normal = np.clip(np.ceil(np.asarray(values, np.float32) * 10 / np.float32(top)), 0, 10)
        return self.types.ActivatingExample(
            tokens=self._tokens(context),
            activations=_array(values, np.float32),
            normalized_activations=_array(normal, np.float32),
            str_tokens=list(context.tokens),
            quantile=quantile,
        )

    def silent(self, context: TopContext) -> Any:
        return self.types.NonActivatingExample(
            tokens=self._tokens(context),
            activations=_array([0.0] * len(context.tokens), np.float32),
            str_tokens=list(context.tokens),
            distance=NO_NEIGHBOUR,
        )

    def _tokens(self, context: TopContext) -> Any:
        known = self.token_id or (lambda _: -1)
        return _array([known(token) for token in context.tokens], np.int64)


def _activations(feature: Any, context: TopContext) -> Sequence[float]:
    """Of every token of a context; refused where they are not all there."""
    n, values = len(context.tokens), context.activations
    if not values or len(values) != n:
        raise PieFastError(
            f"a {context.kind} context of {feature} has {n} tokens and {len(values)} activations; "
            "Delphi needs one of each token, and at least one: collect contexts anew"
        )
    if not all(math.isfinite(value) for value in values):
        raise PieFastError(f"a {context.kind} context of {feature} holds an activation not finite")
    return values


def _array(values: Any, dtype: Any) -> Any:
    array = np.asarray(values, dtype=dtype)
    try:
        import torch
    except ImportError:
        return array
    return torch.from_numpy(array)
