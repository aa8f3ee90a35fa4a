"""Our own model behind the drop-in functions: every optional method of `pie_fast.protocols`.

The functions of `pie_fast.pie` know nothing of torch; what they ask of a model they find here, done
in batches by `attribution`, `synergy`, `evaluate` and `interpret`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pie_fast.attribution import Patcher
from pie_fast.behaviors import Prompt, check_prompts
from pie_fast.circuit import Circuit
from pie_fast.clt import Clt, clt_of, load_clt
from pie_fast.entries import Entries, all_entries
from pie_fast.errors import BehaviorError, PieFastError
from pie_fast.evaluate import evaluate_circuit
from pie_fast.interpret import interpret_features
from pie_fast.interpretation import Interpretation
from pie_fast.intervene import PromptLike, generate, intervene
from pie_fast.intervened import Generated, Intervened
from pie_fast.model import Replacer, Switches, load_host, make_batch, resolve_device
from pie_fast.model_source import ModelSource, absolute
from pie_fast.positions import check_ignored
from pie_fast.protocols import Ranking
from pie_fast.select import top_k
from pie_fast.synergy import SynergyEstimator
from pie_fast.types import FeatureId


@dataclass(frozen=True, order=True)
class AttributedFeature:
    """A feature after a backward.

    Attributes:
        id: The feature.
        gradient: `[n_prompts, n_pos]` float64, d (mean metric) / d activation.
        value: `[n_prompts, n_pos]` float64, activation minus baseline.
    """

    id: FeatureId
    gradient: NDArray[np.float64] = field(compare=False, repr=False)
    value: NDArray[np.float64] = field(compare=False, repr=False)


@dataclass(frozen=True)
class _Attribution:
    """The latest backward.

    Attributes:
        prompts: That were attributed.
        metric: By which.
        key: All that the entries depend on.
        entries: The outcome.
    """

    prompts: tuple[Prompt, ...]
    metric: str
    key: tuple[Any, ...]
    entries: Entries


class ReplacementModel(Replacer):
    """A language model with its CLT that meets `ModelLike` and all its optional protocols.

    Prompts are `pie_fast.behaviors.Prompt`; a collection of them with an attribute `metric` (as
    `Behavior.behaviors` is) is measured by that. What prompts do not say themselves is as in the
    latest `attribute`: the metric of a plain list of prompts (`logit-diff` before there was one),
    and the prompts that `baseline="mean"` averages over.

    Attributes:
        switches: What happens to features that are not kept; a baseline of None is the
            counterfactual where every prompt has one, else the mean.
        gradient: A rule of `pie_fast.gradients`, of every attribution.
        batch_size: Prompts a batch.
        directions: The directions of importance that `importances` measures itself.
        source: How another process loads the same; None of a model made of objects.
    """

    directions = ("noising", "denoising")
    gradient = "full"
    batch_size = 32

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.switches = Circuit(())
        self.source: ModelSource | None = None
        self._last: _Attribution | None = None

    @property
    def clt_features(self) -> Iterator[FeatureId]:
        """Every feature of the dictionary, ascending."""
        return (
            FeatureId(layer, index)
            for layer in range(self.clt.n_layers)
            for index in range(self.clt.n_features)
        )

    def __call__(self, prompt: Prompt) -> NDArray[np.float64]:
        """Next-token probabilities at the prompt's answer position: `[vocab]`."""
        self._check([prompt])
        batch = make_batch([prompt], self.device)
        with torch.no_grad():
            logits = self.host.run(batch.tokens, batch.answer_position, [])
        return _probabilities(logits[0])

    def importance(
        self,
        features: Collection[FeatureId],
        behaviors: Sequence[Prompt],
        direction: str = "noising",
    ) -> float:
        """Patching of one set, signed, the mean over prompts."""
        return float(self._patch([tuple(features)], behaviors, direction)[0])

    def importances(
        self,
        features: Sequence[FeatureId],
        behaviors: Sequence[Prompt],
        direction: str = "noising",
    ) -> NDArray[np.float64]:
        """Patching of each feature alone: `[len(features)]`."""
        return self._patch([(f,) for f in features], behaviors, direction)

    def joint_importances(
        self,
        pairs: Sequence[tuple[FeatureId, FeatureId]],
        behaviors: Sequence[Prompt],
        direction: str = "noising",
    ) -> NDArray[np.float64]:
        """Patching of each pair: `[len(pairs)]`."""
        return self._patch(pairs, behaviors, direction)

    def attribute(self, behaviors: Sequence[Prompt]) -> Entries:
        """Run prompts forward and backward; remembered until another `attribute`.

        Raises:
            BehaviorError: There are no prompts, or the model cannot read one.
        """
        metric = _metric_of(behaviors) or "logit-diff"
        self._last = self._attribution(behaviors, metric, behaviors)
        return self._last.entries

    def attributed(self, feature: FeatureId) -> AttributedFeature:
        """Gradient and value of a feature after the latest `attribute`.

        Raises:
            PieFastError: Nothing has been attributed yet.
        """
        if self._last is None:
            raise PieFastError("no gradients yet: call model.attribute(prompts) first")
        prompts, entries = self._last.prompts, self._last.entries
        mine = entries.take(entries.feature == feature.to_global(self.clt.n_features))
        shape = len(prompts), max(len(p.tokens) for p in prompts)
        value, gradient = np.zeros(shape), np.zeros(shape)
        at = mine.prompt, mine.position
        value[at] = mine.delta
        moved = mine.delta != 0
        at = mine.prompt[moved], mine.position[moved]
        effect = mine.effect[moved].astype(np.float64)
        gradient[at] = effect / mine.delta[moved] / len(prompts)
        return AttributedFeature(feature, gradient, value)

    def fap_scores(
        self, features: Sequence[FeatureId], behaviors: Sequence[Prompt]
    ) -> NDArray[np.float64]:
        """First-order effects: `[len(features), n_prompts]`."""
        ids, back = np.unique(self._globals(features), return_inverse=True)
        effects = self.attribute(behaviors).per_prompt(ids, len(behaviors))
        return effects[back]

    def pool(
        self,
        behaviors: Sequence[Prompt],
        size: int,
        *,
        importance: str,
        rank_by: str,
        direction: str,
    ) -> Ranking:
        """The best `size` active features by FAP or by patching."""
        entries = self.attribute(behaviors)
        active = entries.active
        features = [FeatureId.from_global(g, self.clt.n_features) for g in active.tolist()]
        if importance == "fap":
            effects = entries.per_prompt(active, len(behaviors))
        else:
            effects = self._patcher(active, behaviors, direction).effects(
                [(i,) for i in range(len(active))]
            )
        scores = np.abs(effects).mean(1) if rank_by == "mean_abs" else effects.mean(1)
        scores = np.abs(scores) if rank_by == "abs" else scores
        best = top_k(scores, min(size, len(active))).tolist()
        return Ranking([features[i] for i in best], scores[best].tolist(), len(active))

    def synergies(
        self,
        features: Sequence[FeatureId],
        behaviors: Sequence[Prompt],
        *,
        direction: str,
        estimator: str,
    ) -> NDArray[np.float64]:
        """Signed synergy of all pairs: `[n, n]`."""
        self._check(behaviors)
        ids = self._globals(features)
        order = np.argsort(ids)
        matrix = SynergyEstimator(
            self,
            behaviors,
            self.make_pool(ids.tolist()),
            self._metric(behaviors),
            self._switches(behaviors),
            estimator=estimator,
            direction=direction,
            batch_size=self.batch_size,
            mean_of=self._mean_of(behaviors),
        ).matrix()
        out = np.empty_like(matrix)
        out[np.ix_(order, order)] = matrix
        return out

    def interpret(
        self, features: Sequence[FeatureId], behaviors: Sequence[Prompt]
    ) -> list[Interpretation]:
        """What each feature does on these prompts; the latest `attribute` stays as it is."""
        prompts = [behaviors] if isinstance(behaviors, Prompt) else behaviors
        metric, mean_of = self._metric(prompts), self._mean_of(prompts)
        entries = self._attribution(prompts, metric, mean_of).entries
        ids = self._globals(features)
        each, back = np.unique(ids, return_inverse=True)
        scores = entries.per_prompt(each, len(prompts)).mean(1)[back]
        return interpret_features(self, entries, ids.tolist(), prompts, scores.tolist())

    def restricted_to(self, circuit: Circuit) -> Any:
        """The model with only the circuit's features: prompt -> `[vocab]` probabilities."""
        pool = self.make_pool(self._globals(circuit.features).tolist())

        def answer(prompt: Prompt) -> NDArray[np.float64]:
            self._check([prompt])
            switches = self._switches([prompt], circuit)
            batch = make_batch([prompt], self.device)
            setup = self.prepare(batch, switches, self._selection(switches))
            with torch.no_grad():
                return _probabilities(self.run(setup, pool, rest="baseline").logits[0, 0])

        return answer

    def evaluate(
        self, circuit: Circuit, test_behaviors: Sequence[Prompt], *, kl_direction: str
    ) -> dict[str, Any]:
        """Everything that is measured of a circuit, see `pie_fast.evaluate`."""
        self._check(test_behaviors)
        switches = self._switches(test_behaviors, circuit)
        return evaluate_circuit(
            self,
            self._globals(circuit.features).tolist(),
            test_behaviors,
            metric=self._metric(test_behaviors),
            switches=switches,
            mean_of=self._selection(switches),
            kl_direction=kl_direction,
        )

    def intervene(
        self,
        prompt: PromptLike,
        interventions: Iterable[Sequence[Any]],
        *,
        attention: str = "recompute",
        activations: str = "recompute",
        norms: str = "recompute",
        logits_at: str = "answer",
    ) -> Intervened:
        """Run a prompt with features set to other activations, see `pie_fast.intervene`."""
        return intervene(
            self,
            prompt,
            interventions,
            attention=attention,
            activations=activations,
            norms=norms,
            logits_at=logits_at,
        )

    def generate(
        self,
        prompt: PromptLike,
        interventions: Iterable[Sequence[Any]],
        *,
        max_new_tokens: int = 20,
        temperature: float = 0.0,
        seed: int = 0,
        stop: int | None = None,
    ) -> Generated:
        """Continue a prompt under interventions and without, see `pie_fast.intervene`."""
        return generate(
            self,
            prompt,
            interventions,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            stop=stop,
        )

    def _globals(self, features: Sequence[FeatureId]) -> NDArray[np.int64]:
        for feature in features:
            self.clt.check_feature(feature.layer, feature.index)
        return np.asarray([f.to_global(self.clt.n_features) for f in features], dtype=np.int64)

    def _patcher(
        self, ids: NDArray[np.int64], behaviors: Sequence[Prompt], direction: str
    ) -> Patcher:
        self._check(behaviors)
        return Patcher(
            self,
            behaviors,
            self.make_pool(ids.tolist()),
            self._metric(behaviors),
            self._switches(behaviors),
            direction=direction,
            batch_size=self.batch_size,
            mean_of=self._mean_of(behaviors),
        )

    def _patch(
        self,
        sets: Sequence[Sequence[FeatureId]],
        behaviors: Sequence[Prompt],
        direction: str,
    ) -> NDArray[np.float64]:
        members = [self._globals(features) for features in sets]
        ids = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *members]))
        places = [np.searchsorted(ids, m).tolist() for m in members]
        effects = self._patcher(ids, behaviors, direction).effects(places)
        means: NDArray[np.float64] = effects.mean(1)
        return means

    def _switches(self, prompts: Sequence[Prompt], circuit: Circuit | None = None) -> Switches:
        chosen = circuit or self.switches
        baseline = chosen.baseline or self.switches.baseline
        if baseline is None:
            paired = all(p.counterfactual is not None for p in prompts)
            baseline = "counterfactual" if paired else "mean"
        return Switches(baseline, chosen.error, chosen.attention, chosen.activations)

    def _attribution(
        self, prompts: Sequence[Prompt], metric: str, mean_of: Sequence[Prompt]
    ) -> _Attribution:
        """The latest one where it is of just this, else a new one, which is not remembered."""
        self._check(prompts)
        switches, kept = self._switches(prompts), tuple(prompts)
        key = kept, metric, switches, self.gradient, tuple(mean_of)
        if self._last is not None and self._last.key == key:
            return self._last
        entries = all_entries(
            self,
            kept,
            metric,
            switches,
            gradient=self.gradient,
            batch_size=self.batch_size,
            mean_of=mean_of,
        )
        return _Attribution(kept, metric, key, entries)

    def _metric(self, prompts: Any) -> str:
        known = "logit-diff" if self._last is None else self._last.metric
        return _metric_of(prompts) or known

    def _mean_of(self, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        return prompts if self._last is None else self._last.prompts

    def _selection(self, switches: Switches) -> Sequence[Prompt]:
        """The prompts of the means, which must not be those that a circuit is judged on."""
        if self._last is None and switches.baseline == "mean":
            raise PieFastError(
                "baseline 'mean' averages over the prompts that selection saw: call "
                "model.attribute(prompts) first"
            )
        return () if self._last is None else self._last.prompts

    def _check(self, prompts: Sequence[Prompt]) -> None:
        if not prompts:
            raise BehaviorError("there are 0 prompts; at least 1 is needed")
        check_prompts(prompts, self.host.vocab_size, self.host.n_ctx)


def load_model(
    model: Any,
    clt: Any,
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    autocast: torch.dtype | None = None,
    tokenizer: Any = None,
    ignore_positions: int | str | None = None,
    lazy_encoder: bool = False,
    hooks: tuple[str, str] | None = None,
) -> ReplacementModel:
    """Put a language model and its CLT together.

    Args:
        model: A local folder or hub id of a HuggingFace checkpoint, a booted TransformerBridge,
            or a HuggingFace model (then with its `tokenizer`), which is wrapped in place.
        clt: A local folder or hub id in one of the formats of `docs/formats.md`, a loaded `Clt`, or
            an object of another library: a circuit-tracer CrossLayerTranscoder or TranscoderSet, or
            SAELens transcoders (one, a list, or a dict by layer).
        device: `auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: Of a checkpoint's model, float32 when None; objects keep theirs. The CLT computes in
            float32 whatever the model does, and MLP outputs are added up in it and cast once.
        autocast: `torch.bfloat16` or `torch.float16`, in which the model's passes are computed
            where torch finds that safe; None: in the dtype of the weights.
        tokenizer: With a HuggingFace model object only.
        ignore_positions: Which first positions have no features: `auto` (also None), the BOS;
            `circuit-tracer`, as it does; or how many. See `pie_fast.positions`.
        lazy_encoder: Read encoders of a `clt` on disk at every use, layer by layer, and hold none
            in memory. Decoders are read by rows unless they are small.
        hooks: What features read and write, where the CLT names other hooks than it was trained
            on; see `pie_fast.measure_reconstruction`.

    Raises:
        CheckpointError: A checkpoint is missing or broken, or the two do not fit each other.
        PieFastError: Unknown device, or `ignore_positions` that there is not.
    """
    where = resolve_device(device)
    check_ignored(ignore_positions)
    place = clt
    if not isinstance(clt, Clt):
        # Before the model: a wrong CLT should not cost the time a model takes to boot.
        if isinstance(clt, str | Path):
            clt = load_clt(clt, device=where, lazy_encoder=lazy_encoder)
        else:
            clt = clt_of(clt, device=where)
    if hooks is not None:
        clt = replace(clt, read_hook=hooks[0], write_hook=hooks[1])
    host = load_host(model, tokenizer, where, dtype or torch.float32)
    host.autocast = autocast
    loaded = ReplacementModel(host, clt, ignore_positions=ignore_positions)
    if isinstance(model, str | Path) and isinstance(place, str | Path):
        loaded.source = ModelSource(
            model=absolute(model),
            clt=absolute(place),
            name=host.name,
            identity=loaded.clt.identity,
            device=where.type,
            dtype=_name(dtype or torch.float32),
            autocast=None if autocast is None else _name(autocast),
            ignore_positions=ignore_positions,
            lazy_encoder=lazy_encoder,
            hooks=hooks,
        )
    return loaded


def _metric_of(prompts: Any) -> str | None:
    """The metric that a collection of prompts brings, None where it brings none."""
    metric = getattr(prompts, "metric", None)
    return None if metric is None else str(metric)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _probabilities(logits: torch.Tensor) -> NDArray[np.float64]:
    probabilities: NDArray[np.float64] = torch.softmax(logits.cpu().double(), -1).numpy()
    return probabilities
