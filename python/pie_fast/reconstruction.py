"""Does the CLT fit the tensors that it is hooked to? Its reconstruction error on some prompts.

A hook's name does not settle which tensor a CLT was trained on: GPT-2's `ln2.hook_normalized` is
before the gain of the norm in TransformerLens and after it for some trainers. The error settles it.
As a fraction of the variance it is small where features read and write what they were trained on;
where it is not, every other tensor that they could read and write is tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from pie_fast.behaviors import Prompt, check_prompts
from pie_fast.errors import BehaviorError
from pie_fast.model import Replacer, Switches, make_batch, other_sites

#: unexplained variance from which on other hooks are tried, and from which on the CLT does not fit
LOOK, BAD = 0.25, 0.9

#: other hooks that leave at most this share of it unexplained are taken to be the right ones
BETTER = 0.8

#: prompts that commands measure it on
LOOKED_AT = 8


@dataclass(frozen=True)
class Reconstruction:
    """What a CLT misses of the MLP outputs.

    Attributes:
        read_hook, write_hook: As the CLT names them.
        unexplained: Fraction of the variance of the MLP outputs that it misses, the median of the
            layers; 0 is a perfect CLT, 1 is one that writes the mean.
        by_layer: The same of each layer.
        n_prompts: That it was measured on.
        others: With other hooks, (read, write, unexplained), the best first; empty where the
            CLT's own leave less than `LOOK`.
    """

    read_hook: str
    write_hook: str
    unexplained: float
    by_layer: tuple[float, ...]
    n_prompts: int
    others: tuple[tuple[str, str, float], ...] = ()

    @property
    def warning(self) -> str | None:
        """What to tell a user, None where the CLT does well."""
        better = bool(self.others) and self.others[0][2] <= BETTER * self.unexplained
        if self.unexplained < BAD and not better:
            return None
        said = (
            f"the CLT reads {self.read_hook} and writes {self.write_hook}, and leaves "
            f"{self.unexplained:.0%} of the variance there unexplained (median of "
            f"{len(self.by_layer)} layers, {self.n_prompts} prompts)"
        )
        if better and self.others[0][2] < BAD:
            tried = ", ".join(f"{r} -> {w} {value:.0%}" for r, w, value in self.others[:3])
            return f"{said}; it was probably trained on other hooks: {tried}"
        return f"{said}; no other hooks do better: is it the CLT of this model?"

    def to_dict(self) -> dict[str, object]:
        """For results."""
        return {
            "read_hook": self.read_hook,
            "write_hook": self.write_hook,
            "unexplained": self.unexplained,
            "by_layer": list(self.by_layer),
            "n_prompts": self.n_prompts,
            "others": [
                {"read_hook": r, "write_hook": w, "unexplained": value}
                for r, w, value in self.others
            ],
        }


def measure_reconstruction(model: Replacer, prompts: Sequence[Prompt]) -> Reconstruction:
    """Measure what the CLT misses, and where that is much, what it would miss at other hooks.

    Runs all prompts as one batch: once, and up to five times more where the CLT misses much. A few
    prompts are enough.

    Args:
        model: The replacement model.
        prompts: One batch of them.

    Raises:
        BehaviorError: There are no prompts, or the model cannot read one.
    """
    if not prompts:
        raise BehaviorError("there are 0 prompts; at least 1 is needed")
    check_prompts(prompts, model.host.vocab_size, model.host.n_ctx)
    clt = model.clt
    by_layer = _unexplained(model, prompts)
    found = float(np.median(by_layer))
    others = []
    if found >= LOOK:
        known = model.host.block_points
        for read, write in other_sites(clt.read_hook, clt.write_hook, known):
            moved = replace(clt, read_hook=read, write_hook=write)
            hooked = Replacer(model.host, moved, ignore_positions=model.ignore_positions)
            others.append((read, write, float(np.median(_unexplained(hooked, prompts)))))
    others.sort(key=lambda other: other[2])
    return Reconstruction(
        clt.read_hook, clt.write_hook, found, by_layer, len(prompts), tuple(others)
    )


def _unexplained(model: Replacer, prompts: Sequence[Prompt]) -> tuple[float, ...]:
    """Of each layer, over the positions that have features; 0 where nothing varies."""
    setup = model.prepare(make_batch(prompts, model.device), Switches("zero"))
    found = []
    for layer in model.clt.covered:
        kept, missed = setup.mlp_out[layer][setup.counted].float(), setup.error[layer]
        spread = (kept - kept.mean(0)).square().sum()
        missing = missed[setup.counted].square().sum()
        found.append(torch.where(spread > 0, missing / spread, 0.0))
    return tuple(torch.stack(found).tolist())
