"""The one pass over a corpus: equal to a literal loop, however it is batched or interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import tiny
from padding_clts import pad_clt
from pie_fast.clt.activation import TopK
from pie_fast.clt.decoder import Decoder
from pie_fast.clt.encoder import Encoder, Weight
from pie_fast.errors import CheckpointError, CorpusError, DumpError, PieFastError
from pie_fast.interpret import Corpus
from pie_fast.interpret.passes.collecting import activations_of, collect, peaks_of
from pie_fast.interpret.passes.kept import Kept, by_length, counted_positions
from pie_fast.interpret.passes.reads import Reads
from pie_fast.model import Replacer, make_batch
from pie_fast.replacement_model import ReplacementModel, load_model
from plain_gpt2 import PlainGpt2
from torch_prompts import random_prompts

F = tiny.N_FEATURES
#: some of layers 0 and 1; layer 2 has none, so that the model need not run so far
IDS = np.array([1, 2, 7, 20, 33, F + 0, F + 5, F + 6, F + 30, F + 47])
#: against float64, and between batches; activations are of the order of 1
TOLERANCE = 2e-5
#: sizes at which 40 sequences are several blocks
SMALL = {"n_top": 3, "n_sample": 4, "n_silent": 4, "batch_tokens": 16}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.of(random_prompts(40))


def literal(folders: tuple[Path, Path], corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """`[n_tokens, K]` activations of each sequence run alone in float64, and what is no tie."""
    model, found = PlainGpt2(folders[0]), []
    weights = [load_file(folders[1] / f"W_enc_{layer}.safetensors") for layer in range(2)]
    for i in range(corpus.n_prompts):
        reads = model.run(tuple(corpus.tokens_of(i).tolist())).reads
        columns = []
        for feature in IDS.tolist():
            layer, index = divmod(feature, F)
            part = {
                k.rpartition("_")[0]: v.double()[index]
                for k, v in weights[layer].items()
                if not k.startswith("b_dec")
            }
            pre = reads[layer] @ part["W_enc"] + part["b_enc"]
            columns.append(torch.stack([pre, pre - part["threshold"]], -1))
        found.append(torch.stack(columns, 1))
    pre, above = torch.cat(found).unbind(-1)
    values = torch.where(above > 0, pre, 0.0).numpy()
    values[corpus.position == 0] = 0  # the BOS has no features
    return values, (above.abs() > 1e-4).numpy()


def test_equals_every_sequence_alone(
    tiny_folders: tuple[Path, Path], tiny_model: ReplacementModel, corpus: Corpus
) -> None:
    wanted, clear = literal(tiny_folders, corpus)
    assert clear.mean() > 0.99 and (wanted != 0).mean() > 0.1
    sequences = [corpus.tokens_of(i).tolist() for i in range(corpus.n_prompts)]
    found = list(activations_of(tiny_model, sequences, IDS, batch_tokens=50))
    assert [len(a) for a in found] == np.diff(corpus.ptr).tolist()
    assert found[0].dtype == np.float32
    np.testing.assert_allclose(np.concatenate(found)[clear], wanted[clear], atol=TOLERANCE)
    collected = collect(tiny_model, corpus, IDS, **SMALL)
    peaks = peaks_of(tiny_model, sequences, IDS)
    for k in range(len(IDS)):
        signed = [a[np.abs(a[:, k]).argmax(), k] for a in found]
        np.testing.assert_allclose(peaks[:, k], signed, atol=TOLERANCE)
        np.testing.assert_allclose(collected.peaks(k), signed, atol=TOLERANCE)


@pytest.mark.parametrize("batch_tokens", [1, 13, 100, 4096])
def test_batches_change_last_bits_alone(
    tiny_model: ReplacementModel, corpus: Corpus, batch_tokens: int
) -> None:
    alone = Kept(tiny_model, IDS).activations(corpus, 1)
    kept = Kept(tiny_model, IDS)
    values = kept.activations(corpus, batch_tokens)
    same = (values != 0) == (alone != 0)
    assert same.mean() > 0.999
    np.testing.assert_allclose(values[same], alone[same], atol=TOLERANCE)
    assert kept.reads == Reads(encoder_rows=len(IDS), forward=corpus.n_prompts)


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(1, 64))
def test_batches_hold_every_sequence_once(lengths: list[int], batch_tokens: int) -> None:
    array = np.array(lengths, dtype=np.int64)
    found = list(by_length(array, batch_tokens))
    assert sorted(np.concatenate([[], *found]).tolist()) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) * array[batch].max() <= batch_tokens or len(batch) == 1
    for one, other in pairwise(found):
        assert array[one].min() >= array[other].max()


@pytest.mark.parametrize("policy", ["auto", "circuit-tracer", 0, 2])
def test_ignored_positions_and_the_bos_do_not_count(
    tiny_folders: tuple[Path, Path], policy: int | str
) -> None:
    model = load_model(*map(str, tiny_folders), device="cpu", ignore_positions=policy)
    prompts = [
        *random_prompts(5),
        *(replace(p, tokens=(7, *p.tokens[1:])) for p in random_prompts(4)),
    ]
    corpus = Corpus.of(prompts)
    counted = counted_positions(model, corpus)
    batch = make_batch(prompts, model.device)
    theirs = ~model.ignored(batch) & (batch.tokens != 0)
    np.testing.assert_array_equal(counted, theirs[batch.real].numpy())
    assert 0 < (~counted).sum() < len(counted)
    collected = collect(model, corpus, IDS)
    np.testing.assert_array_equal(collected.corpus.counted, counted)
    assert collected.state["counts"].tolist() == [9, counted.sum()]
    some = replace(corpus, counted=corpus.position > 3)
    fewer = collect(model, some, IDS)
    np.testing.assert_array_equal(fewer.corpus.counted, counted & (corpus.position > 3))
    assert (fewer.state["fires"] < collected.state["fires"]).any()


def test_the_model_runs_no_further_than_the_last_kept_layer(
    tiny_folders: tuple[Path, Path], corpus: Corpus
) -> None:
    model = load_model(*map(str, tiny_folders), device="cpu")
    before = Kept(model, IDS).activations(corpus, 64)
    with torch.no_grad():  # above layer 1 anything may stand, and in its MLP
        for block in (model.host.bridge.blocks[2], model.host.bridge.blocks[1].mlp):
            for weight in block.parameters():
                weight.fill_(torch.nan)
    np.testing.assert_array_equal(Kept(model, IDS).activations(corpus, 64), before)
    with pytest.raises(CheckpointError, match=r"layer 2 of the model reads NaN.* on sequence \d+"):
        collect(model, corpus, [2 * F])


class Counted:
    """Rows read of files, and calls of the model."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.encoder = self.decoder = 0
        rows, whole = Weight.read_features, Weight.read

        def read_rows(weight: Weight, ids: torch.Tensor) -> torch.Tensor:
            self.encoder += len(ids)
            return rows(weight, ids)

        def read_all(weight: Weight) -> torch.Tensor:
            self.encoder += weight.n_features
            return whole(weight)

        def write(*_: Any) -> None:
            raise AssertionError("the pass needs no write vectors")

        patch.setattr(Weight, "read_features", read_rows)
        patch.setattr(Weight, "read", read_all)
        patch.setattr(Decoder, "rows", write)
        patch.setattr(Decoder, "decode", write)


def lazily(model: Path, clt: Path, *, k: int | None = None) -> ReplacementModel:
    """Encoders stay on disk; with `k` every layer is a TopK."""
    made = load_model(str(model), str(clt), device="cpu", lazy_encoder=True)
    if k is None:
        return made
    encoders = [Encoder(e._weight, e.bias, TopK(k, positive=True)) for e in made.clt.encoders]
    return ReplacementModel(made.host, replace(made.clt, encoders=encoders))


def cost(model: ReplacementModel, corpus: Corpus) -> tuple[dict[str, Any], Any, Counted, Reads]:
    """What a pass gives, and what it cost: calls, rows counted where they are read, and as told."""
    told: list[Reads] = []
    layers, indices = np.divmod(IDS, F)
    ids = layers * model.clt.n_features + indices
    before = model.spent
    with pytest.MonkeyPatch.context() as patch:
        counted = Counted(patch)
        found = collect(model, corpus, ids, **SMALL, report=told.append)
    return found.state, model.spent - before, counted, told[0]


def test_cost_is_flat_in_the_size_of_the_dictionary(
    tiny_folders: tuple[Path, Path], tmp_path: Path, corpus: Corpus
) -> None:
    model, clt = tiny_folders
    large = pad_clt(clt, tmp_path / "large", 10)
    state, calls, counted, told = cost(lazily(model, clt), corpus)
    padded, padded_calls, padded_counted, padded_told = cost(lazily(model, large), corpus)
    assert told == padded_told == Reads(len(IDS), 0, corpus.n_prompts)
    assert counted.encoder == padded_counted.encoder == len(IDS)
    assert calls == padded_calls and calls.forward == corpus.n_prompts
    assert {name: a.tobytes() for name, a in state.items()} == {
        name: a.tobytes() for name, a in padded.items()
    }


def test_a_topk_reads_its_whole_encoder(
    tiny_folders: tuple[Path, Path], tmp_path: Path, corpus: Corpus
) -> None:
    model, clt = tiny_folders
    large = pad_clt(clt, tmp_path / "large", 10)
    state, calls, counted, told = cost(lazily(model, clt, k=6), corpus)
    padded, padded_calls, padded_counted, padded_told = cost(lazily(model, large, k=6), corpus)
    assert state["fires"].any() and (state["fires"] == padded["fires"]).all()
    assert calls == padded_calls
    assert counted.encoder == told.encoder_rows and told.encoder_rows % (2 * F) == 0
    assert padded_counted.encoder == padded_told.encoder_rows == 10 * told.encoder_rows


class Stop(Exception):
    """Stands for Ctrl-C, which pytest would take for its own."""


def after(n: int, error: BaseException) -> Callable[[int, int], None]:
    """A progress callback that raises on its n-th call."""
    calls: list[int] = []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == n:
            raise error

    return progress


@pytest.mark.parametrize("blocks", [1, 2])
def test_an_interrupted_pass_ends_in_the_same_bytes(
    tiny_model: ReplacementModel, corpus: Corpus, tmp_path: Path, blocks: int
) -> None:
    seen: list[tuple[int, int]] = []
    whole = collect(
        tiny_model,
        corpus,
        IDS,
        **SMALL,
        folder=tmp_path / "a",
        progress=lambda *at: seen.append(at),
    )
    assert len(seen) == 3 and seen[-1] == (40, 40)
    with pytest.raises(Stop):
        stop = after(blocks, Stop())
        collect(tiny_model, corpus, IDS, **SMALL, folder=tmp_path / "b", progress=stop)
    before = tiny_model.spent
    again = collect(tiny_model, corpus, IDS, **SMALL, folder=tmp_path / "b")
    assert (tiny_model.spent - before).forward == 40 - seen[blocks - 1][0]
    one, other = ((tmp_path / n / "contexts.safetensors").read_bytes() for n in "ab")
    assert one == other
    for name, array in collect(tiny_model, corpus, IDS, **SMALL).state.items():
        assert array.tobytes() == whole.state[name].tobytes() == again.state[name].tobytes()
    assert [f.name for f in (tmp_path / "b").iterdir()] == ["contexts.safetensors"]


def test_ctrl_c_in_a_block_leaves_the_state_before(
    tiny_model: ReplacementModel,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, calls = Replacer.reads, []

    def reads(model: Replacer, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return run(model, *args)

    monkeypatch.setattr(Replacer, "reads", reads)
    with pytest.raises(KeyboardInterrupt):
        collect(tiny_model, corpus, IDS, **SMALL, folder=tmp_path)
    monkeypatch.undo()
    before = tiny_model.spent
    found = collect(tiny_model, corpus, IDS, **SMALL, folder=tmp_path)
    assert 0 < (tiny_model.spent - before).forward < 40
    wanted = collect(tiny_model, corpus, IDS, **SMALL).state
    assert all(a.tobytes() == wanted[name].tobytes() for name, a in found.state.items())


def test_a_pass_that_is_done_runs_nothing(
    tiny_model: ReplacementModel, corpus: Corpus, tmp_path: Path
) -> None:
    one = collect(tiny_model, corpus, IDS, folder=tmp_path)
    before = tiny_model.spent
    told: list[Reads] = []
    two = collect(tiny_model, corpus, IDS, folder=tmp_path, report=told.append)
    assert tiny_model.spent == before and told[0].forward == 0
    assert all(a.tobytes() == two.state[name].tobytes() for name, a in one.state.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ids": IDS[1:]}, r"features is \[1, 2, .* here it is \[2, "),
        ({"n_top": 4}, "n_top is 3, here it is 4"),
        ({"n_sample": 5}, "n_sample is 4, here it is 5"),
        ({"n_silent": 5}, "n_silent is 4, here it is 5"),
        ({"batch_tokens": 17}, "batch_tokens is 16, here it is 17"),
        ({"corpus": random_prompts(40, seed=4)}, "corpus is "),
        ({"ignore": 2}, 'ignore_positions is "auto", here it is 2'),
        ({"clt": "another"}, 'clt is ".*", here it is "another"'),
    ],
)
def test_a_state_of_another_pass_is_refused(
    tiny_model: ReplacementModel,
    corpus: Corpus,
    tmp_path: Path,
    change: dict[str, Any],
    said: str,
) -> None:
    collect(tiny_model, corpus, IDS, **SMALL, folder=tmp_path)
    file = tmp_path / "contexts.safetensors"
    there = file.read_bytes()
    clt = replace(tiny_model.clt, identity=change.get("clt", tiny_model.clt.identity))
    model = ReplacementModel(tiny_model.host, clt, ignore_positions=change.get("ignore"))
    other = Corpus.of(change["corpus"]) if "corpus" in change else corpus
    sizes = SMALL | {k: v for k, v in change.items() if k in SMALL}
    with pytest.raises(DumpError, match=said):
        collect(model, other, change.get("ids", IDS), **sizes, folder=tmp_path)
    assert file.read_bytes() == there


def changed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old in content and len(old) == len(new)
        return content.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: b"", "not a readable safetensors file"),
        (lambda content: content[:-1], "not a readable safetensors file"),
        (lambda content: b"\xff" * 64, "not a readable safetensors file"),
        (changed(b'"format":"1"', b'"format":"2"'), "format is '2', must be '1'"),
        (
            changed(b'"done":"40"', b'"done":"39"'),
            "done is 39 of 40, but the sequences in it are .*0, 40",
        ),
        (changed(b'"done":"40"', b'"done":"-4"'), "done is '-4', must be a number"),
        (changed(b'"batch_tokens":"16"', b'"batch_tokens":"00"'), "batch_tokens is '00'"),
        (changed(b'"identity":"{', b'"identity":"['), "identity is not JSON"),
        (changed(b'"counts"', b'"cuonts"'), "c[ou]+nts"),
    ],
)
def test_a_broken_state_is_refused(
    tiny_model: ReplacementModel,
    corpus: Corpus,
    tmp_path: Path,
    change: Callable[[bytes], bytes],
    said: str,
) -> None:
    collect(tiny_model, corpus, IDS, **SMALL, folder=tmp_path)
    file = tmp_path / "contexts.safetensors"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DumpError, match=said) as error:
        collect(tiny_model, corpus, IDS, **SMALL, folder=tmp_path)
    assert str(file) in str(error.value)


def full_beyond(n_tokens: int, patch: pytest.MonkeyPatch) -> None:
    """A device with room for batches of so many tokens."""
    run = Replacer.reads

    def reads(model: Replacer, batch: Any, layers: Any) -> Any:
        if batch.tokens.numel() > n_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return run(model, batch, layers)

    patch.setattr(Replacer, "reads", reads)


def test_batches_are_halved_where_memory_runs_out_and_stay_so(
    tiny_model: ReplacementModel,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = SMALL | {"batch_tokens": 32}
    usual = collect(tiny_model, corpus, IDS, **sizes)
    full_beyond(20, monkeypatch)
    notes: list[str] = []
    where = {"folder": tmp_path / "a", "note": notes.append}
    found = collect(tiny_model, corpus, IDS, **sizes, **where)
    assert notes == ["out of memory: from sequence 0 on 16 tokens at a time"]
    np.testing.assert_allclose(found.peaks(0), usual.peaks(0), atol=TOLERANCE)
    with pytest.raises(Stop):
        stop = after(1, Stop())
        collect(tiny_model, corpus, IDS, **sizes, folder=tmp_path / "b", progress=stop)
    monkeypatch.undo()  # there is room again, but batches are the ones of the state
    collect(tiny_model, corpus, IDS, **sizes, folder=tmp_path / "b")
    one, other = ((tmp_path / n / "contexts.safetensors").read_bytes() for n in "ab")
    assert one == other


def test_one_sequence_that_does_not_fit_is_an_error(
    tiny_model: ReplacementModel, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_beyond(8, monkeypatch)
    with pytest.raises(PieFastError, match=r"sequence 0, 12 tokens, needs more memory than cpu"):
        collect(tiny_model, corpus, IDS, **SMALL)


@pytest.mark.parametrize(
    ("sequences", "said"),
    [
        ([[0, 1], []], "sequence 1 has 0 tokens; the model reads 1 to 40"),
        ([[0] * 41], "sequence 0 has 41 tokens; the model reads 1 to 40"),
        ([[0], [0, 60]], "sequence 1, position 1: token id 60; the model's ids are 0 to 59"),
        ([[0, -1]], "sequence 0, position 1: token id -1"),
    ],
)
def test_sequences_that_the_model_cannot_read(
    tiny_model: ReplacementModel, sequences: list[list[int]], said: str
) -> None:
    with pytest.raises(CorpusError, match=said):
        peaks_of(tiny_model, sequences, IDS)
    flat = [t for s in sequences for t in s]
    ptr = np.cumsum([0, *map(len, sequences)])
    corpus = Corpus(np.array(flat), ptr, sources=("a.txt",) * len(sequences))
    with pytest.raises(CorpusError, match=r"sequence \d \(a\.txt\)"):
        collect(tiny_model, corpus, IDS)


@pytest.mark.parametrize(
    ("ids", "kind", "said"),
    [
        ([], PieFastError, r"must be integers \[K\], K at least 1"),
        ([1.5], PieFastError, "feature ids are float64"),
        ([[1]], PieFastError, r"of shape \(1, 1\)"),
        ([3, 3], PieFastError, "feature id 3 follows 3; ids must ascend"),
        ([5, 3], PieFastError, "feature id 3 follows 5; ids must ascend"),
        ([-1, 3], CheckpointError, "L-1:47 is not in"),
        ([3 * F], CheckpointError, "L3:0 is not in"),
    ],
)
def test_ids_are_checked(
    tiny_model: ReplacementModel, corpus: Corpus, ids: Any, kind: type, said: str
) -> None:
    with pytest.raises(kind, match=said):
        collect(tiny_model, corpus, ids)


@pytest.mark.parametrize("size", ["n_top", "n_sample", "n_silent", "batch_tokens"])
def test_sizes_are_checked(tiny_model: ReplacementModel, corpus: Corpus, size: str) -> None:
    with pytest.raises(PieFastError, match=f"{size} is -1, must be at least"):
        collect(tiny_model, corpus, IDS, **{size: -1})


def test_no_sequences_have_no_peaks(tiny_model: ReplacementModel) -> None:
    assert peaks_of(tiny_model, [], IDS).shape == (0, len(IDS))
    assert peaks_of(tiny_model, [[0]], IDS).tolist() == [[0.0] * len(IDS)]
