"""Selectors against a known circuit, and the planted systems themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from pie_fast.attribution import Patcher
from pie_fast.capture import capture
from pie_fast.conditional import Grown, conditional_gradient
from pie_fast.dump import FeatureDump
from pie_fast.errors import PieFastError
from pie_fast.evaluate import evaluate_circuit
from pie_fast.model import Switches, make_batch
from pie_fast.planted import Agreement, Motifs, Planted, Truth, plant
from pie_fast.replacement_model import ReplacementModel
from pie_fast.selectors import Options, select_features
from pie_fast.synergy_matrix import SynergyMatrix
from pie_fast.synergy_pool import measure_synergy

PAGE = (Path(__file__).parents[2] / "docs" / "planted.md").read_text()
SWITCHES = Switches("counterfactual")
SEEDS = (0, 1, 2)
DIRECTIONS = ("noising", "denoising")


@dataclass(frozen=True)
class System:
    """A planted system with all that selectors read of it."""

    planted: Planted
    model: ReplacementModel
    dump: FeatureDump
    synergy: dict[tuple[str, str], SynergyMatrix]

    @property
    def truth(self) -> Truth:
        return self.planted.truth

    def ranked(
        self, method: str, k: int, synergy: str = "clipped", direction: str = "noising"
    ) -> list[int]:
        matrix = self.synergy["exact", direction]
        options = Options(method, synergy=synergy)
        return select_features(self.dump, k, options, matrix).ids.tolist()

    def grown(self, k: int, batch: int, pairs: int = 0) -> Grown:
        return conditional_gradient(
            self.model,
            self.planted.behavior.selection,
            self.dump.active_features(),
            k,
            batch=batch,
            pairs=pairs,
            switches=SWITCHES,
        )

    def passes(self, found: Grown) -> tuple[float, ...]:
        """Forward and backward."""
        return tuple(found.cost.passes(len(self.planted.behavior.selection)).values())

    def selected(self, name: str, k: int) -> list[int]:
        """By the name of a row of the tables below."""
        method, _, rest = name.partition(" ")
        if method == "conditional":
            return self.grown(k, *map(int, rest.split())).ids.tolist()
        return self.ranked(method, k, *rest.split())

    def pair(self, motif: str, direction: str, estimator: str = "exact") -> float:
        """Synergy of the two members of a motif."""
        values = self.synergy[estimator, direction].for_pool(self.truth.motifs[motif][0])
        assert isinstance(values, np.ndarray)
        return float(values[0, 1])


def build(root: Path, seed: int, motifs: Motifs | None = None) -> System:
    planted = plant(root, motifs, seed=seed)
    model, behavior = planted.load(), planted.behavior
    dump = capture(model, behavior, root / "dump", switches=SWITCHES)
    synergy = {
        (estimator, direction): measure_synergy(
            model,
            behavior.selection,
            dump,
            len(dump.active_features()),
            rank_by="mean_abs",
            metric=behavior.metric,
            switches=SWITCHES,
            estimator=estimator,
            direction=direction,
        )
        for estimator, direction in product(("exact", "gradient-difference"), DIRECTIONS)
    }
    return System(planted, model, dump, synergy)


@pytest.fixture(scope="module", params=SEEDS)
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> System:
    return build(tmp_path_factory.mktemp("planted"), request.param)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> System:
    return build(tmp_path_factory.mktemp("first"), 0)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> System:
    """An AND pair among plain features and decoys."""
    return build(tmp_path_factory.mktemp("and"), 0, Motifs(2, 0, 2, 1, 0, 0, 0))


def test_only_what_was_planted_fires_and_the_clt_leaves_no_error(system: System) -> None:
    assert set(system.dump.active_features().tolist()) == system.truth.everything
    batch = make_batch(system.planted.behavior.selection, system.model.device)
    setup = system.model.prepare(batch, SWITCHES)
    assert all(float(error.abs().max()) < 1e-4 for error in setup.error)
    answer = setup.logits[:, 2]
    assert torch.allclose(answer, torch.full_like(answer, 4.0), atol=0.6)


def test_the_circuit_answers_like_the_model(system: System) -> None:
    for split in (system.planted.behavior.selection, system.planted.behavior.held_out):
        found = evaluate_circuit(
            system.model,
            sorted(system.truth.circuit),
            split,
            metric="logit-diff",
            switches=SWITCHES,
            mean_of=split,
        )
        assert found["mean_kl"] < 1e-3


def test_each_member_of_the_circuit_is_needed_and_nothing_else_is(system: System) -> None:
    circuit, everything = system.truth.circuit, sorted(system.truth.everything)
    patcher = Patcher(
        system.model,
        system.planted.behavior.selection,
        system.model.make_pool(everything),
        "logit-diff",
        SWITCHES,
        direction="denoising",
    )
    kept = [everything.index(i) for i in sorted(circuit)]
    cancelling = [everything.index(i) for i in system.truth.motifs["cancelling"][0]]
    harmless = set(range(len(everything))) - set(kept) - set(cancelling)
    sets = [kept, *([j for j in kept if j != i] for i in kept)]
    sets += [[*kept, i] for i in sorted(harmless)] + [[*kept, *cancelling]]
    value = np.abs(patcher.effects(sets) - patcher.effects([kept])).mean(1)
    n = 1 + len(kept)
    assert value[0] == 0
    assert (value[1:n] > 0.35).all()
    assert (value[n:] < 0.02).all()


def test_decoys_have_the_largest_activations_and_no_effect(system: System) -> None:
    decoys = {i for motif in system.truth.motifs["decoy"] for i in motif}
    assert set(system.ranked("magnitude", len(decoys))) == decoys
    effect = system.dump.score("mean_abs")[sorted(decoys)]
    assert (effect < 0.005).all()


#: selector -> members of the circuit among the first 4 and the first 8; the circuit has 8
HITS = {
    "magnitude": (1, 4),
    "fap": (4, 6),
    "fap-synergy clipped noising": (3, 6),
    "fap-synergy clipped denoising": (4, 6),
    "fap-synergy signed noising": (3, 5),
    "fap-synergy signed denoising": (4, 6),
    # conditional gradient: features a step, then the shortlist of pair moves
    "conditional 1": (4, 6),
    "conditional 5": (3, 6),
    "conditional 1 6": (4, 8),
    "conditional 5 6": (3, 7),
}


@pytest.mark.parametrize("name", HITS)
def test_precision_and_recall(first: System, name: str) -> None:
    assert len(first.truth.circuit) == 8
    for k, hits in zip((4, 8), HITS[name], strict=True):
        found = first.truth.agreement(first.selected(name, k))
        assert found == Agreement(precision=hits / k, recall=hits / 8)


def test_the_page_says_so() -> None:
    rows = re.findall(r"^\| ([a-z-]+(?: [\w ]+)?) \| (\d) \| (\d) \|", PAGE, re.M)
    assert {name: (int(of_4), int(of_8)) for name, of_4, of_8 in rows} == HITS


def test_the_example_of_the_page_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    (expected,) = re.findall(r"```text\n(.*?)```", PAGE, re.S)
    exec(compile(code, "docs/planted.md", "exec", dont_inherit=True), {"__name__": "example"})
    assert capsys.readouterr().out == expected


def test_signs_of_exact_synergy(system: System) -> None:
    assert system.pair("and_pair", "denoising") > 2.5
    assert system.pair("and_pair", "noising") < -2.5
    # Half of the prompts have both members of the OR.
    assert system.pair("or_pair", "noising") > 0.7
    assert system.pair("or_pair", "denoising") < -0.7
    assert system.pair("duplicate", "noising") > 1.4
    assert system.pair("duplicate", "denoising") < -1.4
    for direction in DIRECTIONS:  # it is linear: no pair synergy tells that the two cancel
        assert abs(system.pair("cancelling", direction)) < 0.01


def test_gradient_differences_see_these_signs_in_denoising_and_hardly_in_noising(
    system: System,
) -> None:
    estimator = "gradient-difference"
    assert system.pair("and_pair", "denoising", estimator) > 0.3
    assert system.pair("or_pair", "denoising", estimator) < -2.0
    assert system.pair("duplicate", "denoising", estimator) < -4.0
    # The full model stands on the flat of every readout: one sees a few percent of it from there.
    assert 0 < system.pair("or_pair", "noising", estimator) < 0.05
    assert 0 < system.pair("duplicate", "noising", estimator) < 0.1
    # ... too little for a copy to be taken for its sake,
    options, matrix = Options("fap-synergy"), system.synergy[estimator, "noising"]
    chosen = select_features(system.dump, 8, options, matrix).ids.tolist()
    assert system.truth.motifs["duplicate"][0][1] not in chosen
    # ... and what it says of an AND is small and of either sign.
    assert abs(system.pair("and_pair", "noising", estimator)) < 0.2


def test_the_full_model_hides_both_members_of_an_or(system: System) -> None:
    members = list(system.truth.motifs["or_pair"][0])
    assert (system.dump.score("mean_abs")[members] < 0.02).all()
    assert not set(members) & set(system.ranked("fap", 8))
    for synergy, direction in product(("clipped", "signed"), DIRECTIONS):
        assert not set(members) & set(system.ranked("fap-synergy", 8, synergy, direction))
    assert set(members) <= set(system.grown(3, batch=1).ids.tolist())


@pytest.mark.parametrize("k", [2, 4, 6])
def test_who_takes_the_copy_of_a_duplicate(system: System, k: int) -> None:
    both = set(system.truth.motifs["duplicate"][0])
    original, _ = system.truth.motifs["duplicate"][0]
    # What the paper adds in noising rewards the copy just because the original is in.
    assert both <= set(system.ranked("fap-synergy", k, "clipped", "noising"))
    assert both <= set(system.ranked("fap-synergy", k, "signed", "noising"))
    aware = {
        "clipped denoising": system.ranked("fap-synergy", k, "clipped", "denoising"),
        "signed denoising": system.ranked("fap-synergy", k, "signed", "denoising"),
        "one at a time": system.grown(k, batch=1).ids.tolist(),
    }
    for name, ids in aware.items():
        assert both & set(ids) == {original}, name
    # Features of one step do not see each other.
    assert both <= set(system.grown(k, batch=5).ids.tolist())


def test_an_and_pair_is_invisible_to_a_first_step(hidden: System) -> None:
    pair = set(hidden.truth.motifs["and_pair"][0])
    plain = {i for motif in hidden.truth.motifs["plain"] for i in motif}
    step = hidden.grown(len(hidden.truth.everything), batch=len(hidden.truth.everything))
    scores = dict(zip(step.ids.tolist(), step.scores.tolist(), strict=True))
    assert all(abs(scores[i]) < 1e-3 for i in pair)
    assert all(scores[i] > 0.1 for i in plain)
    assert set(hidden.grown(2, batch=1).ids.tolist()) == plain


@pytest.mark.parametrize("batch", [1, 5])
def test_pair_moves_find_it(hidden: System, batch: int) -> None:
    pair = set(hidden.truth.motifs["and_pair"][0])
    found = hidden.grown(2, batch=batch, pairs=4)
    assert set(found.ids.tolist()) == pair
    assert found.pairs == (tuple(sorted(pair)),)
    # One pass for the shortlist and one for the step; 6 pairs, the circuit and the best single.
    assert hidden.passes(found) == (2 + 6 + 2, 2)
    assert found.scores[0] == found.scores[1] > 0


def test_pair_moves_are_exact_gains(hidden: System) -> None:
    found = hidden.grown(2, batch=1, pairs=4)
    patcher = Patcher(
        hidden.model,
        hidden.planted.behavior.selection,
        hidden.model.make_pool(found.ids.tolist()),
        "kl",
        SWITCHES,
        direction="denoising",
    )
    assert 2 * found.scores[0] == pytest.approx(patcher.effects([(0, 1)]).mean(), rel=1e-5)


def test_pair_moves_grow_the_whole_circuit(system: System) -> None:
    k = len(system.truth.circuit)
    assert set(system.grown(k, batch=1, pairs=6).ids.tolist()) == system.truth.circuit
    without = set(system.grown(k, batch=1).ids.tolist())
    assert not without & {i for motif in system.truth.motifs["suppressor"] for i in motif}
    assert len(without & set(system.truth.motifs["and_pair"][0])) == 1


def test_a_pair_must_beat_the_best_single_per_feature(system: System) -> None:
    # Any pair with the original in it gains more than the original alone, but not twice as much.
    found = system.grown(2, batch=1, pairs=6)
    assert found.pairs == () and system.passes(found) == (3 + 15 + 2, 3)
    assert found.ids.tolist() == system.grown(2, batch=1).ids.tolist()


def test_pair_moves_where_no_pair_fits(hidden: System) -> None:
    one = hidden.grown(1, batch=1, pairs=4)
    assert one.pairs == () and hidden.passes(one) == (2, 2)
    assert one.ids.tolist() == hidden.grown(1, batch=1).ids.tolist()
    everything = hidden.grown(len(hidden.truth.everything), batch=1, pairs=50)
    assert set(everything.ids.tolist()) == hidden.truth.everything
    off = hidden.grown(3, batch=1)
    assert (hidden.passes(off), off.pairs) == ((3, 3), ())
    for pairs in (-1, 1):
        with pytest.raises(PieFastError, match=f"pairs is {pairs}, must be 0 or at least 2"):
            hidden.grown(2, batch=1, pairs=pairs)


def test_agreement_counts_members() -> None:
    truth = Truth(dict.fromkeys(vars(Motifs()), ()) | {"plain": ((1,), (2,)), "decoy": ((3,),)})
    assert truth.circuit == {1, 2} and truth.everything == {1, 2, 3}
    assert truth.agreement([1, 3]) == Agreement(0.5, 0.5)
    assert truth.agreement(np.array([2, 1, 3, 9])) == Agreement(0.5, 1.0)
    assert truth.agreement([]) == Agreement(1.0, 0.0)


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    def files(name: str, seed: int) -> dict[str, bytes]:
        plant(tmp_path / name, seed=seed)
        paths = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        return {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in paths}

    once, again, other = files("once", 3), files("again", 3), files("other", 4)
    assert once == again
    assert once.keys() == other.keys() and once != other


def test_one_motif_alone_and_many_at_once(tmp_path: Path) -> None:
    for name in vars(Motifs()):
        one = plant(tmp_path / name, Motifs(**{**dict.fromkeys(vars(Motifs()), 0), name: 1}))
        active = one.load().attribute(one.behavior.behaviors).active
        assert set(active.tolist()) == one.truth.everything
    many = plant(tmp_path / "many", Motifs(*[3] * 7), n_prompts=2, n_held_out=0)
    assert len(many.truth.everything) == 3 * 3 + 4 * 6
    active = many.load().attribute(many.behavior.behaviors).active
    assert set(active.tolist()) == many.truth.everything


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(PieFastError, match="decoy is -1, must be an integer of at least 0"):
        Motifs(decoy=-1)
    with pytest.raises(PieFastError, match="at least one must be planted"):
        Motifs(*[0] * 7)
    with pytest.raises(PieFastError, match="n_prompts is 0, n_held_out 8"):
        plant(tmp_path, n_prompts=0)
    assert not list(tmp_path.iterdir())
