"""Where a replacement model came from: a small description by which another process loads it too.

No torch until it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pie_fast.errors import CheckpointError

if TYPE_CHECKING:
    from pie_fast.replacement_model import ReplacementModel


@dataclass(frozen=True)
class ModelSource:
    """The options of `pie_fast.load_model` in plain values.

    Attributes:
        model: Folder or hub id of the checkpoint; folders are absolute.
        clt: Folder or hub id of the CLT.
        name: What results call the model.
        identity: Of the CLT that was loaded first; another one is refused.
        device: `cpu`, `cuda` or `mps`: a worker has its own devices, so they have no numbers.
        dtype: Of the model's weights.
        autocast: What passes are computed in; None: the dtype of the weights.
        ignore_positions: See `pie_fast.positions`.
        lazy_encoder: Encoders stay on disk.
        hooks: What features read and write.
    """

    model: str
    clt: str
    name: str
    identity: str
    device: str
    dtype: str
    autocast: str | None
    ignore_positions: int | str | None
    lazy_encoder: bool
    hooks: tuple[str, str] | None

    def load(self) -> ReplacementModel:
        """The model, in this process.

        Raises:
            CheckpointError: It does not load here, or the CLT is not the one described.
        """
        import torch

        from pie_fast.replacement_model import load_model

        loaded = load_model(
            self.model,
            self.clt,
            device=self.device,
            dtype=getattr(torch, self.dtype),
            autocast=None if self.autocast is None else getattr(torch, self.autocast),
            ignore_positions=self.ignore_positions,
            lazy_encoder=self.lazy_encoder,
            hooks=self.hooks,
        )
        if loaded.clt.identity != self.identity:
            raise CheckpointError(
                f"{self.clt}: the CLT here is {loaded.clt.identity}, must be {self.identity}"
            )
        loaded.host.name = self.name
        return loaded


def absolute(place: str | Path) -> str:
    """A folder as an absolute path, a hub id as it is."""
    return str(Path(place).resolve()) if Path(place).exists() else str(place)
