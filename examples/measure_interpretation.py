"""How good the interpretation of the demo circuits is: every row that it must reach.

    python examples/measure_interpretation.py OUT            # about three minutes
    python examples/measure_interpretation.py OUT --write    # also into the README

Both behaviours at K = 50. The rules are reported on prompts that neither mined nor chose them; the
control runs the same pipeline on shuffled activations. Rows of the CLT are counted where they are
read, for the demo CLT and for the same with ten times the features. FADE's numbers are calculated
again by scikit-learn. The language model is a local server that fails 3 of 10 calls.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

import pie_fast
from marked import update
from padding_clts import pad_clt
from pie_fast.behaviors import Behavior
from pie_fast.clt.decoder import Decoder
from pie_fast.clt.encoder import Encoder
from pie_fast.corpora import open_corpus
from pie_fast.discover import discover
from pie_fast.interpret.circuit import Choices, CircuitInterpretation, interpret_circuit
from pie_fast.interpret.explained import Explained, explain_sampled, token_lists
from pie_fast.interpret.rule_tests import RuleTests
from pie_fast.interpret.rules.control import averages, shuffled_control
from pie_fast.interpret.rules.parts import REPORTING, positions_in
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.interpreted_run import drawn_anew
from pie_fast.llm import Chat, LlmExplainer, Retries
from pie_fast.plan import Plan
from pie_fast.replacement_model import ReplacementModel
from pie_fast.types import FeatureId
from scripted_server import Reply, serving

BEHAVIORS, BUDGET, TIMES = ("ioi", "docstring"), 50, 10
N_PROMPTS, SEEDS = 256, range(3)
GOOD = 0.8


@dataclass
class Counted:
    """Rows of the CLT that were read."""

    encoder: int = 0
    decoder: int = 0


@contextmanager
def counting() -> Iterator[Counted]:
    """Count rows at the only places where the library reads them."""
    counted, rows, written = Counted(), Encoder.rows, Decoder.rows
    whole = Encoder.weight

    def encoder_rows(self: Encoder, ids: Any) -> Any:
        counted.encoder += len(ids)
        return rows(self, ids)

    def encoder_weight(self: Encoder) -> Any:
        counted.encoder += self.n_features
        return whole(self)

    def decoder_rows(self: Decoder, ids: Any) -> Any:
        counted.decoder += len(ids)
        return written(self, ids)

    Encoder.rows, Encoder.weight = encoder_rows, encoder_weight  # type: ignore[method-assign]
    Decoder.rows = decoder_rows  # type: ignore[method-assign]
    try:
        yield counted
    finally:
        Encoder.rows, Encoder.weight = rows, whole  # type: ignore[method-assign]
        Decoder.rows = written  # type: ignore[method-assign]


@dataclass
class Circuit:
    """A behaviour's circuit, and what its interpretation took."""

    behavior: Behavior
    features: list[FeatureId]
    scores: list[float]
    corpus: tuple[str, ...] = ()
    found: CircuitInterpretation | None = None
    counted: Counted = field(default_factory=Counted)
    calls: tuple[int, int] = (0, 0)

    def interpret(self, model: ReplacementModel, choices: Choices) -> Circuit:
        """By a model whose CLT has these features."""
        ids = np.array([f.to_global(model.clt.n_features) for f in self.features])
        looked_at, fresh = drawn_anew(self.behavior, model.host.tokenizer)
        corpus = open_corpus(self.corpus, model.host.tokenizer, behavior=looked_at)
        before = model.spent
        with counting() as counted:
            found = interpret_circuit(
                model,
                ids,
                self.scores,
                self.behavior.selection,
                corpus,
                fresh=fresh,
                choices=choices,
            )
        spent = model.spent - before
        return Circuit(
            self.behavior,
            self.features,
            self.scores,
            self.corpus,
            found,
            counted,
            (spent.forward, spent.backward),
        )


def circuit(model: ReplacementModel, name: str, out: Path, budget: int) -> Circuit:
    """Discovered anew; selection prompts only."""
    behavior = pie_fast.load_behavior(name, tokenizer=model.host.tokenizer, n_prompts=N_PROMPTS)
    plan = Plan(budget=budget, curve=False, stability=0)
    result = discover(model, behavior, plan, out / name, force=True)
    rows = result["interpretations"]
    features = [FeatureId(row["layer"], row["index"]) for row in rows]
    return Circuit(behavior, features, [row["fap_score"] for row in rows])


def row(what: str, found: str, must: str) -> str:
    """One line of the table."""
    return f"| {what} | {found} | {must} |"


def rules_row(circuits: Sequence[Circuit], where: str, must: str) -> str:
    """How many features have a good rule, and how much of their strength such rules cover."""
    cells = []
    for one in circuits:
        found = one.found.interpretations
        held = [i.rule["held_out"] for i in found if i.rule]
        raw, above = ([h[k] or 0.0 for h in held] for k in ("average_precision", "above_chance"))
        covers = [h["coverage"] for h, v in zip(held, raw, strict=True) if v >= GOOD]
        told = f"{len(covers) / len(found):.0%}"
        told += f" ({sum(v >= GOOD for v in above) / len(found):.0%} corrected for chance)"
        if covers:
            told += f", covering {np.mean(covers):.0%} on average"
        half = sum(v >= 0.5 for v in covers) / len(found)
        cells.append(f"{one.behavior.name} {told}; {half:.0%} also cover half or more")
    what = f"features with a rule of held-out average precision >= {GOOD}, on {where}"
    return row(what, "; ".join(cells), must)


def control_row(model: ReplacementModel, circuits: Sequence[Circuit]) -> str:
    """What the same pipeline finds where there is nothing to find."""
    vocabulary, runs = Vocabulary(model.host.tokenizer), []
    for one in circuits:
        collected = one.found.collected
        tokens = token_lists(model, collected.ids.tolist(), 10, vocabulary)
        for k, lists in enumerate(tokens):
            explained = explain_sampled(collected.sampled(k), lists, vocabulary)
            promoted = [token.token_id for token in lists.promoted]
            world = explained.facts, explained.activity, vocabulary
            runs += [shuffled_control(*world, promoted=promoted, seed=seed) for seed in SEEDS]
    cells = [
        f"{name.removesuffix('_rule')} {a.mean:+.3f} ± {a.standard_error:.3f} "
        f"({a.n_runs} runs, {a.n_without} without a number)"
        for name, a in averages(runs).items()
    ]
    what = "shuffled activations: mean of signed measures with 60 positives or more"
    return row(what, ", ".join(cells), "within .05 of 0")


def cost_row(circuits: Sequence[Circuit], padded: Sequence[Circuit]) -> str:
    """What was read and run, of the demo CLT and of one ten times as wide."""
    cells = []
    for one, other in zip(circuits, padded, strict=True):
        told = [
            f"{c.counted.encoder} + {c.counted.decoder} rows, {c.calls[0]} + {c.calls[1]} calls"
            for c in (one, other)
        ]
        same = "equal" if told[0] == told[1] else f"against {told[1]}"
        cells.append(f"{one.behavior.name} {told[0]}: {same}")
    what = f"encoder + decoder rows, forward + backward calls; at {TIMES} times the features"
    return row(what, "; ".join(cells), "flat")


def fade_row(model: ReplacementModel, circuits: Sequence[Circuit]) -> str:
    """Responsiveness, Purity and Clarity again, by scikit-learn."""
    differences: list[float] = []
    for one in circuits:
        for (explained, concept), quality in zip(tested(model, one), qualities(one), strict=True):
            again = {} if explained.rule is None else by_scikit_learn(explained, concept)
            for name, value in again.items():
                ours = quality[name].value if name == "purity_rule" else quality[name].signed
                differences.append(abs(ours - value))
    told = f"{len(differences)} numbers, largest difference {max(differences):.1e}"
    return row("FADE's numbers of rules (all but Faithfulness) against scikit-learn", told, "1e-12")


def qualities(one: Circuit) -> list[Any]:
    """The measures of every feature, in the order of the pass."""
    by_feature = {i.feature: i.quality for i in one.found.interpretations}
    return [by_feature[feature] for feature in one.found.edges.features]


def tested(model: ReplacementModel, one: Circuit) -> list[tuple[Explained, Any]]:
    """Every feature's rule, and its activations where that was made to hold; made anew."""
    collected, choices = one.found.collected, one.found.choices
    vocabulary = Vocabulary(model.host.tokenizer)
    tokens = token_lists(model, collected.ids.tolist(), choices.n_tokens, vocabulary)
    explained = [
        explain_sampled(collected.sampled(k), lists, vocabulary) for k, lists in enumerate(tokens)
    ]
    _, fresh = drawn_anew(one.behavior, model.host.tokenizer)
    steered = one.behavior.selection[: choices.steered_prompts]
    tests = RuleTests(model, steered, fresh, choices.n_concept, choices.seed)
    concepts = tests.concepts(collected, explained, tokens)
    return list(zip(explained, concepts, strict=True))


def by_scikit_learn(explained: Explained, concept: Any) -> dict[str, float]:
    """The measures that have a value, signed where they have a sign."""
    activity, rule = explained.activity, explained.rule
    at = positions_in(activity, REPORTING)
    scores = np.zeros(len(at))
    scores[activity.at] = activity.activation
    natural, holds = scores[at], rule.holds(explained.facts)[at]
    weights = explained.weights[explained.facts.corpus.prompt][at]
    found = {}
    if holds.any() and not holds.all():
        signed = 2 * roc_auc_score(holds, natural, sample_weight=weights) - 1
        towards = -1 if signed < 0 else 1
        found["responsiveness_rule"] = signed
        found["purity_rule"] = average_precision_score(
            holds, towards * natural, sample_weight=weights
        )
    if concept is not None:
        made = np.arange(len(concept) + len(natural)) < len(concept)
        both = np.append(concept.astype(np.float64), natural)
        each = np.append(np.ones(len(concept)), weights)
        found["clarity_rule"] = 2 * roc_auc_score(made, both, sample_weight=each) - 1
    return found


class Stop:
    """Stops a run as Ctrl-C does, once so many questions are done."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, done: int, total: int) -> None:
        """Told how many are done."""
        if done == self.after:
            raise KeyboardInterrupt


def server_row(circuits: Sequence[Circuit], cache: Path) -> str:
    """A server that fails 3 of 10 calls; each run is stopped halfway and gone on with."""
    draw, soon = np.random.default_rng(0), Retries(first=0.001, longest=0.002)
    explained = failed = 0

    def script(body: Any, n: int) -> Reply:
        return Reply(status=500) if draw.random() < 0.3 else Reply()

    with serving(script) as server:

        def explain(one: Circuit, advance: Any = None) -> tuple[int, int]:
            with Chat("any", cache=cache, base_url=server.url, retries=soon) as chat:
                told = LlmExplainer(chat).explain(one.found.interpretations, advance)
                return sum(i.explainer == "openai:any" for i in told), len(chat.failures)

        for one in circuits:
            with suppress(KeyboardInterrupt):
                explain(one, Stop(len(one.features) // 2))
            right, wrong = explain(one)
            explained, failed = explained + right, failed + wrong
        before = len(server.requests)
        for one in circuits:
            explain(one)
        again = len(server.requests) - before
        twice = sum(count - 1 for count in server.paid.values())
    n = sum(len(one.features) for one in circuits)
    told = (
        f"{explained} of {n} features explained, {failed} reported; {before} requests, {twice} "
        f"answers paid twice; run again: {again} requests"
    )
    must = "all explained or reported, none paid twice"
    return row("a server that fails 30% of its calls, stopped halfway", told, must)


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="where runs go")
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--write", action="store_true", help="put the table into the README")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for left in ("padded", "answers"):
        shutil.rmtree(asked.out / left, ignore_errors=True)
    demo = pie_fast.demo_model_path(), pie_fast.demo_clt_path()
    model = pie_fast.load_model(*demo, device="cpu")
    wide = pad_clt(Path(demo[1]), asked.out / "padded", TIMES)
    padded = pie_fast.load_model(demo[0], wide, device="cpu")
    choices = Choices()
    circuits = [circuit(model, name, asked.out, asked.budget) for name in BEHAVIORS]
    wider = [one.interpret(padded, choices) for one in circuits]
    circuits = [one.interpret(model, choices) for one in circuits]
    mixed = [replace(one, corpus=("builtin",)).interpret(model, choices) for one in circuits]
    rows = [
        f"| demo model, K = {asked.budget} | measured | must |",
        "|---|---|---|",
        rules_row(circuits, "the behaviour's prompts", ">= 60%"),
        rules_row(mixed, "these and the prompts of 7 other behaviours", "told"),
        control_row(model, circuits),
        cost_row(circuits, wider),
        fade_row(model, circuits),
        server_row(circuits, asked.out / "answers"),
    ]
    text = "\n".join(rows)
    print(text)
    if asked.write:
        made = "Made by `python examples/measure_interpretation.py OUT --write`, in three minutes."
        update(Path("README.md"), "interpretation", f"{text}\n\n{made}")


if __name__ == "__main__":
    main()
