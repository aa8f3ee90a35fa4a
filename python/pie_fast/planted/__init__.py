"""Planted ground truth: small transformers with a CLT whose circuit is known, to test selectors on.

Nothing is trained. `plant` writes a GPT-2 of two layers and a CLT in the circuit-tracer layout, so
whatever runs on real checkpoints runs on them. A prompt is a BOS and one token; the token's
embedding holds how much of each *cue* there is, its counterfactual holds none:

    feature          relu(scale * cue)            the MLPs are the CLT itself, errors are rounding
    plain path       feature -> answer            linear
    readout          features -> key of a layer 1 attention head -> answer
                     weight * sigmoid(slope * (sum of features - threshold))

Readouts are attention heads, not CLT features: an interaction of two features is then one of just
these two, with no third feature that a circuit must also keep. The motifs, by how the answer's
logit depends on them:

    motif        what it is                                         in the circuit
    plain        adds its weight                                    yes
    suppressor   takes its weight off                               yes
    and          pair: only together they pass the threshold        both
    or           pair: either is enough; some prompts have one      both
    duplicate    original (saturates a readout, adds a little)      the original
                 and copy (feeds the same readout, adds nothing)    no
    cancelling   pair of equal cue, equal weight, opposite sign     no
    decoy        largest activations, writes where nothing reads    no

A constant of size `CONSTANT` in the residual stream keeps the scale of every LayerNorm the same
within a tenth of a percent, and all else is written in directions of mean 0, which a LayerNorm
passes on as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pie_fast.behaviors import Behavior, Prompt
from pie_fast.errors import PieFastError
from pie_fast.planted.checkpoints import weights, write_clt, write_model
from pie_fast.planted.layout import (
    ANSWER,
    BLANK,
    BOS,
    FOIL,
    LOGIT,
    N_SPECIAL,
    Room,
    all_on,
    embed,
    lay_out,
    number,
)
from pie_fast.planted.truth import Agreement, Motifs, Truth

if TYPE_CHECKING:
    from pie_fast.replacement_model import ReplacementModel

__all__ = ["Agreement", "Motifs", "Planted", "Truth", "plant"]


@dataclass(frozen=True)
class Planted:
    """A system on disk and what is true of it.

    Attributes:
        model_path: A GPT-2 folder.
        clt_path: A CLT folder in the circuit-tracer layout.
        behavior: Prompts with counterfactuals; the two splits share no token but the BOS.
        truth: The circuit.
    """

    model_path: Path
    clt_path: Path
    behavior: Behavior
    truth: Truth

    def load(self, device: str = "cpu") -> ReplacementModel:
        """The replacement model of the two."""
        from pie_fast.replacement_model import load_model

        return load_model(str(self.model_path), str(self.clt_path), device=device)


def plant(
    folder: Path,
    motifs: Motifs | None = None,
    *,
    n_prompts: int = 8,
    n_held_out: int = 8,
    seed: int = 0,
) -> Planted:
    """Write a system with a known circuit.

    Args:
        folder: Gets the folders `model` and `clt`; made where it is not there.
        motifs: How many of each; one or a few of all when None.
        n_prompts: Prompts to select on. Of four in a row two have both cues of an OR pair, and
            one each has only the one or the other.
        n_held_out: Prompts held out, made in the same way.
        seed: Decides which ids the features get, and the strengths of cues.

    Raises:
        PieFastError: There are no prompts, or a negative number of them.
    """
    if n_prompts < 1 or n_held_out < 0:
        raise PieFastError(
            f"n_prompts is {n_prompts}, n_held_out {n_held_out}; at least 1 and 0 are needed"
        )
    rng = np.random.default_rng(seed)
    features, readouts = lay_out(motifs or Motifs())
    ids, width = number(features, rng)
    truth = Truth(
        {
            name: tuple(tuple(ids[id(f)] for f in motif) for motif in each)
            for name, each in features.items()
        }
    )
    flat = [f for each in features.values() for motif in each for f in motif]
    room = Room(flat, len(readouts))
    numbered = {ids[id(f)]: f for f in flat}
    encoders, decoders = weights(numbered, width, room)
    n_tokens = n_prompts + n_held_out
    embedding = embed(n_tokens, flat, room, rng)
    embedding += (LOGIT - all_on(flat, readouts)) * room.write("answer")
    write_model(folder / "model", embedding, encoders, decoders, readouts, room)
    write_clt(folder / "clt", encoders, decoders)
    prompts = tuple(
        Prompt((BOS, N_SPECIAL + i), ANSWER, FOIL, (BOS, BLANK)) for i in range(n_tokens)
    )
    behavior = Behavior(
        "planted", prompts[:n_prompts], prompts[n_prompts:], seed=seed, counterfactual="no cues"
    )
    return Planted(folder / "model", folder / "clt", behavior, truth)
