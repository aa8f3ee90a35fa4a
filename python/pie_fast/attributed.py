"""Reading a feature's gradient and value, wherever they are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.errors import PieFastError
from pie_fast.protocols import Feature, SupportsAttribute, SupportsAttributed


def as_float64(array: Any) -> NDArray[np.float64]:
    """The array in float64 on the host; tensors of any library that has ``detach`` included."""
    if hasattr(array, "detach"):
        # numpy has no bfloat16, so the tensor is widened before it leaves its library
        array = array.detach().cpu().double()
    return np.asarray(array, dtype=np.float64)


def attribute_on(prompts: Any, model: Any) -> None:
    """Have a model that can do so run its backward on these prompts."""
    if isinstance(model, SupportsAttribute):
        model.attribute(prompts)


def gradient_and_value(
    feature: Feature, model: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A feature's gradient and value after a backward, in float64.

    Raises:
        PieFastError: The feature has none, or their shapes differ.
    """
    if not hasattr(feature, "gradient") and isinstance(model, SupportsAttributed):
        feature = model.attributed(feature)
    gradient = getattr(feature, "gradient", None)
    value = getattr(feature, "value", None)
    if gradient is None or value is None:
        missing = "gradient" if gradient is None else "value"
        raise PieFastError(f"feature {feature} has no {missing}; run a backward first")
    gradient, value = as_float64(gradient), as_float64(value)
    if gradient.shape != value.shape:
        raise PieFastError(
            f"feature {feature} has a gradient of shape {gradient.shape} "
            f"and a value of shape {value.shape}; they must be equal"
        )
    return gradient, value


def n_rows(shape: tuple[int, ...], n_prompts: int) -> int:
    """How many prompts the first axis tells apart: all of them, or 1 (no prompt axis)."""
    return n_prompts if len(shape) >= 2 and shape[0] == n_prompts else 1


def is_active(feature: Feature, model: Any) -> bool:
    """Whether the feature's value differs from zero anywhere."""
    return bool(np.any(gradient_and_value(feature, model)[1]))
