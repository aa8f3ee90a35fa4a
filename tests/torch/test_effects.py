"""Tokens that writes promote, and whole interpretations, on a tiny random CLT."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pie_fast.clt import Clt
from pie_fast.clt.decoder import Decoder, Slab
from pie_fast.clt.encoder import Encoder
from pie_fast.errors import CheckpointError, PieFastError
from pie_fast.interpret import interpret_features
from pie_fast.interpret.effects import token_scores, total_writes
from pie_fast.types import FeatureId

N_LAYERS, N_FEATURES, D_MODEL, VOCAB = 3, 10, 8, 30


@dataclass
class SpiedClt:
    """A random CLT in memory that notes which rows are read."""

    decoders: list[torch.Tensor] = field(default_factory=list)
    reads: list[tuple[int, list[int]]] = field(default_factory=list)

    def build(self) -> Clt:
        generator = torch.Generator().manual_seed(0)
        encoders, decoders = [], []
        for layer in range(N_LAYERS):
            targets = range(layer, N_LAYERS)
            shape = (N_FEATURES, len(targets), D_MODEL)
            self.decoders.append(torch.randn(shape, generator=generator))
            encoders.append(Encoder(torch.zeros(N_FEATURES, D_MODEL), torch.zeros(N_FEATURES)))
            rows = Noted(self, layer, self.decoders[layer].flatten(0, 1))
            slab = Slab(rows, range(N_FEATURES), range(len(targets)), step=len(targets))
            decoders.append(Decoder([slab], N_FEATURES, D_MODEL, targets, torch.device("cpu")))
        return Clt(
            name="tiny",
            encoders=tuple(encoders),
            decoders=tuple(decoders),
            b_dec=torch.zeros(N_LAYERS, D_MODEL),
            read_hook="mlp.hook_in",
            write_hook="hook_mlp_out",
            identity="tiny",
        )


@dataclass
class Noted:
    """Rows in memory; which features' are read is noted."""

    clt: SpiedClt
    layer: int
    matrix: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.matrix), D_MODEL

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        step = N_LAYERS - self.layer
        self.clt.reads.append((self.layer, (ids[::step] // step).tolist()))
        return self.matrix[ids]


@dataclass(frozen=True)
class Prompt:
    tokens: tuple[int, ...]
    roles: tuple[str | None, ...] | None = None


class FakeDump:
    """What interpretation needs of a feature dump, counting what is asked for."""

    def __init__(self, prompts: list[Prompt], entries: list[tuple[int, int, int, float]]) -> None:
        columns = list(zip(*entries, strict=True)) if entries else [(), (), (), ()]
        self.rows = SimpleNamespace(
            prompt=np.asarray(columns[0], dtype=np.int64),
            position=np.asarray(columns[1], dtype=np.int64),
            feature=np.asarray(columns[2], dtype=np.int64),
            activation=np.asarray(columns[3], dtype=np.float32),
        )
        lengths = [len(p.tokens) for p in prompts]
        self.prompts = SimpleNamespace(
            tokens=np.asarray([t for p in prompts for t in p.tokens], dtype=np.int32),
            prompt_ptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        )
        self.asked: list[list[int]] = []

    def entries_of(self, feature_ids: np.ndarray) -> SimpleNamespace:
        self.asked.append(feature_ids.tolist())
        kept = np.isin(self.rows.feature, feature_ids)
        return SimpleNamespace(**{name: column[kept] for name, column in vars(self.rows).items()})


def make_model(*, centres: bool = True) -> tuple[SimpleNamespace, SpiedClt, torch.Tensor]:
    spy = SpiedClt()
    head = torch.randn(D_MODEL, VOCAB, generator=torch.Generator().manual_seed(1))
    host = SimpleNamespace(tokenizer=None, unembedding=lambda: head, centres=centres)
    return SimpleNamespace(clt=spy.build(), host=host), spy, head


def literal_effects(spy: SpiedClt, head: torch.Tensor, i: int, *, centres: bool) -> list[float]:
    """Token by token, layer by layer, as the formula is written."""
    layer, index = divmod(i, N_FEATURES)
    logits = [0.0] * VOCAB
    for target in range(N_LAYERS - layer):
        write = spy.decoders[layer][index, target].tolist()
        mean = sum(write) / D_MODEL if centres else 0.0
        for token in range(VOCAB):
            logits[token] += sum((write[j] - mean) * head[j, token].item() for j in range(D_MODEL))
    middle = sum(logits) / VOCAB
    return [logit - middle for logit in logits]


@pytest.mark.parametrize("centres", [True, False])
def test_promoted_and_suppressed_tokens_equal_a_literal_loop(centres):
    model, spy, head = make_model()
    ids = [25, 3, 14, 3, 0]
    found = token_scores(model.clt, head, ids, 4, centre_writes=centres)
    assert len(found) == len(ids)
    for i, scores in zip(ids, found, strict=True):
        effect = literal_effects(spy, head, i, centres=centres)
        order = sorted(range(VOCAB), key=lambda token: (-effect[token], token))
        assert [t for t, _ in scores.promoted] == order[:4]
        assert [t for t, _ in scores.suppressed] == order[::-1][:4]
        for token, value in scores.promoted + scores.suppressed:
            # sums of at most 3 * 8 * 30 products of a few units, in float32
            assert value == pytest.approx(effect[token], abs=1e-4)


def test_the_mean_of_a_write_matters_only_without_layer_norm():
    model, _, head = make_model()
    shifted = SpiedClt()
    moved = shifted.build()
    for decoder in shifted.decoders:
        decoder += 3.0
    for centre, same in ((True, True), (False, False)):
        pair = [token_scores(c, head, [4], VOCAB, centre_writes=centre) for c in (model.clt, moved)]
        tokens = [[t for t, _ in p[0].promoted] for p in pair]
        assert (tokens[0] == tokens[1]) is same


def test_ties_go_to_the_smaller_token_and_nothing_is_made_up():
    model, spy, _ = make_model()
    for decoder in spy.decoders:
        decoder.zero_()
    spy.decoders[2][1, 0, 0] = 1.0
    head = torch.zeros(D_MODEL, 6)
    head[0] = torch.tensor([0.0, 2.0, 2.0, 0.0, 2.0, -6.0])
    zero, one = token_scores(model.clt, head, [20, 21], 2, centre_writes=False)
    assert zero.promoted == zero.suppressed == ()
    assert one.promoted == ((1, 2.0), (2, 2.0))
    assert one.suppressed == ((5, -6.0),)


def test_blocks_of_features_change_nothing(monkeypatch):
    model, _, head = make_model()
    ids = list(range(30))
    whole = token_scores(model.clt, head, ids, 3, centre_writes=True)
    monkeypatch.setattr("pie_fast.interpret.effects._BLOCK", 4 * VOCAB)
    for one, other in zip(
        whole, token_scores(model.clt, head, ids, 3, centre_writes=True), strict=True
    ):
        assert [t for t, _ in one.promoted] == [t for t, _ in other.promoted]


def test_writes_are_gathered_once_a_layer_and_only_for_the_features_asked():
    model, spy, _ = make_model()
    writes = total_writes(model.clt, [12, 5, 19, 12])
    assert spy.reads == [(0, [5]), (1, [2, 9])]
    for row, (layer, index) in zip(writes, [(1, 2), (0, 5), (1, 9), (1, 2)], strict=True):
        torch.testing.assert_close(row, spy.decoders[layer][index].sum(0))


# whole interpretations


def planted() -> tuple[list[Prompt], list[tuple[int, int, int, float]]]:
    """Feature 4 fires on token 7, strongest in prompt 3; feature 25 has only a baseline."""
    rng = np.random.default_rng(0)
    prompts = []
    for _ in range(20):
        rest = rng.choice([1, 2, 3, 4, 5, 6], 5).tolist()
        rest.insert(int(rng.integers(0, 6)), 7)
        prompts.append(Prompt((0, *rest)))
    entries = [(p, prompt.tokens.index(7), 4, 1.0 + (p == 3)) for p, prompt in enumerate(prompts)]
    entries += [(p, 2, 25, 0.0) for p in range(20)]
    entries += [(p, 1, i, 9.0) for p in range(20) for i in (5, 11, 29)]  # not asked for
    return prompts, sorted(entries)


def test_interpretations_come_in_the_order_given_and_touch_nothing_else():
    model, spy, _ = make_model()
    prompts, entries = planted()
    dump = FakeDump(prompts, entries)
    found = interpret_features(model, dump, [25, 4], prompts, [-0.5, 2.0], n_contexts=3, n_tokens=2)
    assert dump.asked == [[4, 25]]
    assert spy.reads == [(0, [4]), (2, [5])]
    silent, token = found
    assert [i.feature for i in found] == [FeatureId(2, 5), FeatureId(0, 4)]
    assert [float(i) for i in found] == [-0.5, 2.0]
    assert token.label.startswith(
        "fires in 100% of prompts, on <7> [AP 1.00, covers 100%, at 5 places]; raises <"
    )
    assert token.label_quality == 1.0 and token.n_active_prompts == 20
    assert token.positions == tuple(sorted({p.tokens.index(7) for p in prompts}))
    assert [c.activation for c in token.contexts] == [2.0, 1.0, 1.0]
    assert token.contexts[0].tokens == tuple(f"<{t}>" for t in prompts[3].tokens)
    assert token.contexts[0].tokens[token.contexts[0].peak] == "<7>"
    assert token.contexts[1].tokens == tuple(f"<{t}>" for t in prompts[0].tokens)
    assert len(token.promoted) == len(token.suppressed) == 2
    assert silent.label.startswith("never fires on these 20 prompts")
    assert silent.label_quality is None and silent.n_active_prompts == 0
    assert silent.contexts == () and silent.positions == ()


def test_entries_may_be_handed_in_without_a_dump():
    model, _, _ = make_model()
    prompts, entries = planted()
    dump = FakeDump(prompts, entries)
    direct = interpret_features(model, dump.rows, [4, 4], prompts, [1.0, 1.0])
    assert direct == interpret_features(model, dump, [4, 4], prompts, [1.0, 1.0])
    assert interpret_features(model, dump, [], prompts, []) == []
    assert dump.asked == [[4]]


def test_an_interpretation_is_whole_as_json():
    model, _, _ = make_model()
    prompts, entries = planted()
    found = interpret_features(model, FakeDump(prompts, entries), [4], prompts, [1.0])[0]
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["label_quality"] == 1.0 and plain["n_active_prompts"] == 20
    assert plain["layer"] == 0 and plain["index"] == 4


def test_what_does_not_fit_is_refused():
    model, _, _ = make_model()
    prompts, entries = planted()
    dump = FakeDump(prompts, entries)
    with pytest.raises(PieFastError, match="1 FAP scores for 2 features"):
        interpret_features(model, dump, [1, 2], prompts, [1.0])
    with pytest.raises(PieFastError, match="n_tokens is -1"):
        interpret_features(model, dump, [1], prompts, [1.0], n_tokens=-1)
    with pytest.raises(CheckpointError, match="L3:0 is not in tiny"):
        interpret_features(model, dump, [30], prompts, [1.0])
    with pytest.raises(PieFastError, match="are not those of the dump"):
        interpret_features(model, dump, [1], prompts[::-1], [1.0])
    with pytest.raises(PieFastError, match="prompt 5; the prompts are 0 to 4"):
        interpret_features(model, dump.rows, [4], prompts[:5], [1.0])
