"""Features set to new activations in a run of the model itself, at all their write layers.

    out_t += sum over moved f of layer l <= t of (new_f - a_f) d_{f -> t}

where `a_f` is what the feature's encoder makes of what its layer reads in this very run, other
moves included. It is the intervention of circuit-tracer (`feature_intervention`), and, for a
feature with its activation set to `m * a_max`, the steering of FADE for a CLT: every later layer
that the feature writes to gets its share, not only its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pie_fast.clt import Clt
from pie_fast.model.host import Hook


@dataclass(frozen=True)
class Move:
    """New activations of some features of one layer: `value + factor * a`.

    A feature is set by a factor of 0, scaled by a value of 0, and left alone by a value of 0 and a
    factor of 1.

    Attributes:
        ids: `[n]` int64, ascending.
        value: `[n_rows or 1, n_pos, n]`.
        factor: The same shape.
    """

    ids: Tensor
    value: Tensor
    factor: Tensor


class Steering:
    """The hooks of one run.

    Args:
        clt: The transcoder.
        sites: Hook points that its features read and write, without `blocks.{l}.`.
        moves: By layer.
        frozen: By layer, activations (`[n_rows, n_pos, n]` of the move's ids) to take for `a_f`
            instead of those of the run.

    Attributes:
        current: By layer `[n_rows, n_pos, n]`: the `a_f` of the run, filled while it runs.
    """

    def __init__(
        self,
        clt: Clt,
        sites: tuple[str, str],
        moves: Mapping[int, Move],
        frozen: Mapping[int, Tensor] | None = None,
    ) -> None:
        self.clt, self.moves, self.frozen = clt, moves, frozen
        self.read_hook, self.write_hook = sites
        self.current: dict[int, Tensor] = {}
        self._writes: dict[int, Tensor] = {}

    def hooks(self) -> list[tuple[str, Hook]]:
        """Hook names with what to call there; a run passes through them once."""
        hooks: list[tuple[str, Hook]] = []
        for layer in range(min(self.moves, default=self.clt.n_layers), self.clt.n_layers):
            if layer in self.moves:
                hooks.append((f"blocks.{layer}.{self.read_hook}", self._reader(layer)))
            hooks.append((f"blocks.{layer}.{self.write_hook}", self._writer(layer)))
        return hooks

    def _reader(self, layer: int) -> Hook:
        move = self.moves[layer]

        def read(x: Tensor) -> None:
            if self.frozen is None:
                a = self.clt.encoder(layer).encode_only(x.to(self.clt.b_dec.dtype), move.ids)
            else:
                a = self.frozen[layer]
            self.current[layer] = a
            # Written so that a feature left alone moves by exactly 0, whatever its activation.
            moved = move.value + (move.factor - 1) * a
            for target, part in self.clt.writes(layer, move.ids, moved):
                before = self._writes.get(target)
                self._writes[target] = part if before is None else before + part

        return read

    def _writer(self, layer: int) -> Hook:
        def write(out: Tensor) -> Tensor:
            added = self._writes.pop(layer, None)
            return out if added is None else out + added.to(out.dtype)

        return write
