"""The synergies of a dump's pool: measured block by block, saved after each, resumed.

Rows that are done wait in `synergy.partial.safetensors`, one-sided as they were measured; when all
are there they become the symmetric `synergy.safetensors` that selection reads. Blocks begin at
multiples of their size, and one that is not whole is measured anew: rows that run together decide
each other's last bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pie_fast.behaviors import Prompt
from pie_fast.circuit import SWITCHES
from pie_fast.cost import Cost
from pie_fast.crew import Crew, Held, crew_of
from pie_fast.dump import FeatureDump
from pie_fast.errors import PieFastError
from pie_fast.model import MeanOf, Replacer, Switches
from pie_fast.progress import Advance
from pie_fast.seals import check_safetensors
from pie_fast.storage import write_safetensors
from pie_fast.synergy import BLOCK_ROWS, SynergyEstimator, symmetric
from pie_fast.synergy_matrix import SynergyMatrix

SYNERGY_FILE = "synergy.safetensors"


def measure_synergy(
    model: Replacer,
    prompts: Sequence[Prompt],
    dump: FeatureDump,
    pool_size: int,
    *,
    rank_by: str,
    metric: str,
    switches: Switches,
    estimator: str = "gradient-difference",
    direction: str = "noising",
    batch_size: int = 32,
    mean_of: Sequence[Prompt] | None = None,
    progress: Advance | None = None,
    crew: Crew | None = None,
) -> SynergyMatrix:
    """Measure all pair synergies of the best `pool_size` features and save them in the dump.

    Args:
        model: The replacement model the dump was captured from.
        prompts: Over which synergy is averaged.
        dump: Ranks the pool, and takes the result.
        pool_size: M.
        rank_by: How the pool is ranked.
        metric, switches, estimator, direction, batch_size, mean_of: See `SynergyEstimator`.
        progress: Called after each block of rows.
        crew: Workers that hold the model; None: this process.

    Returns:
        The matrix, signed, complete.

    Raises:
        BudgetError: `pool_size` exceeds the active features.
    """
    pool = np.sort(dump.top_k(pool_size, rank_by)[0])
    path = Path(dump.path) / SYNERGY_FILE
    averaged = (mean_of or prompts) if switches.baseline == "mean" else ()
    tag = _tag(dump, [prompts, averaged], pool, metric, switches, estimator, direction)
    rows = _Rows.resume(path.with_name("synergy.partial.safetensors"), pool, tag)
    means = model.mean_activations(averaged) if averaged else ()
    asked = _Asked(
        tag, tuple(prompts), pool, metric, switches, estimator, direction, batch_size, means
    )
    with crew_of(model) if crew is None else nullcontext(crew) as workers:
        _fill(rows, workers, asked, progress)
    matrix = SynergyMatrix.from_dense(
        pool,
        symmetric(rows.values, estimator).astype(np.float32),
        direction=direction,
        estimator=estimator,
        form="signed",
        n_prompts=len(prompts),
    )
    matrix.save(path)
    rows.path.unlink(missing_ok=True)
    return matrix


def measure_dump_synergy(
    model: Replacer,
    dump: FeatureDump,
    pool_size: int,
    *,
    n_prompts: int,
    rank_by: str,
    estimator: str,
    direction: str,
    batch_size: int = 32,
    progress: Advance | None = None,
    crew: Crew | None = None,
) -> SynergyMatrix:
    """`measure_synergy` with prompts, metric and switches as the dump was captured with.

    Raises:
        PieFastError: The dump is of another CLT, or does not say how it was captured.
    """
    for key in ("model", "clt", "metric", *SWITCHES):
        if key not in dump.manifest:
            raise PieFastError(
                f"{dump.path / 'manifest.json'}: {key} is missing; synergy needs a dump that "
                "pie-fast capture made"
            )
    recorded = dump.manifest["clt"]["identity"]
    if recorded != model.clt.identity:
        raise PieFastError(
            f"{dump.path} was captured with CLT {recorded}, {model.clt.name} is "
            f"{model.clt.identity}"
        )
    for key, ours in (
        ("hooks", [model.read_hook, model.write_hook]),
        ("ignore_positions", model.ignore_positions),
    ):
        theirs = dump.manifest.get(key, ours)
        if theirs != ours:
            raise PieFastError(
                f"{dump.path} was captured with {key} {theirs}, the model has {ours}"
            )
    prompts = prompts_of_dump(dump)
    return measure_synergy(
        model,
        prompts[:n_prompts],
        dump,
        pool_size,
        rank_by=rank_by,
        metric=dump.manifest["metric"],
        switches=Switches(**{key: dump.manifest[key] for key in SWITCHES}),
        estimator=estimator,
        direction=direction,
        batch_size=batch_size,
        mean_of=prompts,
        progress=progress,
        crew=crew,
    )


def prompts_of_dump(dump: FeatureDump) -> list[Prompt]:
    """The prompts a dump was captured on."""
    table = dump.prompts
    twins = table.counterfactual_tokens, table.counterfactual_ptr
    prompts = []
    for i in range(dump.n_prompts):
        part = slice(int(table.prompt_ptr[i]), int(table.prompt_ptr[i + 1]))
        twin = None
        if twins[0] is not None and twins[1] is not None:
            twin = tuple(twins[0][int(twins[1][i]) : int(twins[1][i + 1])].tolist())
        prompts.append(
            Prompt(
                tokens=tuple(table.tokens[part].tolist()),
                answer=int(table.answer[i]),
                foil=None if table.foil[i] < 0 else int(table.foil[i]),
                counterfactual=twin,
                answer_position=int(table.answer_position[i]),
            )
        )
    return prompts


@dataclass(frozen=True, eq=False)
class _Asked:
    """What all blocks of rows share: the arguments of a `SynergyEstimator`, in plain values.

    Attributes:
        tag: Equal for equal measurements.
        pool: `[M]` int64 global ids, ascending.
        means: Of `baseline="mean"`.
    """

    tag: str
    prompts: tuple[Prompt, ...]
    pool: NDArray[np.int64]
    metric: str
    switches: Switches
    estimator: str
    direction: str
    batch_size: int
    means: MeanOf

    def prepared(self, model: Replacer) -> SynergyEstimator:
        """An estimator that has run all that rows share."""
        estimator = SynergyEstimator(
            model,
            self.prompts,
            model.make_pool(self.pool.tolist()),
            self.metric,
            self.switches,
            estimator=self.estimator,
            direction=self.direction,
            batch_size=self.batch_size,
            mean_of=self.means,
        )
        estimator.prepare()
        return estimator


def _fill(rows: _Rows, crew: Crew, asked: _Asked, progress: Advance | None) -> None:
    """Measure the blocks of rows that are missing; each is saved when its turn has come."""
    size = len(rows.pool)
    blocks = [range(i, min(i + BLOCK_ROWS, size)) for i in range(0, size, BLOCK_ROWS)]
    missing = [block for block in blocks if not rows.done[block.start : block.stop].all()]
    begun = bool(rows.done.any())
    # Rows of an earlier process are charged here too, so that the cost is that of all of them.
    before = crew.model.spent
    crew.model.spent += rows.spent
    for number, (block, (values, shared)) in enumerate(
        zip(missing, crew.map(_measure, asked, missing), strict=True)
    ):
        if number == 0 and not begun:  # once, however many workers and processes had to run it
            crew.model.spent += shared
        rows.fill(block, values, crew.model.spent - before)
        if progress is not None:
            progress(int(rows.done.sum()), size)


def _measure(held: Held, asked: _Asked, block: range) -> tuple[NDArray[np.float64], Cost]:
    """A block of rows `[len(block), M]`, and the cost of what all blocks share."""
    key = "synergy", asked.tag, asked.batch_size
    estimator, shared = held.keep(key, lambda: asked.prepared(held.model))
    return estimator.rows(block), shared


@dataclass
class _Rows:
    """Rows measured so far, and what they cost, on disk after every block."""

    path: Path
    pool: NDArray[np.int64]
    tag: str
    values: NDArray[np.float64] = field(init=False)
    done: NDArray[np.bool_] = field(init=False)
    spent: Cost = field(init=False)

    def __post_init__(self) -> None:
        self.values = np.zeros((len(self.pool), len(self.pool)))
        self.done = np.zeros(len(self.pool), dtype=bool)
        self.spent = Cost()

    @classmethod
    def resume(cls, path: Path, pool: NDArray[np.int64], tag: str) -> _Rows:
        """What an earlier, equal measurement left; nothing where it was another one."""
        rows = cls(path, pool, tag)
        if not path.exists():
            return rows
        try:
            check_safetensors(path)
            with safe_open(path, framework="numpy") as file:
                if (file.metadata() or {}).get("tag") == tag:
                    rows.values[:] = file.get_tensor("values")
                    rows.done[:] = file.get_tensor("done").astype(bool)
                    rows.spent = Cost(*file.get_tensor("spent").tolist())
        except (SafetensorError, ValueError, TypeError):
            # A partial file that cannot be read is worth less than measuring again.
            return cls(path, pool, tag)
        return rows

    def fill(self, block: Sequence[int], rows: NDArray[np.float64], spent: Cost) -> None:
        self.values[list(block)] = rows
        self.done[list(block)] = True
        tensors: dict[str, NDArray[Any]] = {
            "values": self.values,
            "done": self.done.astype(np.uint8),
            "pool": self.pool,
            "spent": np.array([spent.forward, spent.backward], dtype=np.int64),
        }
        write_safetensors(self.path, tensors, metadata={"tag": self.tag}, seal=True)


def _tag(
    dump: FeatureDump,
    prompts: Sequence[Sequence[Prompt]],
    pool: NDArray[np.int64],
    metric: str,
    switches: Switches,
    estimator: str,
    direction: str,
) -> str:
    """Equal for equal measurements."""
    what = {
        "model": dump.manifest["model"],
        "clt": dump.manifest["clt"],
        "prompts": [
            [[list(p.tokens), p.answer, p.foil, p.counterfactual] for p in some] for some in prompts
        ],
        "pool": pool.tolist(),
        "metric": metric,
        "switches": switches.to_dict(),
        "estimator": estimator,
        "direction": direction,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
