"""What a run is going to need, told before it begins: disk, memory by part, and time. No torch.

A model and a CLT are known by their shapes, which stand in `config.json` and in the headers of
safetensors files: no weight is read. How many features are active is not known before the model has
run; it is measured on a few prompts (`pie_fast.probe`), or assumed and said to be.

Bytes of memory are those of the largest arrays, times the copies of them that live at once; the
benchmark `benches/bench_prompts.py` holds the sum against what a process really took.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pie_fast.errors import CheckpointError, PieFastError
from pie_fast.untrusted import LONGEST_HEADER, load_json

if TYPE_CHECKING:
    from pie_fast.behaviors import Prompt

#: bytes of a header, as in the safetensors reference

#: active features a token and layer where nothing was measured; public CLTs have 10 to 100
ASSUMED_ACTIVE = 64

#: bytes of an entry of a dump: feature, position, activation, attribution
ENTRY_BYTES = 14

#: copies of a batch's columns that a forward and backward pass keeps: clean, baseline, activations,
#: terms, differences, gradients, effects
COLUMN_COPIES = 7

#: copies of one layer's pre-activations, as wide as the dictionary
DENSE_COPIES = 3

#: pre-activations that are computed at once (`pie_fast.clt.encoder`)
DENSE_BLOCK = 1 << 25

#: values as wide as the residual stream that a block keeps for the backward pass, a token
BLOCK_WIDTHS = 12

#: decoders up to this size are kept in memory (`pie_fast.clt.loading.HOLD_BYTES`)
HOLD_BYTES = 512 * 1024**2

#: rows of decoders that are not held: those remembered, and a chunk of them
#: (`pie_fast.clt.assembling.CACHE_BYTES`, `pie_fast.clt.decoder.CHUNK_BYTES`)
ROW_BYTES = (256 + 64) * 1024**2


@dataclass(frozen=True)
class Shape:
    """The sizes of a model and its CLT.

    Attributes:
        n_layers, d_model, n_heads, vocab: Of the model.
        n_parameters: All of its weights.
        n_features: Features a layer.
        n_writes: Write vectors of a feature of every layer together.
        lazy_encoder: Encoders are read from disk, one layer at a time.
    """

    n_layers: int
    d_model: int
    n_heads: int
    vocab: int
    n_parameters: int
    n_features: int
    n_writes: int
    lazy_encoder: bool = False

    @classmethod
    def read(cls, model: Path, n_features: int, n_writes: int, *, lazy_encoder: bool) -> Shape:
        """From the headers of a local model folder, and what its CLT says of itself.

        Raises:
            CheckpointError: Something is missing, with its name.
        """
        config = _config(model)
        files = sorted(model.glob("*.safetensors"))
        return cls(
            n_layers=_first(model, config, "num_hidden_layers", "n_layer"),
            d_model=_first(model, config, "hidden_size", "n_embd"),
            n_heads=_first(model, config, "num_attention_heads", "n_head"),
            vocab=_first(model, config, "vocab_size"),
            n_parameters=sum(math.prod(s) for f in files for _, s in read_header(f).values()),
            n_features=n_features,
            n_writes=n_writes,
            lazy_encoder=lazy_encoder,
        )


@dataclass(frozen=True)
class Activity:
    """How many features are active.

    Attributes:
        active: Per token and layer.
        entries: The same, of features that are active or have a baseline of that token.
        distinct: In all layers, on `tokens` tokens.
        tokens: Of the prompts that were looked at; 0 where nothing was.
        exponent: `distinct` grows with tokens to this power.
        seconds_forward: Of a prompt through a forward pass; None where nothing was measured.
        seconds_backward: Of a prompt through a backward pass.
    """

    active: float
    entries: float
    distinct: float
    tokens: int
    exponent: float
    seconds_forward: float | None = None
    seconds_backward: float | None = None

    @classmethod
    def assumed(cls, n_layers: int) -> Activity:
        """`ASSUMED_ACTIVE` a token and layer, no two tokens sharing one."""
        return cls(ASSUMED_ACTIVE, 2 * ASSUMED_ACTIVE, ASSUMED_ACTIVE * n_layers, 0, 1.0)

    def distinct_on(self, tokens: float, shape: Shape) -> float:
        """Features of all layers that are active somewhere on so many tokens."""
        grown: float = self.distinct * (tokens / max(self.tokens, 1)) ** self.exponent
        return min(grown, shape.n_layers * shape.n_features)


@dataclass(frozen=True)
class Texts:
    """The prompts of one split, by their lengths.

    Attributes:
        lengths: Tokens of each.
    """

    lengths: tuple[int, ...]

    @classmethod
    def of(cls, prompts: Sequence[Prompt]) -> Texts:
        """Of these prompts."""
        return cls(tuple(len(prompt.tokens) for prompt in prompts))

    @property
    def n_tokens(self) -> int:
        """Of all prompts."""
        return sum(self.lengths)

    def padded(self, batch_size: int) -> list[tuple[int, int]]:
        """Prompts and positions of each batch."""
        cut = [self.lengths[i : i + batch_size] for i in range(0, len(self.lengths), batch_size)]
        return [(len(part), max(part)) for part in cut]


@dataclass(frozen=True)
class Memory:
    """Peak memory by part, in bytes.

    Attributes:
        weights: Of the language model.
        encoders: Of the CLT, float32.
        decoders: The CLT's decoders where they are held, else the rows in memory at once.
        prepared: Prompts that a selection keeps prepared.
        batch: What runs through one batch keep.
    """

    weights: int
    encoders: int
    decoders: int
    prepared: int
    batch: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.encoders + self.decoders + self.prepared + self.batch


def memory(
    shape: Shape,
    activity: Activity,
    texts: Texts,
    *,
    batch_size: int,
    baseline: str,
    keeps_prompts: bool,
    dtype: str = "float32",
    freeze: bool = False,
) -> Memory:
    """Peak memory of a run.

    Args:
        shape: Of model and CLT.
        activity: Measured or assumed.
        texts: The selection prompts.
        batch_size: Prompts a batch.
        baseline: Of the run.
        keeps_prompts: Whether the selection keeps all prompts prepared, not one batch at a time.
        dtype: Of the model's weights.
        freeze: Whether attention is frozen, so that patterns are kept.
    """
    each = [
        _batch(shape, activity, n, width, baseline, freeze)
        for n, width in texts.padded(batch_size) or [(0, 0)]
    ]
    width = 4 if dtype == "float32" else 2
    row = shape.d_model * 4
    decoders = shape.n_writes * shape.n_features * row
    if decoders > HOLD_BYTES:
        decoders = ROW_BYTES
    n_encoders = 1 if shape.lazy_encoder else shape.n_layers
    return Memory(
        weights=shape.n_parameters * width,
        encoders=n_encoders * shape.n_features * (row + 8),
        decoders=decoders,
        prepared=sum(int(setup) for setup, _ in each) if keeps_prompts else 0,
        batch=max(int(run) for _, run in each),
    )


def _batch(
    shape: Shape, activity: Activity, n: int, width: int, baseline: str, freeze: bool
) -> tuple[float, float]:
    """Bytes of a batch of n prompts of this width: prepared, and running."""
    tokens = n * width
    residual = 4.0 * tokens * shape.d_model
    both = 2 if baseline == "counterfactual" else 1
    columns = 4.0 * tokens * activity.distinct_on(both * tokens, shape)
    pattern = 4.0 * shape.n_heads * tokens * width
    # Error and output of each layer, and what the baseline rebuilds of it.
    setup = (1 + both) * shape.n_layers * residual + both * columns + 4.0 * n * shape.vocab
    setup += pattern * shape.n_layers * freeze
    dense = min(tokens * shape.n_features, max(DENSE_BLOCK, shape.n_features))
    run = COLUMN_COPIES * columns + DENSE_COPIES * 4.0 * dense
    run += shape.n_layers * (BLOCK_WIDTHS + shape.n_layers / 2) * residual
    # Long prompts keep one pattern at a time (`pie_fast.model.lean`).
    run += pattern * (2 * shape.n_layers if width < 512 else 4)
    run += 4.0 * n * 2 * shape.vocab
    return setup, setup + run


def disk(shape: Shape, activity: Activity, texts: Texts, baseline: str) -> int:
    """Bytes of a dump of these prompts."""
    if baseline == "mean":  # a mean is nowhere 0
        per_token = activity.distinct_on(texts.n_tokens, shape)
    else:
        each = activity.entries if baseline == "counterfactual" else activity.active
        per_token = shape.n_layers * each
    both = 2 if baseline == "counterfactual" else 1
    return int(texts.n_tokens * (per_token * ENTRY_BYTES + 4 * both)) + 36 * len(texts.lengths)


def seconds(activity: Activity, forward: int, backward: int) -> float | None:
    """Of so many prompts through the model; None where no time was measured."""
    if activity.seconds_forward is None or activity.seconds_backward is None:
        return None
    return forward * activity.seconds_forward + backward * activity.seconds_backward


def check_fits(needed: Memory, memory_left: int, dump: int, disk_left: int) -> None:
    """Refuse what cannot fit.

    Args:
        needed: Beside what is loaded already: parts that are may be 0.
        memory_left: Bytes that the device has left.
        dump: Bytes of the dump.
        disk_left: Bytes left where it goes.

    Raises:
        PieFastError: With what is needed by part, what there is, and what may help.
    """
    if needed.total > memory_left:
        parts = ", ".join(f"{name} {human(size)}" for name, size in vars(needed).items() if size)
        raise PieFastError(
            f"about {human(needed.total)} of memory are needed ({parts}), "
            f"{human(memory_left)} are left; fewer --prompts or a smaller --batch-size need less, "
            "--ignore-estimate tries all the same"
        )
    if dump > disk_left:
        raise PieFastError(
            f"the dump takes about {human(dump)}, {human(disk_left)} are left on the disk; "
            "fewer --prompts need less, --ignore-estimate tries all the same"
        )


def memory_left() -> int:
    """Bytes that this machine can still give, by /proc/meminfo and the limit of a container.

    The largest integer where the system does not say.
    """
    found = [2**63 - 1]
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    limit, used = (
        "".join(_lines(f"/sys/fs/cgroup/memory.{name}")).strip() for name in ("max", "current")
    )
    if limit.isdigit() and used.isdigit():
        found.append(int(limit) - int(used))
    return max(min(found), 0)


def human(size: float) -> str:
    """Bytes for a reader: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> dtype and shape of a safetensors file's tensors; none of them is read.

    Raises:
        CheckpointError: It is no such file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(path.stat().st_size, LONGEST_HEADER):
                raise ValueError("the header is longer than the file, or than any may be")
            header = load_json(file.read(length))
        return {
            name: (str(tensor["dtype"]), tuple(int(n) for n in tensor["shape"]))
            for name, tensor in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from error


def _config(model: Path) -> Mapping[str, Any]:
    path = model / "config.json"
    try:
        config = load_json(path.read_bytes(), finite=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: the model's shape cannot be read: {error}") from error
    # Models that see pictures keep the language model's shape one level down.
    inner: Mapping[str, Any] = config.get("text_config") or config
    return inner


def _first(model: Path, config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if isinstance(config.get(name), int):
            return int(config[name])
    raise CheckpointError(f"{model / 'config.json'}: {names[0]} is missing")


def _lines(path: str) -> Iterator[str]:
    try:
        with Path(path).open() as file:
            yield from file
    except OSError:
        return
