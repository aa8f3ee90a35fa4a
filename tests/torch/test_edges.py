"""Edges among kept features are what interventions with everything else held move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_frozen_row import tiny_gemma2
from torch import Tensor

import tiny
from pie_fast import FeatureId, times
from pie_fast.attribution import gate_effects, pool_effects
from pie_fast.behaviors import Prompt
from pie_fast.clt import Clt
from pie_fast.clt.decoder import Decoder
from pie_fast.clt.encoder import Encoder
from pie_fast.errors import BehaviorError, CheckpointError, PieFastError
from pie_fast.interpret.edges import Edges, feature_edges
from pie_fast.interpret.node_edges import node_edges
from pie_fast.interventions import Times
from pie_fast.model import Pool, Switches, host, make_batch
from pie_fast.model.direct import direct_paths
from pie_fast.replacement_model import ReplacementModel, load_model
from plain_gpt2 import PlainClt, PlainGpt2
from torch_prompts import random_prompts

FROZEN = {"attention": "freeze", "activations": "freeze", "norms": "freeze"}
PROMPTS = random_prompts(3)


@pytest.fixture(scope="module")
def pool(tiny_model: ReplacementModel) -> Pool:
    """Some features of every layer."""
    return tiny_model.make_pool(range(0, 144, 7))


@pytest.fixture(scope="module")
def edges(tiny_model: ReplacementModel, pool: Pool) -> Edges:
    return feature_edges(tiny_model, PROMPTS, pool.global_ids)


class Measured:
    """What an intervention with all else held does to the pre-activations of a pool."""

    def __init__(self, model: ReplacementModel, pool: Pool, prompt: Prompt) -> None:
        self.model, self.pool, self.prompt = model, pool, prompt
        batch = make_batch([prompt], model.device)
        paths = direct_paths(model, batch)
        self.own = [read[0].detach() for read in paths.reads]
        self.active = []
        for layer, ids in enumerate(pool.by_layer):
            on = model.clt.encoder(layer).encode_only(self.own[layer], ids) != 0
            on[0] = False  # the BOS has no features
            self.active.append(on)

    def moved(self, source: FeatureId, value: float | Times, at: int | slice) -> Tensor:
        """Change of every pre-activation, where the feature is active: `[n_pos, K]`."""
        seen: list[list[Tensor]] = [[] for _ in self.own]
        hooks = [
            (f"blocks.{n}.{self.model.read_hook}", lambda x, hook=None, seen=s: seen.append(x[0]))
            for n, s in enumerate(seen)
        ]
        with self.model.host.bridge.hooks(fwd_hooks=hooks):
            self.model.intervene(self.prompt, [(source, at, value)], **FROZEN)
        parts = []
        for layer, ids in enumerate(self.pool.by_layer):
            change = seen[layer][-1] - self.own[layer]
            change = change @ self.model.clt.encoder(layer).rows(ids).T
            parts.append(change * self.active[layer])
        return torch.cat(parts, 1)

    @property
    def bound(self) -> Tensor:
        """What rounding can make of a change: `[n_pos, K]`.

        A layer's read is the sum of at most 2 L + 2 vectors, normed; each addition, the norm and
        the product round by half an epsilon of what they handle, in both of the runs.
        """
        n = 2 * (2 * tiny.N_LAYERS + 4) * torch.finfo(torch.float32).eps / 2
        rows = [
            self.model.clt.encoder(n).rows(ids).abs() for n, ids in enumerate(self.pool.by_layer)
        ]
        sizes = [read.abs() @ row.T for read, row in zip(self.own, rows, strict=True)]
        return n * tiny.D_MODEL**0.5 * torch.cat(sizes, 1) * torch.cat(self.active, 1)


def test_an_edge_is_what_setting_its_source_to_0_takes_away(
    tiny_model: ReplacementModel, pool: Pool
) -> None:
    compared = 0
    for prompt in PROMPTS[:2]:
        found = feature_edges(tiny_model, [prompt], pool.global_ids)
        assert np.array_equal(found.mean_abs, np.abs(found.effects))
        measured = Measured(tiny_model, pool, prompt)
        bound = measured.bound.sum(0).numpy()
        for column, source in enumerate(pool.features):
            gone = measured.moved(source, 0.0, slice(1, None)).sum(0).numpy()
            assert (np.abs(gone + found.effects[:, column]) <= bound).all()
            compared += int((np.abs(gone) > 100 * bound).sum())
    assert compared > 50


def test_a_row_is_linear(tiny_model: ReplacementModel, pool: Pool) -> None:
    measured = Measured(tiny_model, pool, PROMPTS[0])
    found = feature_edges(tiny_model, PROMPTS[:1], pool.global_ids)
    for column, source in list(enumerate(pool.features))[:8]:
        for factor in (-2.0, 5.0):
            change = measured.moved(source, times(factor), slice(1, None)).sum(0).numpy()
            apart = np.abs(change - (factor - 1) * found.effects[:, column])
            assert (apart <= abs(factor - 1) * measured.bound.sum(0).numpy() + 1e-6).all()


def test_edges_are_those_of_the_transformer_written_out(
    tiny_model: ReplacementModel, tiny_folders: tuple[Path, Path], pool: Pool, edges: Edges
) -> None:
    """In float64, nothing differentiated: the writes of one feature are added, all else held."""
    gpt2, clt = PlainGpt2(tiny_folders[0]), PlainClt(tiny_folders[1], tiny.N_LAYERS)
    k = len(pool)
    each = np.zeros((len(PROMPTS), k, k))
    for number, prompt in enumerate(PROMPTS):
        clean = gpt2.run(prompt.tokens)
        acts = [clt.encode(layer, read) for layer, read in enumerate(clean.reads)]
        for a in acts:
            a[0] = 0
        for column, source in enumerate(pool.features):
            own = acts[source.layer][:, source.index, None]

            def more(
                layer: int, _read: Tensor, out: Tensor, s: FeatureId = source, a: Tensor = own
            ) -> Tensor:
                return out if layer < s.layer else out + a * clt.row(s.layer, s.index, layer)

            ran = gpt2.run(prompt.tokens, more, held=clean, hold=tuple(FROZEN))
            for row, fed in enumerate(pool.features):
                weight = clt.w[f"W_enc_{fed.layer}"][fed.index]
                change = (ran.reads[fed.layer] - clean.reads[fed.layer]) @ weight
                each[number, row, column] = float(change[acts[fed.layer][:, fed.index] != 0].sum())
    assert np.abs(each).max() > 0.5
    np.testing.assert_allclose(edges.effects, each.mean(0), atol=2e-5)
    np.testing.assert_allclose(edges.mean_abs, np.abs(each).mean(0), atol=2e-5)


def test_only_lower_layers_feed(edges: Edges) -> None:
    layers = np.array([feature.layer for feature in edges.features])
    above = layers[None, :] >= layers[:, None]
    assert (edges.effects[above] == 0).all() and (edges.effects[~above] != 0).sum() > 30


def test_to_the_metric_it_is_the_frozen_row(
    tiny_model: ReplacementModel, pool: Pool, edges: Edges
) -> None:
    setup = tiny_model.prepare(make_batch(PROMPTS, tiny_model.device), Switches("zero"))
    row = gate_effects(tiny_model, setup, "logit-diff", gradient="frozen")
    expected = pool_effects(row, setup, pool)[0].mean(0)
    assert float(expected.abs().max()) > 0.1
    np.testing.assert_allclose(edges.to_metric, expected.numpy(), atol=1e-5)
    full = feature_edges(tiny_model, PROMPTS, pool.global_ids, gradient="full")
    assert np.abs(full.effects - edges.effects).max() > 0.01


def test_batches_and_order_change_nothing_but_rounding(
    tiny_model: ReplacementModel, pool: Pool, edges: Edges
) -> None:
    done: list[tuple[int, int]] = []
    found = feature_edges(
        tiny_model,
        PROMPTS,
        pool.global_ids[::-1],
        batch_size=2,
        progress=lambda a, b: done.append((a, b)),
    )
    assert found.features == edges.features and found.n_prompts == 3
    np.testing.assert_allclose(found.effects, edges.effects, atol=1e-5)
    assert done == [(2, 3), (3, 3)]


def test_the_cost_is_a_backward_pass_a_fed_feature(
    tiny_model: ReplacementModel, pool: Pool
) -> None:
    before = tiny_model.spent
    feature_edges(tiny_model, PROMPTS, pool.global_ids)
    spent = tiny_model.spent - before
    above = len(pool) - len(pool.by_layer[0])
    assert spent.forward == 3 and spent.backward <= 3 * (above + 1)


def test_values_of_the_run_are_the_models_own(tiny_model: ReplacementModel) -> None:
    batch = make_batch(PROMPTS, tiny_model.device)
    setup = tiny_model.prepare(batch, Switches("zero"))
    for rule in ("frozen", "full", "relp", "gim"):
        assert torch.equal(direct_paths(tiny_model, batch, rule).logits, setup.logits)


def test_a_linear_path_of_a_transcoder_carries_effects(
    tiny_model: ReplacementModel, pool: Pool
) -> None:
    """As in the frozen row of attribution."""
    torch.manual_seed(0)
    d = tiny.D_MODEL
    skips = {1: torch.randn(d, d) * 0.2}
    clt: Clt = replace(tiny_model.clt, skips=skips)
    model = ReplacementModel(tiny_model.host, clt)
    found = feature_edges(model, PROMPTS, pool.global_ids)
    setup = model.prepare(make_batch(PROMPTS, model.device), Switches("zero"))
    row = gate_effects(model, setup, "logit-diff", gradient="frozen")
    expected = pool_effects(row, setup, pool)[0].mean(0).numpy()
    np.testing.assert_allclose(found.to_metric, expected, atol=1e-5)
    plain = feature_edges(tiny_model, PROMPTS, pool.global_ids)
    layers = np.array([feature.layer for feature in found.features])
    assert np.abs(found.effects - plain.effects)[layers == 2].max() > 0.01
    assert np.allclose(found.effects[layers < 2], plain.effects[layers < 2], atol=1e-6)


@pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale")
def test_gemma_2_with_its_softcap(tiny_folders: tuple[Path, Path], tmp_path: Path) -> None:
    model = load_model(tiny_gemma2(tmp_path / "gemma", 1.0), tiny_folders[1], device="cpu")
    pool = model.make_pool(range(0, 144, 7))
    found = feature_edges(model, PROMPTS, pool.global_ids)
    setup = model.prepare(make_batch(PROMPTS, model.device), Switches("zero"))
    row = gate_effects(model, setup, "logit-diff", gradient="frozen")
    expected = pool_effects(row, setup, pool)[0].mean(0).numpy()
    np.testing.assert_allclose(found.to_metric, expected, atol=1e-5)
    measured = Measured(model, pool, PROMPTS[0])
    one = feature_edges(model, PROMPTS[:1], pool.global_ids)
    for column in range(0, len(pool.by_layer[0]), 3):
        gone = measured.moved(pool.features[column], 0.0, slice(1, None)).sum(0).numpy()
        np.testing.assert_allclose(-gone, one.effects[:, column], atol=1e-4)


def test_strongest_links() -> None:
    features = tuple(FeatureId(layer, 0) for layer in range(4))
    effects = np.array(
        [[0, 0, 0, 0], [0.5, 0, 0, 0], [-0.5, 0.5, 0, 0], [0.1, -2.0, 0, 0]], dtype=float
    )
    edges = Edges(features, effects, np.abs(effects), np.zeros(4), 1)
    fed_by, feeds = edges.strongest(2, 5)
    assert [(link.feature, link.weight) for link in fed_by] == [
        (features[0], -0.5),
        (features[1], 0.5),
    ]
    assert feeds == ()
    assert [link.weight for link in edges.strongest(1, 1)[1]] == [-2.0]
    assert [link.feature.layer for link in edges.strongest(0, 2)[1]] == [1, 2]


def test_what_cannot_be_asked(tiny_model: ReplacementModel) -> None:
    with pytest.raises(BehaviorError, match="there are 0 prompts"):
        feature_edges(tiny_model, [], [1])
    with pytest.raises(BehaviorError, match="metric kl has gradient 0"):
        feature_edges(tiny_model, PROMPTS, [1], metric="kl")
    with pytest.raises(PieFastError, match="none twice"):
        feature_edges(tiny_model, PROMPTS, [1, 1])
    with pytest.raises(PieFastError, match="feature ids 144 to 144 are outside 0 to 143"):
        feature_edges(tiny_model, PROMPTS, [144])
    with pytest.raises(PieFastError, match="gradient is 'half', must be one of"):
        feature_edges(tiny_model, PROMPTS, [1], gradient="half")
    for of in (feature_edges, lambda m, p, i, **k: node_edges(m, p[0], i, **k)):
        with pytest.raises(PieFastError, match="batch_size is 0, must be at least 1"):
            of(tiny_model, PROMPTS, [1], batch_size=0)
    bare = ReplacementModel(
        tiny_model.host,
        replace(
            tiny_model.clt,
            encoders=(None, *tiny_model.clt.encoders[1:]),
            decoders=(None, *tiny_model.clt.decoders[1:]),
        ),
    )
    with pytest.raises(CheckpointError, match="L0:1 is not in"):
        feature_edges(bare, PROMPTS, [1])
    assert feature_edges(bare, PROMPTS, [50, 100]).effects[1, 0] != 0
    assert node_edges(tiny_model, PROMPTS[0], []).effects.shape == (0, 0)
    nothing = feature_edges(tiny_model, PROMPTS, [])
    assert nothing.effects.shape == (0, 0) and nothing.to_metric.shape == (0,)


def test_edges_among_places_sum_to_edges_among_features(
    tiny_model: ReplacementModel, pool: Pool
) -> None:
    prompt = PROMPTS[1]
    nodes = node_edges(tiny_model, prompt, pool.global_ids, batch_size=5)
    whole = feature_edges(tiny_model, [prompt], pool.global_ids)
    n = len(nodes.features)
    assert n > 15 and (nodes.activations != 0).all() and nodes.positions.min() >= 1
    place = np.array([pool.features.index(feature) for feature in nodes.features])
    assert (np.diff(place) >= 0).all()
    summed, on_metric = np.zeros_like(whole.effects), np.zeros_like(whole.to_metric)
    np.add.at(summed, (place[:, None], place[None, :]), nodes.effects)
    np.add.at(on_metric, place, nodes.to_metric)
    np.testing.assert_allclose(summed, whole.effects, atol=1e-5)
    np.testing.assert_allclose(on_metric, whole.to_metric, atol=1e-5)
    later = nodes.positions[None, :] > nodes.positions[:, None]
    assert (nodes.effects[later] == 0).all()


def test_an_edge_among_places_is_what_an_intervention_there_takes_away(
    tiny_model: ReplacementModel, pool: Pool
) -> None:
    prompt = PROMPTS[0]
    nodes = node_edges(tiny_model, prompt, pool.global_ids)
    measured = Measured(tiny_model, pool, prompt)
    place = [pool.features.index(feature) for feature in nodes.features]
    for source in range(0, len(place), 4):
        at = int(nodes.positions[source])
        gone = measured.moved(nodes.features[source], 0.0, at)
        expected = -gone[nodes.positions, place].numpy()
        bound = measured.bound[nodes.positions, place].numpy()
        assert (np.abs(nodes.effects[:, source] - expected) <= bound + 1e-7).all()


def test_all_features_and_errors_together_are_what_mlps_write(
    tiny_model: ReplacementModel,
) -> None:
    """Features, errors and biases add up to what the MLPs wrote."""
    prompt = PROMPTS[0]
    nodes = node_edges(tiny_model, prompt, range(144))
    batch = make_batch([prompt], tiny_model.device)
    paths = direct_paths(tiny_model, batch)
    value = (paths.logits[0, prompt.answer] - paths.logits[0, prompt.foil or 0]).sum()
    grads = torch.autograd.grad(value, [*paths.writes, paths.embedded])
    biases, own = 0.0, 0.0
    for layer, gradient in enumerate(grads[:-1]):
        biases += float((gradient[0, 1:] @ tiny_model.clt.b_dec[layer]).sum())
        own += float((gradient * paths.writes[layer].detach())[0, 1:].sum())
    features = float(nodes.to_metric.sum())
    errors = float(nodes.errors_to_metric.sum())
    assert features + errors + biases == pytest.approx(own, abs=1e-4)
    assert nodes.errors_to_metric[:, 0].tolist() == [0.0] * tiny.N_LAYERS
    tokens = (grads[-1] * paths.embedded)[0].sum(-1).detach().numpy()
    np.testing.assert_allclose(nodes.tokens_to_metric, tokens, atol=1e-5)
    assert nodes.errors.shape == (len(nodes.features), tiny.N_LAYERS, len(prompt))
    layers = [feature.layer for feature in nodes.features]
    assert (nodes.errors[np.array(layers) == 0] == 0).all()
    assert np.abs(nodes.tokens[np.array(layers) == 0]).max() > 0.01


def test_no_dictionary_is_read_whole(
    tiny_model: ReplacementModel, pool: Pool, edges: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the kept features only, each once a batch."""
    read: list[int] = []
    rows = Decoder.rows

    def counted(decoder: Decoder, ids: Tensor) -> Tensor:
        read.extend(ids.tolist())
        return rows(decoder, ids)

    def whole(*_: object) -> None:
        raise AssertionError("a whole dictionary was asked for")

    monkeypatch.setattr(Decoder, "rows", counted)
    monkeypatch.setattr(Decoder, "decode", whole)
    monkeypatch.setattr(Encoder, "weight", whole)
    found = feature_edges(tiny_model, PROMPTS, pool.global_ids)
    assert np.array_equal(found.effects, edges.effects)
    assert sorted(read) == sorted(feature.index for feature in pool.features)


def test_long_prompts_keep_no_patterns(
    tiny_model: ReplacementModel, pool: Pool, edges: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their attention is computed again in every backward pass."""
    monkeypatch.setattr(host, "LONG", 1)
    found = feature_edges(tiny_model, PROMPTS, pool.global_ids)
    np.testing.assert_allclose(found.effects, edges.effects, atol=1e-6)
    full = feature_edges(tiny_model, PROMPTS, pool.global_ids, gradient="full")
    assert np.abs(full.effects - edges.effects).max() > 0.01
