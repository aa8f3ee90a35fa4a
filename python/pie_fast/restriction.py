"""Applying a circuit to a model, and reading what a model answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.attributed import as_float64
from pie_fast.circuit import Circuit
from pie_fast.errors import PieFastError
from pie_fast.protocols import SupportsEvaluate, SupportsRestriction

#: how far from 1 the probabilities of an answer may sum (float16 softmax stays within)
SUM_TOLERANCE = 1e-3


def restricted(model: Any, circuit: Circuit) -> Callable[[Any], Any]:
    """The model with only the circuit's features.

    Raises:
        PieFastError: The model has no ``restricted_to``, and copying it with fewer
            ``clt_features`` cannot work or cannot honour the circuit's switches. That the
            copy's answers do not follow from its ``clt_features`` shows at its first call.
    """
    if isinstance(model, SupportsRestriction):
        applied: Callable[[Any], Any] = model.restricted_to(circuit)
        return applied
    for name, value in circuit.switches.items():
        if value != Circuit(()).switches[name]:
            raise PieFastError(
                f"{name} {value!r} needs a model with restricted_to(circuit); "
                f"{type(model).__name__} has none"
            )
    return _RestrictedCopy(model, circuit)


def check_restrictable(model: Any, context: Any) -> None:
    """Find out on one prompt, before costly work, whether circuits can be applied at all.

    Raises:
        PieFastError: They cannot; see :func:`restricted`.
    """
    if not isinstance(model, SupportsRestriction | SupportsEvaluate):
        restricted(model, Circuit(model.clt_features))(context)


class _RestrictedCopy:
    """A shallow copy of a model that has fewer ``clt_features``.

    The copy's class is a subclass whose ``clt_features`` counts its reads: a model that never
    reads them would answer as the whole model does, and any circuit would look faithful.
    """

    def __init__(self, model: Any, circuit: Circuit) -> None:
        self._name = type(model).__name__
        self._n_reads = 0
        everything = model.clt_features
        chosen = set(circuit.features)
        kept = [feature for feature in everything if feature in chosen]
        of_kind = next((k for k in (tuple, set, frozenset) if isinstance(everything, k)), list)

        def read(_: Any) -> Any:
            self._n_reads += 1
            return of_kind(kept)

        try:
            self._copy = copy.copy(model)
            members = {"clt_features": property(read), "__slots__": ()}
            kind = type(self._name, (type(model),), members)
            self._copy.__class__ = kind
        except (TypeError, copy.Error) as error:
            raise PieFastError(
                f"cannot copy {self._name} with fewer features ({error}); "
                "give it restricted_to(circuit)"
            ) from error

    def __call__(self, context: Any) -> Any:
        answer = self._copy(context)
        if not self._n_reads:
            raise PieFastError(
                f"calling {self._name} never reads its clt_features, so fewer of them change "
                "nothing; give it restricted_to(circuit)"
            )
        return answer


def answer_rows(answer: Any, outputs: str) -> NDArray[np.float64]:
    """A model's answer as ``[n_rows, n_answers]`` float64 probabilities.

    Raises:
        PieFastError: It is not finite, or not probabilities where it should be.
    """
    array = as_float64(answer)
    if array.ndim == 0 or array.size == 0:
        raise PieFastError(
            f"the model answered with shape {array.shape}; expected [..., n_answers]"
        )
    rows = array.reshape(-1, array.shape[-1])
    if not np.isfinite(rows).all():
        raise PieFastError("the model answered with a number that is not finite")
    if outputs == "logits":
        powers = np.exp(rows - rows.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float64)
    sums = rows.sum(axis=-1)
    if (rows < 0).any() or (abs(sums - 1) > SUM_TOLERANCE).any():
        raise PieFastError(
            f"the model answered with numbers in [{rows.min():.4g}, {rows.max():.4g}] of sum "
            f"{sums[0]:.4g}; expected probabilities of sum 1 (or pass outputs='logits')"
        )
    return rows


def check_same_shape(full: NDArray[np.float64], part: NDArray[np.float64]) -> None:
    """Refuse to compare answers of different shapes.

    Raises:
        PieFastError: The shapes differ.
    """
    if full.shape != part.shape:
        raise PieFastError(f"the model answers with shape {full.shape}, the circuit {part.shape}")


def as_circuit_or_model(interpreted: Any) -> Any:
    """A bare collection of features becomes a :class:`Circuit`; all else stays as it is."""
    if isinstance(interpreted, set | frozenset | list | tuple) and not callable(interpreted):
        return Circuit(interpreted)
    return interpreted
