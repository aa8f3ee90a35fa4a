"""Which features and readouts the motifs are made of, and where the residual stream holds what."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pie_fast.planted.truth import Motifs

Floats = NDArray[np.float32]

#: tokens before those of prompts
BOS, BLANK, ANSWER, FOIL, N_SPECIAL = 0, 1, 2, 3, 16

N_LAYERS, N_CTX = 2, 4
CONSTANT = 256.0
DECOY_SCALE = 10.0
#: what features add to the logit of the answer
PLAIN, SUPPRESSOR, CANCELLING, ORIGINAL = (0.9, 0.6), -0.8, 0.5, 1.0
#: the answer's logit with all features, where other tokens have 0: a KL that every motif moves
LOGIT = 4.0
#: strengths of cues are 1 up to this share
JITTER = 0.1


@dataclass(frozen=True)
class Feature:
    """A feature before it has an id: activation `scale * cue`, writes named directions."""

    cue: str
    writes: dict[str, float]
    scale: float = 1.0


@dataclass(frozen=True)
class Readout:
    """An attention head: `weight * sigmoid(slope * (source - threshold))` to the answer."""

    source: str
    weight: float
    slope: float
    threshold: float


def lay_out(
    motifs: Motifs,
) -> tuple[dict[str, list[tuple[Feature, ...]]], list[Readout]]:
    """Features by motif, and the readouts between the pairs and the answer."""
    found: dict[str, list[tuple[Feature, ...]]] = {field.name: [] for field in fields(Motifs)}
    readouts: list[Readout] = []

    def answer(cue: str, weight: float) -> Feature:
        return Feature(cue, {"answer": weight})

    for i in range(motifs.plain):
        found["plain"].append((answer(f"plain {i}", PLAIN[i % len(PLAIN)]),))
    for i in range(motifs.suppressor):
        found["suppressor"].append((answer(f"suppressor {i}", SUPPRESSOR),))
    for i in range(motifs.decoy):
        found["decoy"].append((Feature(f"decoy {i}", {"nowhere": 0.1}, DECOY_SCALE),))
    for i in range(motifs.and_pair):
        sum_ = f"and {i}"
        found["and_pair"].append(tuple(Feature(f"{sum_}{c}", {sum_: 1.0}) for c in "ab"))
        readouts.append(Readout(sum_, 3.0, 8.0, 1.5))
    for i in range(motifs.or_pair):
        sum_ = f"or {i}"
        found["or_pair"].append(tuple(Feature(f"{sum_}{c}", {sum_: 1.0}) for c in "ab"))
        # From the middle of the sigmoid up: steep where nothing is in, flat from the first on.
        readouts.append(Readout(sum_, 3.0, 6.0, 0.0))
    for i in range(motifs.duplicate):
        sum_ = f"duplicate {i}"
        original = Feature(sum_, {sum_: 1.0, "answer": ORIGINAL})
        found["duplicate"].append((original, Feature(sum_, {sum_: 1.0})))
        readouts.append(Readout(sum_, 3.0, 6.0, 0.0))
    for i in range(motifs.cancelling):
        cue = f"cancelling {i}"
        found["cancelling"].append((answer(cue, CANCELLING), answer(cue, -CANCELLING)))
    return found, readouts


def number(
    features: dict[str, list[tuple[Feature, ...]]], rng: np.random.Generator
) -> tuple[dict[int, int], int]:
    """Global ids by `id()` of the feature, and the features of a layer.

    Ids are shuffled, so that a tie broken by id says nothing about the truth. What feeds a readout
    must be in layer 0, whose features the heads of layer 1 read; the others are in either.
    """
    flat = [f for each in features.values() for motif in each for f in motif]
    early = np.array([set(f.writes) <= {"answer", "nowhere"} for f in flat])
    layers = np.where(early, rng.integers(0, N_LAYERS, len(flat)), 0)
    width = 2 * len(flat)  # half of each layer and more is dead, as in real dictionaries
    ids = {}
    for layer in range(N_LAYERS):
        mine = np.flatnonzero(layers == layer)
        places = rng.permutation(width)[: len(mine)]
        for feature, place in zip(mine.tolist(), places.tolist(), strict=True):
            ids[id(flat[feature])] = layer * width + place
    return ids, width


class Room:
    """Names of directions of the residual stream, each with mean 0.

    Attributes:
        n_heads, d_head, d_model: Sizes of the model.
        gain: Of every LayerNorm: what undoes its division.
    """

    def __init__(self, features: list[Feature], n_readouts: int) -> None:
        names = {f.cue: None for f in features}
        targets = {name: None for f in features for name in f.writes}
        used = ["answer", "present", *(f"cue {n}" for n in names), *targets]
        self._at = {name: i for i, name in enumerate(dict.fromkeys(used))}
        self._half = len(self._at) + 1
        self.n_heads = max(n_readouts, 1)
        self.d_head = -(-2 * self._half // self.n_heads)
        self.d_model = self.n_heads * self.d_head
        self.gain = CONSTANT * math.sqrt(2 / self.d_model)

    def constant(self) -> Floats:
        """What every token holds: `[d_model]`."""
        return self._pair(self._half - 1, CONSTANT)

    def write(self, name: str) -> Floats:
        """The direction that holds `name`: `[d_model]`."""
        return self._pair(self._at[name], 1.0)

    def read(self, name: str) -> Floats:
        """What gives how much of `name` there is: `[d_model]`."""
        return self._pair(self._at[name], 0.5)

    def _pair(self, place: int, size: float) -> Floats:
        out = np.zeros(self.d_model, np.float32)
        out[place], out[place + self._half] = size, -size
        return out


def all_on(features: list[Feature], readouts: list[Readout]) -> float:
    """What all features add to the logit of the answer where every cue is 1."""

    def total(target: str) -> float:
        return sum(f.scale * f.writes.get(target, 0.0) for f in features)

    def passed(one: Readout) -> float:
        above = one.slope * (total(one.source) - one.threshold)
        return one.weight / (1.0 + math.exp(-above))

    return total("answer") + sum(passed(one) for one in readouts)


def embed(n_tokens: int, features: list[Feature], room: Room, rng: np.random.Generator) -> Floats:
    """Embeddings of special tokens and of those that hold cues: `[vocab, d_model]`."""
    out = np.tile(room.constant(), (N_SPECIAL + n_tokens, 1))
    # A head compares the token with the BOS, so the BOS alone lacks what thresholds are made of.
    out[BLANK] += room.write("present")
    for i in range(n_tokens):
        out[N_SPECIAL + i] += room.write("present")
        for cue in dict.fromkeys(f.cue for f in features):
            absent = cue.startswith("or ") and (i % 4, cue[-1]) in ((2, "b"), (3, "a"))
            strength = 0.0 if absent else 1.0 + rng.uniform(-JITTER, JITTER)
            out[N_SPECIAL + i] += np.float32(strength) * room.write(f"cue {cue}")
    return out
