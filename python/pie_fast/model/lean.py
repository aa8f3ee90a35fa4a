"""Attention that keeps nothing quadratic in the prompt's length for the backward pass.

A backward pass through a softmax needs the pattern, `[batch, n_heads, n_pos, n_pos]`, of every
layer at once. Here each layer's attention keeps what it read, linear in the length, and is computed
again when the backward pass comes to it: the same numbers, one pattern at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

#: positions from which patterns are worth computing twice
LONG = 512


@contextmanager
def lean_attention(
    bridge: Any, points: Sequence[tuple[str, Callable[..., Tensor | None]]]
) -> Iterator[None]:
    """Run the attention of every block so while the context is open.

    Args:
        bridge: The TransformerBridge.
        points: The hooks of the pass; those inside an attention act in its second run too, which
            may be after the hooks of the pass are gone.
    """
    attentions = [block.attn for block in bridge.blocks]
    for layer, attention in enumerate(attentions):
        mine = [point for point in points if point[0].startswith(f"blocks.{layer}.attn.")]
        # Not by setattr: a bridge hands what it does not know on to the module that it wraps.
        vars(attention)["forward"] = _twice(attention, bridge, mine)
    try:
        yield
    finally:
        for attention in attentions:
            del vars(attention)["forward"]


def forget_pattern(attention: Any) -> None:
    """Some attentions of the bridge keep their latest pattern, which nothing here reads."""
    vars(attention).pop("_pattern", None)


def _twice(attention: Any, bridge: Any, points: list[Any]) -> Callable[..., Any]:
    whole = attention.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        out = whole(*args, **kwargs)
        forget_pattern(attention)
        return out

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[Any]]:
        return nullcontext(), _Anew(lambda: bridge.hooks(fwd_hooks=points))

    def run(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(
            forward,
            *args,
            use_reentrant=False,
            context_fn=contexts,
            preserve_rng_state=False,  # nothing is random: there is no dropout in evaluation
            **kwargs,
        )

    return run


class _Anew:
    """A context that can be entered again: by each of several backward passes."""

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make = make

    def __enter__(self) -> None:
        self._open = self._make()
        self._open.__enter__()

    def __exit__(self, *raised: Any) -> bool | None:
        return self._open.__exit__(*raised)
