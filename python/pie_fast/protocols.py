"""What a model, a feature and a behaviour must offer; everything here works on any such object.

Three protocols are enough for every drop-in function. They are structural: no base class, no
registration, no torch. A whole toy:

>>> import math
>>> from dataclasses import dataclass
>>> import numpy as np
>>> import pie_fast
>>>
>>> @dataclass(frozen=True, order=True)
... class Feature:                                    # FeatureLike
...     name: str
...     weight: float
...     @property
...     def gradient(self): return np.array([self.weight])
...     @property
...     def value(self): return np.array([1.0])
>>>
>>> class Model:                                      # ModelLike
...     def __init__(self, features): self.clt_features = features
...     def metric(self, kept, prompt):               # "a" and "b" count only together
...         names = {f.name for f in kept}
...         return sum(f.weight for f in kept) + 2.0 * ({"a", "b"} <= names)
...     def __call__(self, prompt):                   # probabilities of two answers
...         p = 1 / (1 + math.exp(-self.metric(self.clt_features, prompt)))
...         return np.array([p, 1 - p])
...     def importance(self, features, behaviors):    # noising: m(all) - m(all without them)
...         rest = [f for f in self.clt_features if f not in features]
...         drops = [self.metric(self.clt_features, p) - self.metric(rest, p) for p in behaviors]
...         return sum(drops) / len(drops)
>>>
>>> @dataclass
... class Behavior:                                   # BehaviorLike
...     behaviors: list
...     test_set: list
>>>
>>> model = Model([Feature("a", 0.5), Feature("b", 0.4), Feature("c", 0.45), Feature("d", 0.1)])
>>> result = pie_fast.pie_circuit_discovery(model, Behavior(["x", "y"], ["z"]), 2)
>>> sorted(feature.name for feature in result["features"])
['a', 'c']
>>> a, b = model.clt_features[:2]
>>> pie_fast.compute_synergy(a, b, ["x"], model, direction="denoising")
2.0

Optional methods make a model faster or let it do a stage its own way; each is one small
``Supports...`` protocol below, found by its name:

====================  ==========================================================================
method                what it replaces
====================  ==========================================================================
``importances``       one :meth:`ModelLike.importance` per feature
``joint_importances`` one :meth:`ModelLike.importance` per pair
``directions``        (attribute) deriving denoising from noising
``attribute``         asking the caller to run a backward before features are scored
``attributed``        reading ``gradient`` and ``value`` off the features themselves
``fap_scores``        the same for many features at once, without making the arrays
``pool``              ranking every active feature
``synergies``         all pair synergies of a pool, also by estimators other than the exact one
``interpret``         the plain one-line interpretation
``restricted_to``     copying the model with fewer ``clt_features``
``evaluate``          the comparison of a circuit with the model, prompt by prompt
====================  ==========================================================================

In all of them "behaviors" are prompts: whatever ``BehaviorLike.behaviors`` holds, handed on as
it is when it is a sized collection. Patching by single prompts hands over one-item lists.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from numpy.typing import ArrayLike

from pie_fast.circuit import Circuit
from pie_fast.interpretation import Interpretation

#: a feature: hashable and orderable; a :class:`FeatureLike`, or something that a model's
#: ``attributed`` turns into one
Feature: TypeAlias = Any


@runtime_checkable
class FeatureLike(Protocol):
    """A feature after a backward: hashable, orderable, with a gradient and a value.

    Orderable means ``sorted(features)`` works; the order decides ties (the smaller wins), so
    give an order that does not change between runs. Two features are the same when they are
    equal and have the same hash. (In a dataclass, give fields that hold arrays
    ``field(compare=False)``: arrays neither hash nor compare to one truth value.)
    """

    @property
    def gradient(self) -> Any:
        """d metric / d value, of any shape: positions, or prompts and positions.

        The metric is the *mean* over the prompts, so that ``(gradient * value).sum()`` is the
        mean effect and on one scale with :meth:`ModelLike.importance`. With two or more axes,
        and as many rows on the first as there are prompts, each row is one prompt's share:
        its sum times the number of prompts is the effect on that prompt. Anything else is one
        effect, for which ``rank_by="mean_abs"`` and ``"abs"`` are the same.
        """

    @property
    def value(self) -> Any:
        """Activation minus baseline, of the gradient's shape.

        A feature whose value is zero everywhere is not active, and is never selected.
        """

    def __hash__(self) -> int: ...

    def __lt__(self, other: Any, /) -> bool: ...


@runtime_checkable
class ModelLike(Protocol):
    """A model whose features can be counted, patched and compared."""

    @property
    def clt_features(self) -> Iterable[Feature]:
        """Every feature; those that are not active are skipped."""

    def __call__(self, context: Any, /) -> Any:
        """The model's answer to one prompt.

        Returns:
            An array ``[n_answers]`` of probabilities (or ``[..., n_answers]``, over whose
            leading axes divergences are averaged): finite, not negative, each row of sum 1
            within 1e-3. A model that answers in logits is read with ``outputs="logits"``.
        """

    def importance(self, features: Collection[Feature], behaviors: Any, /) -> float:
        """Activation patching: m(all) - m(all without ``features``), the mean over prompts.

        Signed: positive when the features support the behaviour. The synergy of a pair is
        defined per prompt and averaged afterwards; as a mean of signed effects is linear, one
        call on all prompts gives the same, and that is what is done. Absolute values, where
        ``rank_by="mean_abs"`` asks for them, are taken over one-prompt calls.

        Args:
            features: A set of features, of one where a single feature is measured.
            behaviors: Prompts, at least one.
        """


@runtime_checkable
class BehaviorLike(Protocol):
    """A behaviour: prompts to select by, and others to report on."""

    @property
    def behaviors(self) -> Any:
        """The prompts that pruning, reranking and interpretation may look at."""

    @property
    def test_set(self) -> Any:
        """The prompts that only evaluation may look at; read once, after everything else."""


class Ranking(NamedTuple):
    """Active features by rank, best first, ties to the smaller feature."""

    features: Sequence[Feature]
    scores: Sequence[float]
    n_active: int


@runtime_checkable
class SupportsImportances(Protocol):
    """Patches many features in one go."""

    def importances(self, features: Sequence[Feature], behaviors: Any, /) -> ArrayLike:
        """``[n_features]``: :meth:`ModelLike.importance` of each feature, in order."""


@runtime_checkable
class SupportsJointImportances(Protocol):
    """Patches many pairs in one go."""

    def joint_importances(
        self, pairs: Sequence[tuple[Feature, Feature]], behaviors: Any, /
    ) -> ArrayLike:
        """``[n_pairs]``: :meth:`ModelLike.importance` of each pair, in order."""


@runtime_checkable
class SupportsDirections(Protocol):
    """Measures denoising itself.

    Without this attribute, or where it does not name ``"denoising"``, ``importance`` is
    noising, and denoising is derived from it: with I the noising importance, m(only S) -
    m(none) = I(all) - I(all without S).
    """

    @property
    def directions(self) -> Collection[str]:
        """What ``importance``, ``importances``, ``joint_importances`` take as ``direction=``.

        The keyword is only passed for a direction that is named here and is not the default,
        ``"noising"``.
        """


@runtime_checkable
class SupportsAttribute(Protocol):
    """Runs forward and backward itself."""

    def attribute(self, behaviors: Any, /) -> Any:
        """From now on gradients and values are those on these prompts; the result is ignored."""


@runtime_checkable
class SupportsAttributed(Protocol):
    """Keeps the gradients itself, for features that are mere names."""

    def attributed(self, feature: Feature, /) -> FeatureLike:
        """The feature with ``gradient`` and ``value`` of the latest backward."""


@runtime_checkable
class SupportsFapScores(Protocol):
    """Attributes many features in one go."""

    def fap_scores(self, features: Sequence[Feature], behaviors: Any, /) -> ArrayLike:
        """``[n_features, n_prompts]``: signed first-order effect of each on each prompt."""


@runtime_checkable
class SupportsPool(Protocol):
    """Ranks its active features itself."""

    def pool(
        self, behaviors: Any, size: int, /, *, importance: str, rank_by: str, direction: str
    ) -> Ranking:
        """The best ``size`` active features (fewer where fewer are active)."""


@runtime_checkable
class SupportsSynergies(Protocol):
    """Measures all pairs of a pool itself."""

    def synergies(
        self, features: Sequence[Feature], behaviors: Any, /, *, direction: str, estimator: str
    ) -> ArrayLike:
        """``[n, n]`` symmetric: signed pair synergies, mean over prompts; diagonal ignored."""


@runtime_checkable
class SupportsInterpret(Protocol):
    """Interprets features itself."""

    def interpret(self, features: Sequence[Feature], behaviors: Any, /) -> Sequence[Interpretation]:
        """One interpretation per feature, in order."""


@runtime_checkable
class SupportsRestriction(Protocol):
    """Applies a circuit itself."""

    def restricted_to(self, circuit: Circuit, /) -> Any:
        """A callable like the model in which only the circuit's features are kept.

        Without this method the model is copied (shallowly) and the copy's ``clt_features``
        replaced; a model whose answers do not follow from its ``clt_features`` is refused.
        """


@runtime_checkable
class SupportsEvaluate(Protocol):
    """Compares a circuit with itself, all prompts at once."""

    def evaluate(
        self, circuit: Circuit, test_behaviors: Any, /, *, kl_direction: str
    ) -> Mapping[str, Any]:
        """At least the keys that :func:`pie_fast.evaluate_interpretation` promises."""
