"""What a plan will cost, put together: model calls by stage, disk, memory by part, and time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pie_fast.behaviors import Behavior
from pie_fast.calls import Stage, capture_calls, discover_calls
from pie_fast.capture import split_prompts
from pie_fast.cost import Cost
from pie_fast.estimate import Activity, Memory, Shape, Texts, disk, human, memory, seconds
from pie_fast.plan import Plan


@dataclass(frozen=True)
class Forecast:
    """A plan's costs.

    Attributes:
        stages: Model calls.
        n_prompts: By split.
        n_tokens: By split.
        memory: Peak, by part.
        disk: Bytes of the dump.
        seconds: Of all model calls, at what a pass of all features takes; most of a
            selection's are cheaper. None where nothing was measured.
        activity: Active features, measured or assumed.
    """

    stages: list[Stage]
    n_prompts: dict[str, int]
    n_tokens: dict[str, int]
    memory: Memory
    disk: int
    seconds: float | None
    activity: Activity

    @property
    def total(self) -> Cost:
        """All model calls whose number is known."""
        return sum((stage.cost for stage in self.stages), Cost())

    def fits(self, memory_left: int) -> bool:
        """Whether so many bytes would do, beside what is loaded."""
        return self.memory.total - self.memory.weights - self.memory.encoders <= memory_left

    @property
    def sentence(self) -> str:
        """One line of it."""
        told = f"up to about {self.seconds:.0f} s, " if self.seconds is not None else ""
        return (
            f"{told}at most {self.total.forward} prompts forward and {self.total.backward} "
            f"backward, {human(self.memory.total)} of memory, {human(self.disk)} of disk"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "n_prompts": self.n_prompts,
            "n_tokens": self.n_tokens,
            "stages": [
                {
                    **asdict(stage.cost),
                    "stage": stage.name,
                    "exact": stage.exact,
                    "known": stage.known,
                }
                for stage in self.stages
            ],
            "total": asdict(self.total),
            "disk_bytes": self.disk,
            "memory_bytes": {**vars(self.memory), "total": self.memory.total},
            "seconds": self.seconds,
            "active_features": {
                "per_token_and_layer": self.activity.active,
                "measured": self.activity.tokens > 0,
            },
        }


def forecast(
    plan: Plan,
    behavior: Behavior,
    shape: Shape,
    activity: Activity | None = None,
    *,
    dtype: str = "float32",
    only_capture: bool = False,
) -> Forecast:
    """What a plan will cost.

    Args:
        plan: Every choice.
        behavior: Its prompts.
        shape: Of model and CLT.
        activity: Measured by `pie_fast.probe`; assumed when None.
        dtype: Of the model's weights.
        only_capture: Of the capture alone.

    Raises:
        BehaviorError: There are no selection prompts.
    """
    activity = activity or Activity.assumed(shape.n_layers)
    switches = plan.switches(behavior)
    splits = {"selection": split_prompts(behavior, "selection"), "held_out": behavior.held_out}
    texts = {name: Texts.of(prompts) for name, prompts in splits.items()}
    most = shape.n_layers * shape.n_features
    stages = (
        [capture_calls(plan, behavior)]
        if only_capture
        else discover_calls(plan, behavior, _most_active(activity, texts["selection"], shape, most))
    )
    total = sum((stage.cost for stage in stages), Cost())
    return Forecast(
        stages=stages,
        n_prompts={name: len(prompts) for name, prompts in splits.items()},
        n_tokens={name: found.n_tokens for name, found in texts.items()},
        memory=memory(
            shape,
            activity,
            texts["selection"],
            batch_size=plan.batch_size,
            baseline=switches.baseline,
            keeps_prompts=not only_capture and (plan.keeps_prompts or plan.curve),
            dtype=dtype,
            freeze=switches.attention == "freeze",
        ),
        disk=disk(shape, activity, texts["selection"], switches.baseline),
        seconds=seconds(activity, total.forward, total.backward),
        activity=activity,
    )


def _most_active(activity: Activity, texts: Texts, shape: Shape, most: int) -> int:
    """Features that are active somewhere, for stages that run each of them.

    Twice what was measured leads to: it must not be too few.
    """
    if activity.tokens == 0:
        return most
    return min(int(2 * activity.distinct_on(2 * texts.n_tokens, shape)), most)
