"""Every model family against plain HuggingFace: sites, replacement, gradients, precision."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import families
from pie_fast.attribution import gate_effects, pool_effects
from pie_fast.behaviors import Prompt
from pie_fast.clt import load_clt
from pie_fast.errors import BehaviorError, CheckpointError, PieFastError
from pie_fast.gradients import GRADIENTS
from pie_fast.model import Replacer, Run, Setup, Switches, make_batch, sweep
from pie_fast.reconstruction import measure_reconstruction
from pie_fast.replacement_model import ReplacementModel, load_model
from plain import Plain, frozen_patterns

READS = ("hook_resid_mid", "ln2.hook_normalized", "mlp.hook_in")
WRITES = ("hook_mlp_out", "mlp.hook_out")


@dataclass(frozen=True)
class World:
    """A family's tiny checkpoint and CLT, ours and the oracle's."""

    family: str
    model_folder: Path
    clt_folder: Path
    model: ReplacementModel
    plain: Plain

    def hooked(self, read: str, write: str) -> tuple[Replacer, Plain]:
        """The same with other hooks."""
        clt = replace(self.model.clt, read_hook=read, write_hook=write)
        plain = Plain(self.family, self.model_folder, self.clt_folder, read, write)
        return Replacer(self.model.host, clt), plain


@pytest.fixture(scope="module", params=families.FAMILIES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    family: str = request.param
    root = tmp_path_factory.mktemp(family)
    hooks = families.HOOKS[family]
    folder = families.write_model(root / "model", family)
    clt = families.write_clt(root / "clt", *hooks)
    model = load_model(str(folder), str(clt), device="cpu")
    return World(family, folder, clt, model, Plain(family, folder, clt, *hooks))


def some_prompts(n: int = 4) -> list[Prompt]:
    """Of different lengths, longer than the attention windows.

    The seed is one with which no feature is so near its threshold that rounding moves it over.
    """
    rng = np.random.default_rng(6)

    def tokens(size: int) -> tuple[int, ...]:
        return (0, *rng.integers(2, families.VOCAB, size - 1).tolist())

    sizes = [7, 14, 9, 12][:n]
    return [Prompt(tokens(s), answer=3, foil=5, counterfactual=tokens(s)) for s in sizes]


def everything(model: Replacer) -> range:
    return range(model.clt.n_layers * model.clt.n_features)


@pytest.mark.parametrize("baseline", ["zero", "counterfactual"])
def test_all_features_and_errors_are_the_model_itself(world: World, baseline: str) -> None:
    model, prompts = world.model, some_prompts()
    with torch.no_grad():
        own = [world.plain.logits(p.tokens)[p.answer_position] for p in prompts]
    for attention in ("recompute", "freeze"):
        switches = Switches(baseline, attention=attention)
        setup = model.prepare(make_batch(prompts, model.device), switches, prompts)
        pool = model.make_pool(everything(model))
        kept = model.run(setup, pool, torch.ones(1, len(pool)), rest="baseline").logits[0]
        for logits in (setup.logits, model.run(setup).logits[0], kept):
            torch.testing.assert_close(logits, torch.stack(own), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("read", "write"), list(product(READS, WRITES)))
def test_hooks_name_the_tensors_of_huggingface(world: World, read: str, write: str) -> None:
    model, plain = world.hooked(read, write)
    prompts = some_prompts(2)
    batch = make_batch(prompts, model.device)
    reads, writes, *_ = model._observe(batch.tokens, batch)
    for row, prompt in enumerate(prompts):
        wanted = plain.observe(prompt.tokens)
        for ours, theirs in zip((reads, writes), wanted, strict=True):
            assert len(ours) == len(theirs) == families.N_LAYERS
            for one, other in zip(ours, theirs, strict=True):
                cut = one[row, : len(prompt.tokens)]
                torch.testing.assert_close(cut, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("read", READS)
def test_a_pass_that_stops_reads_what_the_whole_one_does(world: World, read: str) -> None:
    model = Replacer(world.model.host, replace(world.model.clt, read_hook=read))
    batch = make_batch(some_prompts(), model.device)
    whole, *_ = model._observe(batch.tokens, batch)
    for layers in ([0], [1, 2], [families.N_LAYERS - 1]):
        for layer, x in zip(layers, model.reads(batch, layers), strict=True):
            assert torch.equal(x, whole[layer])


def test_the_names_are_different_tensors(world: World) -> None:
    """Else the test above would say nothing."""
    tokens = some_prompts(1)[0].tokens
    found = [world.hooked(read, "mlp.hook_out")[1].observe(tokens)[0][1] for read in READS]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (found[i] - found[j]).abs().max() > 0.1
    raw, added = (world.hooked(READS[0], write)[1].observe(tokens)[1][1] for write in WRITES)
    assert bool((raw - added).abs().max() > 0.1) == world.family.startswith("gemma")


@pytest.mark.parametrize(
    ("synonym", "name"),
    [
        ("hook_mlp_in", "hook_resid_mid"),
        ("ln2.hook_in", "hook_resid_mid"),
        ("ln2.hook_out", "mlp.hook_in"),
    ],
)
def test_synonyms(world: World, synonym: str, name: str) -> None:
    one, other = (world.hooked(read, "hook_mlp_out")[0] for read in (synonym, name))
    batch = make_batch(some_prompts(2), one.device)
    for mine, theirs in zip(
        one._observe(batch.tokens, batch)[0], other._observe(batch.tokens, batch)[0], strict=True
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("write", WRITES)
def test_a_gate_takes_a_write_vector_off_every_layer(world: World, write: str) -> None:
    """With activations frozen nothing else moves: each layer's tensor loses `a d`, no more."""
    model, plain = world.hooked(families.HOOKS[world.family][0], write)
    (prompt,) = some_prompts(1)
    layer, length = 1, len(prompt.tokens)
    switches = Switches("zero", activations="freeze")
    setup = model.prepare(make_batch([prompt], model.device), switches)
    reads, own = plain.observe(prompt.tokens)
    acts = plain.encode(layer, reads[layer])
    feature = int(acts[1:].sum(0).argmax())
    decoder = plain.layers[layer]["W_dec"][feature]  # [L - layer, d]
    off = acts[:, feature, None] * (torch.arange(length) > 0)[:, None]  # nothing at the BOS
    pool = model.make_pool([layer * families.N_FEATURES + feature])

    seen: list[torch.Tensor] = []
    with _watched([plain.written_module(at, _hf(model)) for at in range(len(own))], seen):
        gated = model.run(setup, pool, torch.zeros(1, 1)).logits[0, 0]

    def wanted(at: int, _: torch.Tensor) -> torch.Tensor:
        return own[at] - off * decoder[at - layer] if at >= layer else own[at]

    for at, out in enumerate(seen):
        torch.testing.assert_close(out[0], wanted(at, out), rtol=0, atol=2e-5)
    assert (seen[-1][0] - own[-1]).abs().max() > 0.01
    with torch.no_grad():
        logits = plain.logits(prompt.tokens, None, wanted)[prompt.answer_position]
    torch.testing.assert_close(gated, logits, rtol=0, atol=1e-4)
    assert (gated - setup.logits[0]).abs().max() > 1e-3


@pytest.mark.parametrize("write", WRITES)
def test_ablation_is_that_of_the_plain_model(world: World, write: str) -> None:
    model, plain = world.hooked(families.HOOKS[world.family][0], write)
    prompts = some_prompts()
    setup = model.prepare(make_batch(prompts, model.device), Switches("zero"))
    gates = torch.ones(families.N_LAYERS, families.N_FEATURES)
    gates[0, ::7] = gates[1, ::5] = gates[3, ::3] = 0.0
    gone = (gates.flatten() == 0).nonzero().squeeze(-1)
    ours = model.run(setup, model.make_pool(gone.tolist()), torch.zeros(1, len(gone))).logits[0]
    with torch.no_grad():
        theirs = torch.stack([plain.gated(prompt, gates) for prompt in prompts])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert (ours - setup.logits).abs().max() > 0.05


@pytest.mark.parametrize("gradient", ["full", "frozen", "relp", "relp-ah"])
def test_effects_are_autograd_on_the_plain_model(world: World, gradient: str) -> None:
    """Norm scales, patterns and features by hand what the rule says of them."""
    for read in (world.plain.read, "ln2.hook_normalized"):
        model, plain = world.hooked(read, world.plain.write)
        prompts = some_prompts()
        setup = model.prepare(make_batch(prompts, model.device), Switches("zero"))
        found = gate_effects(model, setup, "logit-diff", gradient=gradient)
        ours = pool_effects(found, setup, model.make_pool(everything(model)))[0]
        for row, prompt in enumerate(prompts):
            theirs = _effects(plain, prompt, gradient)
            assert theirs.abs().max() > 0.05
            torch.testing.assert_close(ours[row], theirs, rtol=0, atol=1e-5)


def _effects(plain: Plain, prompt: Prompt, gradient: str) -> torch.Tensor:
    if gradient == "full":
        return plain.effects(prompt)
    with plain.frozen_norms():
        if gradient == "relp":
            return plain.effects(prompt)
        with frozen_patterns():
            if gradient == "relp-ah":
                return plain.effects(prompt)
            with plain.without_softcap():  # logit-diff is linear: values do not matter
                return plain.effects(prompt, react=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rules_change_no_value(world: World, dtype: torch.dtype) -> None:
    model, prompts = world.model, some_prompts()
    if dtype != torch.float32:
        model = load_model(str(world.model_folder), model.clt, device="cpu", dtype=dtype)
    setup = model.prepare(make_batch(prompts, model.device), Switches("counterfactual"))
    wanted = model.run(setup).logits
    # ln2.hook_normalized, which Gemma 3's CLT here reads, is the bridge's own under these rules
    atol = 1e-5 if model.read_hook == "ln2.hook_normalized" else 0.0
    for rule in GRADIENTS:
        found = model.run(setup, gradient=rule).logits
        torch.testing.assert_close(found, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("rest", ["free", "baseline"])
def test_runs_that_begin_at_a_block_are_whole_runs(world: World, rest: str) -> None:
    model, prompts = world.model, some_prompts()
    setup = model.prepare(make_batch(prompts, model.device), Switches("counterfactual"))
    pool = model.make_pool(range(0, 4 * families.N_FEATURES, 9))
    gates = torch.full((8, len(pool)), float(rest == "free"))
    for row in range(1, 8):
        gates[row, 2 * row] = 0.5  # of ever later layers
    found = torch.zeros(8, *setup.logits.shape)
    stubbed = 0
    for rows, run in sweep(model, setup, pool, gates, rest=rest, at_once=2):
        found[rows] = run.logits
        stubbed += len(run.terms[0].ids) == 0
    assert stubbed > 1, "no pass began at a later block"
    for row in range(8):
        whole = model.run(setup, pool, gates[row : row + 1], rest=rest).logits[0]
        torch.testing.assert_close(found[row], whole, rtol=0, atol=2e-5)
    assert (found - found[:1]).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_rebuilt_in_float32(world: World, dtype: torch.dtype) -> None:
    """Everything kept is the model itself, to the bit nearly everywhere, in its own precision."""
    model = load_model(str(world.model_folder), world.model.clt, device="cpu", dtype=dtype)
    prompts = some_prompts()
    batch = make_batch(prompts, model.device)
    setup = model.prepare(batch, Switches("zero"))
    assert {own.dtype for own in setup.mlp_out} == {dtype}
    seen: list[torch.Tensor] = []
    modules = [world.plain.written_module(layer, _hf(model)) for layer in range(families.N_LAYERS)]
    with _watched(modules, seen):
        run = model.run(setup)
    assert {columns.values.dtype for columns in (*setup.clean, *run.terms)} == {torch.float32}
    assert run.logits.dtype == torch.float32
    torch.testing.assert_close(run.logits[0], setup.logits, rtol=0, atol=5e-3)
    counted = setup.counted
    for target, written in enumerate(seen):
        assert written.dtype == dtype
        exact, coarse = (_summed(model, setup, run, target, d) for d in (torch.float64, dtype))
        once = (exact.to(dtype) == written)[counted].double().mean()
        assert once > 0.99, "added up in float32 and rounded once"
        assert (coarse == written)[counted].double().mean() < 0.95, "it can be told apart"

    pool = model.make_pool(everything(model))
    found = []
    for one in (model, world.model):
        there = one.prepare(batch, Switches("zero"))
        found.append(pool_effects(gate_effects(one, there, "logit-diff"), there, pool)[0])
    assert np.corrcoef(found[0].flatten(), found[1].flatten())[0, 1] > 0.97


def _summed(
    model: Replacer, setup: Setup, run: Run, target: int, dtype: torch.dtype
) -> torch.Tensor:
    """An MLP output added up in `dtype`."""
    total = model.clt.b_dec[target].to(dtype) + setup.error[target].to(dtype)
    for source, columns in enumerate(run.terms[: target + 1]):
        rows = model.clt.rows(source, columns.ids)[:, target - source]
        total = total + columns.values.to(dtype) @ rows.to(dtype)
    return total


def _hf(model: Replacer) -> Any:
    return model.host.bridge.original_model


@contextmanager
def _watched(modules: list[torch.nn.Module], seen: list[torch.Tensor]) -> Iterator[None]:
    """What the modules return."""
    hooks = [m.register_forward_hook(lambda _, x, out: seen.append(out)) for m in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen) == len(modules)


def test_live_objects_are_what_folders_are(world: World) -> None:
    """A booted bridge, a loaded HuggingFace model, and one that was never on a disk."""
    prompts, clt = some_prompts(), world.model.clt
    batch = make_batch(prompts, torch.device("cpu"))
    tokenizer = families.new_tokenizer()
    loaded = families.HfModel.from_pretrained(world.model_folder)
    bridge = load_model(str(world.model_folder), clt, device="cpu").host.bridge
    for live in (bridge, loaded, families.new_model(world.family)):
        given = None if live is bridge else tokenizer
        model = load_model(live, clt, device="cpu", tokenizer=given)
        setup = model.prepare(batch, Switches("zero"))
        wanted = world.model.prepare(batch, Switches("zero")).logits
        torch.testing.assert_close(setup.logits, wanted, rtol=0, atol=1e-5)
        torch.testing.assert_close(model.run(setup).logits[0], wanted, rtol=0, atol=1e-4)
        assert model.host.tokenizer("w3 w4")["input_ids"] == [0, 3, 4]
        if given is not None:
            assert model.host.tokenizer is tokenizer
    assert "add_bos_token" not in tokenizer.init_kwargs, "the tokenizer was changed"


def test_live_objects_keep_their_dtype(world: World) -> None:
    live = families.new_model(world.family).to(torch.bfloat16)
    model = load_model(live, world.model.clt, device="cpu", tokenizer=families.new_tokenizer())
    setup = model.prepare(make_batch(some_prompts(1), model.device), Switches("zero"))
    assert setup.mlp_out[0].dtype == torch.bfloat16
    with pytest.raises(PieFastError, match=r"a HuggingFace model object needs tokenizer="):
        load_model(families.new_model(world.family), world.model.clt, device="cpu")


def test_the_text_side_of_a_multimodal_gemma(tmp_path: Path) -> None:
    folder = families.write_multimodal_gemma3(tmp_path / "model")
    clt = families.write_clt(tmp_path / "clt", *families.HOOKS["gemma3"])
    model, prompts = load_model(str(folder), str(clt), device="cpu"), some_prompts()
    setup = model.prepare(make_batch(prompts, model.device), Switches("zero"))
    plain = families.HfMultimodal.from_pretrained(folder).eval()
    with torch.no_grad():
        own = [plain(torch.tensor([p.tokens])).logits[0, p.answer_position] for p in prompts]
    for logits in (setup.logits, model.run(setup).logits[0]):
        torch.testing.assert_close(logits, torch.stack(own), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["mlp.hook_sideways", "mlp.hook_post", "attn.hook_z", "layers.0.mlp", "hook_out"]
)
@pytest.mark.parametrize("verb", ["read", "write"])
def test_hooks_that_are_no_sites(world: World, verb: str, name: str) -> None:
    clt = replace(world.model.clt, **{f"{verb}_hook": name})
    with pytest.raises(CheckpointError) as error:
        Replacer(world.model.host, clt)
    said = str(error.value)
    told = f"{clt.name}: the CLT's features {verb} hook {name!r}, which {world.model_folder}"
    assert said.startswith(told)
    assert "\n" not in said
    for there in (*READS, *WRITES):
        assert repr(there) in said


def test_clts_of_models_of_another_size(world: World, tmp_path: Path) -> None:
    hooks = families.HOOKS[world.family]
    for name, size, what in (
        ("short", {"n_layers": 3}, "number of layers 3, the model .* has 4"),
        ("narrow", {"d_model": 24}, "d_model 24, the model .* has 32"),
    ):
        clt = load_clt(families.write_clt(tmp_path / name, *hooks, **size))
        with pytest.raises(CheckpointError, match=f"the CLT {tmp_path / name} has {what}"):
            Replacer(world.model.host, clt)


def test_a_clt_that_reads_another_tensor_than_it_says(world: World, tmp_path: Path) -> None:
    """A CLT that fits one pair of tensors exactly, hooked to every pair."""
    prompts = some_prompts()
    n_positions = sum(len(p.tokens) - 1 for p in prompts)
    assert n_positions > families.D_MODEL, "fewer positions and any tensor would do"
    fitted = "mlp.hook_in", "hook_mlp_out"
    folder = _write_fitted(tmp_path / "clt", world, *fitted)
    clt = load_clt(folder)
    twin = not world.family.startswith("gemma")
    for read, write in product(READS, WRITES):
        model = Replacer(world.model.host, replace(clt, read_hook=read, write_hook=write))
        found = measure_reconstruction(model, prompts)
        fits = read == fitted[0] and (write == fitted[1] or twin)
        assert (found.read_hook, found.write_hook, found.n_prompts) == (read, write, 4)
        assert found.unexplained == pytest.approx(np.median(found.by_layer))
        if fits:
            assert found.unexplained < 0.25 and found.others == () and found.warning is None
            continue
        assert found.unexplained > (0.9 if read != fitted[0] else 0.25)
        assert found.warning is not None
        assert f"reads {read} and writes {write}" in found.warning
        best = fitted[0], write if twin else fitted[1]
        assert found.others[0][:2] == best and found.others[0][2] < 0.25
        assert f"trained on other hooks: {best[0]} -> {best[1]} " in found.warning
        assert len(found.others) == (2 if twin else 5)
        json.dumps(found.to_dict(), allow_nan=False)


def _write_fitted(folder: Path, world: World, read: str, write: str) -> Path:
    """Features that are the tensor read and its negative, decoders the least squares map."""
    _, plain = world.hooked(read, write)
    families.write_clt(folder, read, write, n_features=2 * families.D_MODEL)
    seen = [plain.observe(p.tokens) for p in some_prompts()]
    eye = torch.eye(families.D_MODEL)
    for layer in range(families.N_LAYERS):
        x, y = (torch.cat([one[side][layer][1:] for one in seen]) for side in (0, 1))
        ones = torch.ones(len(x), 1)
        solved = torch.linalg.lstsq(torch.cat([x, ones], 1), y).solution
        decoder = torch.zeros(2 * families.D_MODEL, families.N_LAYERS - layer, families.D_MODEL)
        decoder[:, 0] = torch.cat([solved[:-1], -solved[:-1]])
        encoder = {
            f"W_enc_{layer}": torch.cat([eye, -eye]),
            f"b_enc_{layer}": torch.zeros(2 * families.D_MODEL),
            f"b_dec_{layer}": solved[-1].clone(),
        }
        save_file(encoder, folder / f"W_enc_{layer}.safetensors")
        save_file({f"W_dec_{layer}": decoder}, folder / f"W_dec_{layer}.safetensors")
    return folder


def test_a_clt_that_fits_nothing(world: World) -> None:
    found = measure_reconstruction(world.model, some_prompts())
    assert found.warning is not None and "is it the CLT of this model?" in found.warning
    with pytest.raises(BehaviorError, match="there are 0 prompts"):
        measure_reconstruction(world.model, [])
    only_bos = [Prompt((0,), answer=3)]
    assert measure_reconstruction(world.model, only_bos).unexplained == 0.0
