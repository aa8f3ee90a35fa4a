"""One prompt of a run as an attribution graph: the circuit's features where they are active.

What effects are on is the run's metric at the prompt's answer; circuit-tracer's own graphs are of
the metric `logit`. Labels are those of `interpretation.json`, else of `result.json`; supernodes are
the groups that the report draws frames around, so that both show the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pie_fast._native import __version__
from pie_fast.behaviors import Prompt
from pie_fast.behaviors.behavior import NEEDS_FOIL
from pie_fast.behaviors.drafting import encode
from pie_fast.discovered_run import DiscoveredRun
from pie_fast.errors import PieFastError
from pie_fast.exchange import Graph, PromptText, circuit_graph, prune_links
from pie_fast.exchange.checked import Record
from pie_fast.interpret.node_edges import node_edges
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.model import Switches, make_batch
from pie_fast.report.heat import synergy_heat
from pie_fast.report.run import Run, read_run
from pie_fast.types import FeatureId

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pie_fast.progress import Reporter
    from pie_fast.replacement_model import ReplacementModel

#: features that a group has at least
_SMALLEST_GROUP = 2

#: characters of a label: viewers draw it whole, beside others
_LONGEST_LABEL = 60


@dataclass(frozen=True)
class GraphChoices:
    """Which graph is made of a run.

    Attributes:
        prompt: Number of a selection prompt, from 0.
        text: A prompt of one's own instead; what the model thinks likeliest is its answer.
        metric: What effects are on; None: the run's, and `logit` of a text.
        edge_share: Links are kept that carry this share of all influence, the strongest first.
        slug: The graph's name; None: the behaviour and the prompt's number.
        scan: By which viewers find pages of features; None: the CLT's hub id or folder name.

    Raises:
        PieFastError: `edge_share` is not above 0 and at most 1.
    """

    prompt: int = 0
    text: str | None = None
    metric: str | None = None
    edge_share: float = 0.98
    slug: str | None = None
    scan: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.edge_share <= 1:
            raise PieFastError(f"edge_share is {self.edge_share}, must be above 0 and at most 1")

    def slug_of(self, run: DiscoveredRun) -> str:
        """The graph's name, which is that of its file."""
        behavior = Path(run.settings["behavior"]).stem
        made = f"{behavior}-{'text' if self.text is not None else self.prompt}"
        return self.slug or re.sub(r"[^A-Za-z0-9._-]+", "-", made).lstrip("._-")


def graph_of_run(
    run: DiscoveredRun,
    choices: GraphChoices,
    *,
    model: str | None = None,
    clt: str | None = None,
    behavior: str | None = None,
    device: str = "auto",
    reporter: Reporter,
) -> Graph:
    """Load what the run ran on, and make the graph of one prompt.

    Args:
        run: The run.
        choices: Which prompt, and how much of its graph.
        model, clt, behavior: Instead of those that the run names.
        device: Where the model runs.
        reporter: Shows and times the stages.

    Raises:
        PieFastError: The run is not what it should be, or lacks the prompt.
        BehaviorError: A text that the model cannot read, or a metric without a gradient here.
    """
    features, _ = run.features
    labels = _labels(run)
    with reporter.stage("load"):
        loaded = run.load(model, clt, device)
        if choices.text is None:
            prompt = _chosen(run.behavior(behavior, loaded).selection, choices.prompt)
        else:
            prompt = _of_text(loaded, choices.text)
    reporter.count(lambda: loaded.spent)
    own = "logit" if choices.text is not None else run.settings["metric"]
    metric = choices.metric or own
    with reporter.stage("edges"):
        ids = [feature.to_global(loaded.clt.n_features) for feature in features]
        edges = node_edges(loaded, prompt, ids, metric=metric)
        told = _prompt_text(loaded, prompt, metric)
    if not edges.features:
        raise PieFastError("no feature of the circuit is active on the prompt; choose another one")
    graph = circuit_graph(
        edges,
        told,
        slug=choices.slug_of(run),
        scan=choices.scan or _named(loaded.clt.name),
        labels=labels,
        groups=_groups(read_run(run.folder), features),
        info=_info(loaded, metric, choices.edge_share),
    )
    return prune_links(graph, choices.edge_share)


def _chosen(prompts: Sequence[Prompt], number: int) -> Prompt:
    """The prompt up to where its answer is read: what comes later feeds nothing before it."""
    if not 0 <= number < len(prompts):
        raise PieFastError(
            f"prompt {number} is not from 0 to {len(prompts) - 1}, the selection prompts"
        )
    prompt = prompts[number]
    read = prompt.tokens[: prompt.answer_position + 1]
    return replace(prompt, tokens=read, counterfactual=None, text=None, roles=None)


def _of_text(loaded: ReplacementModel, text: str) -> Prompt:
    """A text as a prompt whose answer is what the model thinks likeliest."""
    if loaded.host.tokenizer is None:
        raise PieFastError("a text needs the model's tokenizer, and it has none; use a prompt")
    tokens = tuple(encode(loaded.host.tokenizer, text))
    if not 1 <= len(tokens) <= loaded.host.n_ctx:
        raise PieFastError(
            f"the text has {len(tokens)} tokens, must have 1 to {loaded.host.n_ctx}, the model's "
            "context"
        )
    unanswered = Prompt(tokens, answer=0)
    return replace(unanswered, answer=int(np.argmax(_probabilities(loaded, unanswered))))


def _prompt_text(loaded: ReplacementModel, prompt: Prompt, metric: str) -> PromptText:
    vocabulary = Vocabulary(loaded.host.tokenizer)
    probability = float(_probabilities(loaded, prompt)[prompt.answer])
    answer = vocabulary.text(prompt.answer)
    if metric in NEEDS_FOIL and prompt.foil is not None:
        # the viewers split what they show of an output at "(p="
        answer = (
            f"Output {vocabulary.quoted(prompt.answer)} over {vocabulary.quoted(prompt.foil)} "
            f"(p={probability:.3f})"
        )
    return PromptText(
        prompt.tokens,
        tuple(map(vocabulary.text, prompt.tokens)),
        prompt.answer,
        answer,
        probability,
    )


def _probabilities(loaded: ReplacementModel, prompt: Prompt) -> NDArray[np.float64]:
    """Of every next token: `[vocab]` float64."""
    setup = loaded.prepare(make_batch([prompt], loaded.device), Switches("zero"))
    found: NDArray[np.float64] = setup.logits[0].double().softmax(-1).cpu().numpy()
    return found


def _labels(run: DiscoveredRun) -> dict[FeatureId, str]:
    """What each feature does; `interpretation.json` goes before `result.json`."""
    told = Record(str(run.folder), run.told).records("interpretations")
    return {
        FeatureId(one.integer("layer"), one.integer("index")): _short(one.text("label", default=""))
        for one in told
    }


def _named(place: str) -> str:
    """The last part of a local folder's path, which means nothing elsewhere; a hub id is whole."""
    return Path(place).resolve().name if Path(place).exists() else place


def _short(label: str) -> str:
    """When a feature fires; what it raises and lowers, and how well the rule fits, are left out."""
    text = re.split(r"; | \[AP ", label, maxsplit=1)[0]
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 3]}..."


def _groups(run: Run, features: Sequence[FeatureId]) -> list[tuple[str, tuple[FeatureId, ...]]]:
    """Features that work together, by the run's synergies; none where it has no synergies."""
    heat = synergy_heat(run, list(features))
    if heat is None:
        return []
    ends = (*heat.starts[1:], len(heat.features))
    found = [heat.features[start:end] for start, end in zip(heat.starts, ends, strict=True)]
    groups = [group for group in found if len(group) >= _SMALLEST_GROUP]
    return [(f"synergy group {number}", group) for number, group in enumerate(groups, 1)]


def _info(loaded: ReplacementModel, metric: str, edge_share: float) -> dict[str, object]:
    """How the graph was made, in the fields that Neuronpedia has for it."""
    return {
        "info": {
            "description": f"Features of a circuit, and their direct effects on {metric}.",
            "generator": {"name": "pie-fast", "version": __version__},
            "transcoder_set": _named(loaded.clt.name),
        },
        "generation_settings": {"metric": metric, "model": _named(loaded.host.name)},
        "pruning_settings": {"node_threshold": 1.0, "edge_threshold": edge_share},
    }
