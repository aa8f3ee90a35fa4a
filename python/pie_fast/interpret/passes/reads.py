"""What an interpretation read: the table that shows its cost not to grow with the dictionary."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reads:
    """Rows read of a CLT, and calls of the model.

    Attributes:
        encoder_rows: Encoder vectors: those of the kept features once a pass; where a layer's
            activation is a TopK all of the layer's, for every batch.
        decoder_rows: Write vectors, one for each layer that is written to.
        forward: Sequences through a forward pass.
    """

    encoder_rows: int = 0
    decoder_rows: int = 0
    forward: int = 0

    def __add__(self, other: Reads) -> Reads:
        return Reads(
            self.encoder_rows + other.encoder_rows,
            self.decoder_rows + other.decoder_rows,
            self.forward + other.forward,
        )
