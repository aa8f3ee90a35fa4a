"""A folder that `discover` made: its result, and what it ran on, loaded again.

Reading the result needs no torch; `load` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pie_fast.behaviors import Behavior, load_behavior
from pie_fast.errors import PieFastError
from pie_fast.journal import spent_by
from pie_fast.outputs import RESULT
from pie_fast.seals import unsealed
from pie_fast.types import FeatureId
from pie_fast.untrusted import load_json, shown

if TYPE_CHECKING:
    from pie_fast.replacement_model import ReplacementModel

#: longer interpretations, where `interpret` was run
INTERPRETATION = "interpretation.json"

#: of a model's weights
DTYPES = ("float32", "bfloat16", "float16")

_NEEDED = {
    "model": str,
    "clt": str,
    "behavior": str,
    "behavior_seed": int,
    "behavior_hash": str,
    "n_selection": int,
    "n_held_out": int,
    "metric": str,
    "hooks": list,
}


#: what else a result's fields are, where they are there
_OBJECTS = ("settings", "evaluation", "ablation")
_LISTS = ("features", "interpretations")


@dataclass(frozen=True)
class DiscoveredRun:
    """A folder that `discover` made.

    Attributes:
        folder: The run.
    """

    folder: Path

    @property
    def file(self) -> Path:
        """Its result."""
        return self.folder / RESULT

    @cached_property
    def result(self) -> Mapping[str, Any]:
        """What the result holds, with `timings` and `model_calls` of the journal.

        Raises:
            PieFastError: There is none, it is no JSON object, or a field of it is of another
                type.
            JournalError: The journal is broken.
        """
        try:
            found = _object(self.file)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise PieFastError(f"{self.folder} is not a run: it has no {RESULT}") from error
        for name in (*_OBJECTS, *_LISTS):
            if found.get(name) is not None:
                _check(self.file, name, found[name])
        return {**spent_by(self.folder, "discover"), **found}

    @cached_property
    def told(self) -> Mapping[str, Any]:
        """The result with the interpretations of `interpretation.json`, where there is one.

        Raises:
            PieFastError: As `result`, of either file.
        """
        more = self.folder / INTERPRETATION
        if not more.exists():
            return self.result
        found: Any = _object(more).get("interpretations")
        _check(more, "interpretations", found)
        known = self.result.get("interpretations") or []
        return {**self.result, "interpretations": [*known, *found]}  # the last one counts

    @cached_property
    def settings(self) -> dict[str, Any]:
        """How the run was made.

        Raises:
            PieFastError: There is no result, or it lacks a setting.
        """
        settings: Any = self.result.get("settings")
        _check(self.file, "settings", settings)
        for name, kind in _NEEDED.items():
            if not isinstance(settings.get(name), kind):
                raise PieFastError(
                    f"{self.file}: settings.{name} is {shown(settings.get(name))}, "
                    f"must be of type {kind.__name__}"
                )
        hooks, dtypes = settings["hooks"], settings.get("dtypes", {"model": "float32"})
        if len(hooks) != 2 or not all(isinstance(hook, str) for hook in hooks):
            raise PieFastError(f"{self.file}: settings.hooks is {shown(hooks)}, must be two names")
        if not isinstance(dtypes, dict) or dtypes.get("model") not in DTYPES:
            raise PieFastError(
                f"{self.file}: settings.dtypes is {shown(dtypes)}, its model must be one of "
                f"{', '.join(DTYPES)}"
            )
        return {**settings, "dtypes": dtypes}

    @cached_property
    def features(self) -> tuple[list[FeatureId], list[float]]:
        """The features interpreted by the run, and their signed FAP scores.

        Raises:
            PieFastError: The result has none, or one that is broken.
        """
        rows = self.result.get("interpretations")
        if not isinstance(rows, list) or not rows:
            raise PieFastError(f"{self.file}: has no list 'interpretations'")
        features, scores = [], []
        for number, row in enumerate(rows):
            try:
                features.append(FeatureId(int(row["layer"]), int(row["index"])))
                scores.append(float(row["fap_score"]))
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise PieFastError(
                    f"{self.file}: interpretations[{number}] needs layer, index and fap_score: "
                    f"{error!r}"
                ) from error
        return features, scores

    def load(self, model: str | None, clt: str | None, device: str) -> ReplacementModel:
        """The model and the CLT, as they were loaded for the run.

        Args:
            model, clt: Instead of those that the run names.
            device: Where the model runs.
        """
        import torch

        from pie_fast.replacement_model import load_model

        return load_model(
            model or self._place("model"),
            clt or self._place("clt"),
            device=device,
            dtype=getattr(torch, self.settings["dtypes"]["model"]),
            ignore_positions=self.settings.get("ignore_positions", "auto"),
            hooks=tuple(self.settings["hooks"]),
        )

    def behavior(self, name: str | None, loaded: ReplacementModel) -> Behavior:
        """The run's behaviour, or another one of the same size.

        Raises:
            PieFastError: The run's own is not what it was.
            BehaviorError: One that is unknown, or that the model cannot read.
        """
        settings = self.settings
        found = load_behavior(
            name or self._place("behavior"),
            tokenizer=loaded.host.tokenizer,
            seed=settings["behavior_seed"],
            n_selection=settings["n_selection"],
            n_held_out=settings["n_held_out"],
        )
        if name is None:
            found = replace(found, name=settings["behavior"])  # it may be found at another place
        if name is None and found.hash != settings["behavior_hash"]:
            raise PieFastError(
                f"behaviour {found.name} is not the one of {self.file}: its hash is "
                f"{found.hash[:12]}, the run's {settings['behavior_hash'][:12]}; name it by "
                "--behavior to use it all the same"
            )
        found.check_fits(loaded.host.vocab_size, loaded.host.n_ctx)
        return found

    def _place(self, name: str) -> str:
        """A name, or where the file or folder of that name was when the run was made."""
        places = self.settings.get("places")
        found = places.get(name) if isinstance(places, dict) else None
        here = isinstance(found, str) and Path(found).exists()
        return str(found if here else self.settings[name])


def _check(path: Path, name: str, value: Any) -> None:
    """Whether a field is an object, or a list of objects."""
    objects = [value] if name in _OBJECTS else value
    if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
        kind = "an object" if name in _OBJECTS else "a list of objects"
        raise PieFastError(f"{path}: {name} is {shown(value)}, must be {kind}")


def _object(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        content = load_json(data)
    except ValueError as error:
        raise PieFastError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise PieFastError(f"{path}: holds a {type(content).__name__}, must be an object")
    return unsealed(path, data, content)
