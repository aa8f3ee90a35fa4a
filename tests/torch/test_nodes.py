"""Circuits of nodes: gates at places of the template, against runs edited by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from pie_fast.behaviors import Prompt
from pie_fast.budget import choose_budget
from pie_fast.conditional import grow
from pie_fast.errors import PieFastError
from pie_fast.evaluate import evaluate_circuit, fidelity_curve, measure
from pie_fast.gated import gated_pool, with_slots
from pie_fast.ground import Ground
from pie_fast.methods import SELECTORS, select_on
from pie_fast.model import Setup, Switches, make_batch
from pie_fast.nodes import NodeGround, node_kl
from pie_fast.replacement_model import ReplacementModel
from pie_fast.slots import NO_SLOT, Slots, node_ids, read_nodes, slot_names
from torch_prompts import random_prompts

SWITCHES = Switches("counterfactual")
ROLES = (None, "A", None, None, "B", "B", "END")


def with_roles(n: int, seed: int = 5) -> list[Prompt]:
    """Random tokens in one template, whose gap has one token more in every other prompt."""
    rng = np.random.default_rng(seed)
    prompts = []
    for number in range(n):
        roles = ROLES[:3] + (None,) * (number % 2) + ROLES[3:]
        tokens, other = (
            (0, *rng.integers(1, tiny.VOCAB, len(roles) - 1).tolist()) for _ in range(2)
        )
        prompts.append(Prompt(tokens, answer=3, foil=5, counterfactual=other, roles=roles))
    return prompts


PROMPTS = with_roles(4)


@pytest.fixture(scope="module")
def ground(tiny_model: ReplacementModel) -> NodeGround:
    return NodeGround(tiny_model, PROMPTS, "logit-diff", SWITCHES, batch_size=3)


@pytest.fixture(scope="module")
def of_features(tiny_model: ReplacementModel) -> Ground:
    return Ground(tiny_model, PROMPTS, "logit-diff", SWITCHES, batch_size=3)


def prepared(model: ReplacementModel, slots: Slots, prompts: list[Prompt]) -> Setup:
    return with_slots(model.prepare_all(prompts, SWITCHES), prompts, slots)[0][1]


def features_of(ground: NodeGround) -> np.ndarray:
    return ground.ids // len(ground.slots)


def test_slots_of_prompts_with_and_without_roles() -> None:
    even, odd = PROMPTS[:2]
    assert slot_names(even) == ("start", "A", "after A", "after A", "B", "B", "END")
    assert slot_names(odd) == ("start", "A", "after A", "after A", "after A", "B", "B", "END")
    assert slot_names(Prompt((7, 8, 9), answer=1)) == ("-3", "-2", "-1")
    assert slot_names(Prompt((7, 8), answer=1, roles=(None, None))) == ("-2", "-1")
    slots = Slots.of([*PROMPTS, Prompt((7, 8), answer=1)])
    assert slots.names == ("start", "A", "after A", "B", "END", "-2", "-1")
    strange = replace(even, roles=(None, "A", None, None, "C", None, "END"))
    assert slots.numbers([strange, odd], 8).tolist() == [
        [0, 1, 2, 2, NO_SLOT, NO_SLOT, 4, NO_SLOT],
        [0, 1, 2, 2, 2, 3, 3, 4],
    ]


@pytest.mark.parametrize("names", [(), ("A", "A")])
def test_slots_need_names(names: tuple[str, ...]) -> None:
    with pytest.raises(PieFastError, match="at least 1 name, none twice"):
        Slots(names)


def test_ids_ascend_and_are_what_they_are_read_as(ground: NodeGround) -> None:
    assert len(ground) == len(ground.ids) > len(ground.pool)
    assert (np.diff(ground.ids) > 0).all()
    assert np.unique(features_of(ground)).tolist() == ground.pool.global_ids.tolist()
    node = (tiny.N_FEATURES + 7) * len(ground.slots) + ground.slots.names.index("B")
    assert [str(one) for one in ground.nodes([node])] == ["L1:7 at B"]
    # position 0 is the BOS's, which has no features
    assert "start" not in {node.slot for node in ground.nodes(ground.ids)}


@pytest.mark.parametrize("rest", ["free", "baseline"])
def test_with_every_slot_kept_it_is_the_circuit_of_features(
    tiny_model: ReplacementModel, rest: str
) -> None:
    slots = Slots.of(PROMPTS)
    setup, features = prepared(tiny_model, slots, PROMPTS), np.asarray([3, 9, 60, 71, 100, 131])
    nodes = (features[:, None] * len(slots) + np.arange(len(slots))).ravel()
    pool, gates = gated_pool(tiny_model, nodes, slots)
    whole = tiny_model.make_pool([*features.tolist(), 20, 80])
    flat = torch.from_numpy(np.isin(whole.global_ids, features)).float()[None]
    wide = flat[:, None].repeat(1, len(slots), 1)
    wanted = tiny_model.run(setup, whole, flat, rest=rest).logits
    found = tiny_model.run(setup, whole, wide, rest=rest).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    if rest == "baseline":
        alone = tiny_model.run(setup, pool, gates, rest=rest).logits
        torch.testing.assert_close(alone, wanted, rtol=0, atol=1e-5)


def test_a_node_moves_its_slot_only(tiny_model: ReplacementModel) -> None:
    """Against the model itself with one feature's writes taken off by hand at two positions."""
    prompt, slots = PROMPTS[0], Slots.of(PROMPTS)
    setup = prepared(tiny_model, slots, [prompt])
    at = [i for i, name in enumerate(slot_names(prompt)) if name == "B"]
    layer, clt = tiny.N_LAYERS - 1, tiny_model.clt  # of the last layer, which nothing reads
    values = setup.clean[layer].values[0, at]
    column = int(values.abs().sum(0).argmax())
    feature = setup.clean[layer].ids[column : column + 1]
    before = setup.baseline[layer].at(feature)[0, at]
    off = clt.decode(layer, feature, values[:, column : column + 1] - before)[:, 0]
    assert off.abs().sum() > 0

    def edit(out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[0, at] -= off
        return out

    hook = (f"blocks.{layer}.{clt.write_hook}", edit)
    answer = torch.tensor([at[-1]])
    wanted = tiny_model.host.run(setup.batch.tokens, answer, [hook])
    there = replace(setup, batch=replace(setup.batch, answer_position=answer))
    pool = tiny_model.make_pool([layer * tiny.N_FEATURES + int(feature)])
    gates = torch.ones(1, len(slots), 1)
    gates[0, slots.names.index("B")] = 0.0
    found = tiny_model.run(there, pool, gates, rest="free").logits[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (found - tiny_model.run(there).logits[0]).abs().max() > 1e-3
    # what is read at another position does not see it, as nothing comes after the last layer
    here = tiny_model.run(setup, pool, gates, rest="free").logits[0]
    torch.testing.assert_close(here, setup.logits, rtol=1e-4, atol=1e-4)


def test_terms_of_a_circuit_are_gated_position_by_position(tiny_model: ReplacementModel) -> None:
    """`A = g (a - b)` of all layers, where `a` is what the run itself reads."""
    slots = Slots.of(PROMPTS)
    setup, rng = prepared(tiny_model, slots, PROMPTS), np.random.default_rng(0)
    pool = tiny_model.make_pool([3, 9, 60, 71, 100, 131])
    gates = torch.from_numpy(rng.choice([0.0, 0.3, 1.0], (2, len(slots), len(pool)))).float()
    run = tiny_model.run(setup, pool, gates, rest="baseline")
    for layer, (term, delta) in enumerate(zip(run.terms, run.deltas, strict=True)):
        for row in range(2 * len(PROMPTS)):
            number, prompt = divmod(row, len(PROMPTS))
            for position, name in enumerate(slot_names(PROMPTS[prompt])):
                gate = gates[number, slots.names.index(name), pool.slots[layer]]
                wanted = gate * delta[row, position]
                torch.testing.assert_close(term.values[row, position], wanted)


def test_effects_of_its_nodes_add_up_to_the_features(
    ground: NodeGround, of_features: Ground
) -> None:
    columns = np.searchsorted(ground.pool.global_ids, features_of(ground))
    for found, wanted in (
        (ground.effects(), of_features.effects()),
        (ground.magnitudes()[:, None], of_features.magnitudes()[:, None]),
    ):
        total = np.zeros_like(wanted)
        np.add.at(total, columns, found)
        np.testing.assert_allclose(total, wanted, atol=1e-5)
    assert np.abs(ground.effects()).max() > 1e-2


def test_marginals_are_derivatives(ground: NodeGround) -> None:
    # At every second node no feature stands at its threshold, where there is no derivative.
    gates = ground.gates(range(0, len(ground), 2))
    slopes = ground.marginals(gates, "kl")
    step = 2.0**-7
    strongest = np.argsort(-np.abs(slopes).mean(1))[:12]
    moved = gates.repeat(2 * len(strongest), 1)
    for row, node in enumerate(strongest):
        moved[2 * row, node] += step
        moved[2 * row + 1, node] -= step
    values = ground.values(moved, "kl")
    found = (values[::2] - values[1::2]) / (2 * step)
    np.testing.assert_allclose(found, slopes[strongest], atol=2e-3)
    assert np.abs(found).max() > 0.1


@pytest.mark.parametrize("rest", ["free", "baseline"])
def test_values_are_those_of_each_row_alone(ground: NodeGround, rest: str) -> None:
    sets = [np.arange(0, len(ground), 2), np.arange(0, len(ground), 2)[:-60], np.arange(40), []]
    gates = ground.gates(*map(np.asarray, sets))
    together = ground.values(gates, "logit-diff", rest=rest)
    alone = [ground.values(row[None], "logit-diff", rest=rest)[0] for row in gates]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert len({tuple(row.round(4)) for row in together}) == len(sets)


def test_all_nodes_with_the_rest_free_are_the_model(ground: NodeGround) -> None:
    everything = ground.gates(range(len(ground)))
    kl = ground.values(everything, "kl", rest="free")
    np.testing.assert_allclose(kl, 0, atol=1e-5)


def test_growth_is_nested_and_goes_on(ground: NodeGround) -> None:
    whole = grow(ground.afresh(), 12, batch=4)
    part = grow(ground.afresh(), 8, batch=4)
    rest = grow(ground.afresh(), 4, batch=4, start=part.ids)
    assert part.ids.tolist() == whole.ids[:8].tolist()
    assert part.then(rest).ids.tolist() == whole.ids.tolist()
    assert len({node.feature for node in ground.nodes(whole.ids)}) <= 12
    with pytest.raises(PieFastError, match="start holds node -1, which is not a candidate"):
        grow(ground, 1, start=[-1])


@pytest.mark.parametrize("name", [n for n, one in SELECTORS.items() if not one.features_only])
def test_selectors_that_take_candidates_as_they_come(ground: NodeGround, name: str) -> None:
    # of few features, for `exact` runs each of their nodes
    few = ground.pool.global_ids[::20].tolist()
    small = NodeGround(
        ground.model, PROMPTS[:2], "logit-diff", SWITCHES, slots=ground.slots, candidates=few
    )
    found = select_on(small, name, 6)
    assert np.isin(found.ids, small.ids).all() and len(set(found.ids.tolist())) == 6
    assert found.settings["unit"] == "node"
    nodes = ground.nodes(found.ids)
    assert found.features() == list(dict.fromkeys(node.feature for node in nodes))
    assert [row["slot"] for row in found.listed()] == [node.slot for node in nodes]


@pytest.mark.parametrize("name", ["fap-synergy", "acdc", "fisher-gram", "linkl", "masks"])
def test_the_others_say_so(ground: NodeGround, name: str) -> None:
    with pytest.raises(PieFastError, match=f"selector {name} needs unit 'feature'"):
        select_on(ground, name, 6)


def test_judged_on_other_prompts(
    tiny_model: ReplacementModel, ground: NodeGround, of_features: Ground
) -> None:
    held_out, slots = with_roles(5, seed=9), ground.slots
    features = of_features.ids[::3].tolist()
    every = (np.asarray(features)[:, None] * len(slots) + np.arange(len(slots))).ravel()
    kl = node_kl(tiny_model, [[], every], slots, held_out, switches=SWITCHES, batch_size=2)
    circuits = [[], features]
    wanted = measure(
        tiny_model, circuits, held_out, metric="kl", switches=SWITCHES, completeness=False
    )
    np.testing.assert_allclose(kl, [one.kl for one in wanted], atol=1e-5)
    # where the template is another one no slot is known, and nothing is kept
    strange = [replace(p, roles=("C",) * len(p)) for p in held_out]
    lost = node_kl(tiny_model, [every], slots, strange, switches=SWITCHES)
    np.testing.assert_allclose(lost[0], wanted[0].kl, atol=1e-5)


def test_figures_of_every_node_are_those_of_the_features(tiny_model: ReplacementModel) -> None:
    prompts, features = with_roles(5, seed=9), list(range(0, 144, 5))
    slots = Slots.of(prompts)
    every = [feature * len(slots) + slot for feature in features for slot in range(len(slots))]
    how = {"metric": "logit-diff", "switches": SWITCHES, "batch_size": 2}
    wanted = evaluate_circuit(tiny_model, features, prompts, **how)
    found = evaluate_circuit(tiny_model, every, prompts, slots=slots, **how)
    assert (wanted.pop("unit"), wanted.pop("n_units")) == ("feature", len(features))
    assert (found.pop("unit"), found.pop("n_units")) == ("node", len(every))
    assert found["n_features"] == len(features) and found.keys() == wanted.keys()
    for summary, theirs in ((found, wanted), (found["error_drop"], wanted["error_drop"])):
        for key in ("behavioral_fidelity", "kl_divergences_reverse", "faithfulness"):
            if key in theirs:
                np.testing.assert_allclose(summary[key], theirs[key], atol=1e-5)
        # what it does without the circuit too
        np.testing.assert_allclose(summary["completeness"], theirs["completeness"], atol=1e-5)
        for key, interval in theirs["intervals"].items():
            np.testing.assert_allclose(summary["intervals"][key], interval, atol=1e-4)
    curves = [
        fidelity_curve(tiny_model, {"some": ids}, [k], prompts, slots=given, **how)["some"][0]
        for ids, k, given in ((features, 4, None), (every, 4 * len(slots), slots))
    ]
    assert curves[1]["mean_kl"] == pytest.approx(curves[0]["mean_kl"], abs=1e-5)


def test_a_budget_of_nodes(tiny_model: ReplacementModel, ground: NodeGround) -> None:
    order, held_out = grow(ground, 60).ids, with_roles(6, seed=9)
    how = {"switches": SWITCHES, "slots": ground.slots}
    choice = choose_budget(tiny_model, order, held_out, target_fidelity=0.2, **how)
    wanted = evaluate_circuit(tiny_model, order[: choice.budget], held_out, metric="kl", **how)[
        "behavioral_fidelity"
    ]
    (point,) = [point for point in choice.tried if point.budget == choice.budget]
    assert point.fidelity == pytest.approx(wanted, abs=1e-5)


def test_prompts_without_roles_are_aligned_at_their_end(tiny_model: ReplacementModel) -> None:
    prompts = random_prompts(4)
    ground = NodeGround(tiny_model, prompts, "kl", SWITCHES)
    assert "-1" in ground.slots.names
    found = grow(ground, 10)
    kl = node_kl(tiny_model, [[], found.ids], ground.slots, prompts, switches=SWITCHES).mean(1)
    inside = ground.gates(ground.positions(found.ids))
    np.testing.assert_allclose(-ground.values(inside, "kl").mean(), kl[1], atol=1e-5)
    assert kl[1] < kl[0]


def test_bad_input(tiny_model: ReplacementModel) -> None:
    slots, pool = Slots.of(PROMPTS), tiny_model.make_pool([1, 2])
    bare = tiny_model.prepare(make_batch(PROMPTS, tiny_model.device), SWITCHES)
    with pytest.raises(PieFastError, match="need a setup with slots"):
        tiny_model.run(bare, pool, torch.ones(1, len(slots), 2), rest="baseline")
    setup = prepared(tiny_model, slots, PROMPTS)
    with pytest.raises(PieFastError, match="gates are of 2 slots, the prompts have slot 4"):
        tiny_model.run(setup, pool, torch.ones(1, 2, 2), rest="baseline")
    for node in (-1, tiny.N_LAYERS * tiny.N_FEATURES * len(slots)):
        with pytest.raises(PieFastError, match="outside 0 to"):
            node_kl(tiny_model, [[node]], slots, PROMPTS, switches=SWITCHES)
    assert read_nodes([], slots, tiny.N_FEATURES) == []
    assert Slots.having(["END", "A"], PROMPTS) == slots
    with pytest.raises(PieFastError, match=r"slot 'S2' is in no prompt of .* start, A, after A, B"):
        Slots.having(["A", "S2"], PROMPTS)


def test_nodes_are_read_as_they_were_written(ground: NodeGround) -> None:
    nodes = ground.nodes(ground.ids)
    assert node_ids(nodes, ground.slots, tiny.N_FEATURES) == ground.ids.tolist()
