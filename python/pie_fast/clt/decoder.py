"""One layer's decoder: what its features write, and to which layers.

    writes[t] = sum over features of a_f @ d_{f -> t}         for every target layer t

Rows are gathered from the file when they are needed, a chunk at a time, in the backward pass
again; the first ones of a request are remembered. Small decoders are held whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pie_fast.clt.rows import RowCache, Rows

#: bytes of decoder rows in memory at once, beside those that are remembered
CHUNK_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class Slab:
    """Write vectors of some of a layer's features, to some of its targets, in one matrix.

    The vector of feature `features.start + i` to target `targets.start + j` is row
    `first + step * i + j`.

    Attributes:
        rows: The matrix, `[any, d_model]`.
        features: Indices in the layer's dictionary.
        targets: Places among the targets of the layer.
        first: Row of the first feature.
        step: Rows from one feature to the next.
        scale: `[n_targets, 1]` or `[n_targets, d_model]`, a factor on what is stored; None for 1.
    """

    rows: Rows
    features: range
    targets: range
    first: int = 0
    step: int = 1
    scale: Tensor | None = None

    def read(self, indices: Tensor) -> Tensor:
        """Features `features.start + indices`: `[n, n_targets, d_model]` float32 on the CPU."""
        each = self.first + self.step * indices[:, None] + torch.arange(len(self.targets))
        found = self.rows.read(each.flatten())
        found = found.view(len(indices), len(self.targets), found.shape[-1])
        return found if self.scale is None else found * self.scale


class Decoder:
    """One layer's decoder.

    Args:
        slabs: Where its write vectors are; together they have every feature and target once.
        n_features: Features of the layer.
        d_model: Width of a write vector.
        targets: Layers that are written to.
        device, dtype: Of what is handed out.
        most: Rows that are remembered.
    """

    def __init__(
        self,
        slabs: Sequence[Slab],
        n_features: int,
        d_model: int,
        targets: range,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        most: int = 0,
    ) -> None:
        self.slabs, self.n_features, self.d_model = tuple(slabs), n_features, d_model
        self.targets, self.device, self.dtype = targets, device, dtype
        self._whole: Tensor | None = None
        self._cache = RowCache(self._read, most)

    @property
    def row_bytes(self) -> int:
        """Bytes of one feature's row in memory."""
        return len(self.targets) * self.d_model * self.dtype.itemsize

    def hold(self) -> None:
        """Keep all of it in memory from now on: many small passes get faster."""
        self._whole = self._read(torch.arange(self.n_features))

    def rows(self, ids: Tensor) -> Tensor:
        """Write vectors of `ids`, ascending: `[n, n_targets, d_model]`."""
        return self._cache.rows(ids) if self._whole is None else self._whole[ids]

    def decode(self, ids: Tensor, values: Tensor) -> Tensor:
        """`values` (`[..., n]` of `ids`, ascending) as writes: `[..., n_targets, d_model]`."""
        if self._whole is None:
            writes: Tensor = _Decoded.apply(values, ids, self)
        else:
            rows = self._whole
            # Gathering most of a dictionary costs more than multiplying by all of it.
            if 2 * len(ids) > len(rows):
                values = values.new_zeros(*values.shape[:-1], len(rows)).index_copy(-1, ids, values)
            else:
                rows = rows[ids]
            writes = values @ rows.flatten(1)
        return writes.view(*writes.shape[:-1], len(self.targets), self.d_model)

    def chunks(self, ids: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The rows of `ids` as `[n, n_targets * d_model]`, in pieces, with the place of each."""
        kept = min(self._cache.most, len(ids))
        if kept:
            yield slice(0, kept), self._cache.rows(ids[:kept]).flatten(1)
        step = max(CHUNK_BYTES // self.row_bytes, 1)
        for start in range(kept, len(ids), step):
            place = slice(start, min(start + step, len(ids)))
            yield place, self._read(ids[place]).flatten(1)

    def _read(self, ids: Tensor) -> Tensor:
        ids = ids.cpu()
        slabs = self.slabs
        if len(slabs) == 1:  # no second copy where one file has them all
            return slabs[0].read(ids).to(self.device, self.dtype)
        out = torch.empty(len(ids), len(self.targets), self.d_model)
        for slab in slabs:
            here = (ids >= slab.features.start) & (ids < slab.features.stop)
            columns = slice(slab.targets.start, slab.targets.stop)
            out[here.nonzero().squeeze(-1), columns] = slab.read(ids[here] - slab.features.start)
        return out.to(self.device, self.dtype)


class _Decoded(torch.autograd.Function):
    """The product with rows that are gathered chunk by chunk, forward and backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ids: Tensor, decoder: Decoder) -> Tensor:
        ctx.ids, ctx.decoder = ids, decoder
        flat = values.flatten(0, -2)
        out = flat.new_zeros(len(flat), len(decoder.targets) * decoder.d_model)
        for place, rows in decoder.chunks(ids):
            out.addmm_(flat[:, place], rows)
        return out.view(*values.shape[:-1], out.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        flat = grad.flatten(0, -2)
        out = flat.new_empty(len(flat), len(ctx.ids))
        for place, rows in ctx.decoder.chunks(ctx.ids):
            out[:, place] = flat @ rows.T
        return out.view(*grad.shape[:-1], len(ctx.ids)), None, None
