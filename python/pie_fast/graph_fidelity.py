"""How much of the model K nodes of an attribution graph keep, which the graph itself does not say.

The graph's features or nodes of largest influence are kept, all else is at its baseline, and the
output is compared with the model's own: on the graph's own prompt, and on a behaviour's held-out
prompts. Errors of the transcoder are kept, and dropped beside it, as everywhere.

A graph has one prompt and no counterfactual: the baseline on it is the mean over the behaviour's
selection prompts where there is a behaviour, else zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pie_fast.behaviors import Behavior, Prompt
from pie_fast.behaviors.behavior import check_prompts
from pie_fast.capture import default_switches
from pie_fast.errors import CheckpointError, DumpError, PieFastError
from pie_fast.evaluate import Progress, evaluate_circuit
from pie_fast.exchange import Graph, choose_features, choose_nodes, read_graph
from pie_fast.exchange import Node as GraphNode
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.model import Switches
from pie_fast.replacement_model import ReplacementModel
from pie_fast.slots import Node, Slots, node_ids, slot_names
from pie_fast.types import FeatureId


@dataclass(frozen=True)
class ImportedGraph:
    """A graph of a file, as something that a model can be asked about.

    Attributes:
        file: Where it came from.
        graph: What it holds.
    """

    file: Path
    graph: Graph

    @classmethod
    def read(cls, file: Path) -> ImportedGraph:
        """Read a graph of circuit-tracer or Neuronpedia.

        Raises:
            DumpError: It is none; file, field and value are named.
        """
        return cls(file, read_graph(file))

    def prompt(self, model: ReplacementModel) -> Prompt:
        """Its prompt, by token ids; the answer is the output token that it explains first.

        Raises:
            DumpError: A token is missing, most are not what the model's tokenizer has, or no output
                is a token of the model.
            BehaviorError: The model cannot read the prompt.
        """
        ids = self.graph.token_ids
        if ids is None:
            raise DumpError(
                f"{self.file}: nodes: the embedding nodes do not give a token id for each of the "
                f"{len(self.graph.prompt_tokens)} prompt_tokens"
            )
        vocab = model.host.vocab_size
        outputs = [n for n in self.graph.nodes if n.kind == "logit" and n.index < vocab]
        if not outputs:
            raise DumpError(
                f"{self.file}: nodes: no logit is a token of the model, whose ids are 0 to "
                f"{vocab - 1}"
            )
        answer = max(outputs, key=lambda node: (node.is_target, node.probability))
        prompt = Prompt(ids, answer.index)
        check_prompts([prompt], vocab, model.host.n_ctx, where=f"{self.file}: the graph's ")
        self._check_texts(ids, model)
        return prompt

    def _check_texts(self, ids: tuple[int, ...], model: ReplacementModel) -> None:
        """Refuse a prompt whose ids mean other words here: tools write single tokens their way."""
        if model.host.tokenizer is None:
            return
        ours = list(map(Vocabulary(model.host.tokenizer).text, ids))
        theirs = self.graph.prompt_tokens
        differ = [n for n, both in enumerate(zip(ours, theirs, strict=True)) if not _alike(*both)]
        if 2 * len(differ) > len(ids):
            n = differ[0]
            raise DumpError(
                f"{self.file}: metadata: prompt_tokens has {theirs[n]!r} at {n}, where the model's "
                f"tokenizer has {ours[n]!r} for id {ids[n]}, and {len(differ)} of {len(ids)} "
                "differ; is the graph of another model?"
            )

    @property
    def features(self) -> set[FeatureId]:
        """The features of all its nodes."""
        return {FeatureId(node.layer, node.index) for node in self.graph.features}

    def check_features(self, model: ReplacementModel) -> None:
        """Refuse a graph with a feature that the CLT does not have.

        Raises:
            DumpError: Naming file, field and node.
        """
        for node in self.graph.features:
            try:
                model.clt.check_feature(node.layer, node.index)
            except CheckpointError as error:
                raise DumpError(
                    f"{self.file}: node_id {node.id!r}: {error}; is the graph of another CLT?"
                ) from error


def evaluate_graph(
    model: ReplacementModel,
    imported: ImportedGraph,
    k: int,
    *,
    behavior: Behavior | None = None,
    unit: str = "feature",
    baseline: str | None = None,
    metric: str | None = None,
    kl_direction: str = "model||circuit",
    seed: int = 0,
    switches: Switches | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Keep the K most influential features or nodes of a graph.

    Args:
        model: The replacement model, of the CLT that the graph is of.
        imported: The graph.
        k: How many are kept.
        behavior: Also judge them on its held-out prompts.
        unit: `feature` (wherever it is active) or `node` (at the graph's positions, so of its own
            prompt only).
        baseline: What the rest is set to; None: see the module, and the behaviour's own default
            on its prompts.
        metric: On the behaviour's prompts; None: its own. On the graph's prompt it is `logit`.
        kl_direction: As of `evaluate_circuit`.
        seed: Of the bootstrap.
        switches: Others than the baseline; None: the usual ones.
        progress: Called as the behaviour's prompts are gone through.

    Returns:
        `features` kept in order, `prompt` (as `evaluate_circuit`, with all of the graph's features
        kept under `all_features`), and `behavior` (likewise, or None).

    Raises:
        PieFastError: Nodes with a behaviour; a counterfactual baseline without a behaviour.
        BudgetError: The graph has fewer.
        DumpError: The graph does not fit the model; see `ImportedGraph`.
    """
    _check_together(unit, baseline, behavior)
    graph = imported.graph
    units = _chosen(graph, k, unit)
    imported.check_features(model)
    prompt = imported.prompt(model)
    ids, slots = _kept(units, prompt, model.clt.n_features)
    every = sorted({f.to_global(model.clt.n_features) for f in imported.features})
    how: dict[str, Any] = {
        "mean_of": () if behavior is None else behavior.selection,
        "kl_direction": kl_direction,
        "seed": seed,
    }
    switches = switches or Switches()
    own = {
        **how,
        "metric": "logit",
        "switches": replace(switches, baseline=_own_baseline(baseline, behavior)),
    }
    return {
        "graph": str(imported.file),
        "slug": graph.slug,
        "scan": graph.scan,
        "unit": unit,
        "budget": k,
        "features": [_listed(rank, one) for rank, one in enumerate(units)],
        "n_graph_features": len(every),
        "prompt": {
            **evaluate_circuit(model, ids, [prompt], slots=slots, **own),
            "all_features": evaluate_circuit(model, every, [prompt], **own),
        },
        "behavior": behavior
        and {
            "name": behavior.name,
            "split": "held_out" if behavior.held_out else "selection",
            **evaluate_circuit(
                model,
                ids,
                behavior.held_out or behavior.selection,
                metric=metric or behavior.metric,
                switches=replace(
                    switches, baseline=baseline or default_switches(behavior).baseline
                ),
                progress=progress,
                **how,
            ),
        },
    }


def _check_together(unit: str, baseline: str | None, behavior: Behavior | None) -> None:
    if unit == "node" and behavior is not None:
        raise PieFastError(
            "nodes are at positions of the graph's prompt, which other prompts do not share; use "
            "unit 'feature' with a behaviour"
        )
    if baseline == "counterfactual" and behavior is None:
        raise PieFastError("a graph's prompt has no counterfactual; use baseline 'zero' or 'mean'")


def _chosen(graph: Graph, k: int, unit: str) -> Sequence[FeatureId | GraphNode]:
    return choose_features(graph, k) if unit == "feature" else choose_nodes(graph, k)


def _kept(
    units: Sequence[FeatureId | GraphNode], prompt: Prompt, n_features: int
) -> tuple[list[int], Slots | None]:
    """Global ids of features; of nodes their ids, and the positions of the prompt as slots."""
    features = [unit for unit in units if isinstance(unit, FeatureId)]
    if features:
        return [feature.to_global(n_features) for feature in features], None
    places = slot_names(prompt)
    nodes = [
        Node(FeatureId(unit.layer, unit.index), places[unit.position])
        for unit in units
        if isinstance(unit, GraphNode)
    ]
    slots = Slots(places)
    return node_ids(nodes, slots, n_features), slots


def _own_baseline(baseline: str | None, behavior: Behavior | None) -> str:
    """On the graph's prompt, which has no counterfactual."""
    if baseline is None or baseline == "counterfactual":
        return "zero" if behavior is None else "mean"
    return baseline


def _alike(first: str, second: str) -> bool:
    """Whether two spellings of a token are one: a space is `Ġ` or `▁` in some tools, or missing."""
    return len({text.strip("Ġ▁ ") for text in (first, second)}) == 1


def _listed(rank: int, one: FeatureId | GraphNode) -> dict[str, int]:
    place = {"position": one.position} if isinstance(one, GraphNode) else {}
    return {"layer": one.layer, "index": one.index, **place, "rank": rank}
