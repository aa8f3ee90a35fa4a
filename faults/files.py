"""Files damaged between two steps, and what the next step makes of them, in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import typer
from damage import DAMAGES
from tally import CLEAR, OTHER, SURVIVED, WRONG, Fault
from typer.main import get_command
from world import POOL, World

from pie_fast.behaviors import Behavior, load_behavior
from pie_fast.checkpoints import Checkpoints
from pie_fast.cli import app
from pie_fast.discovered_run import DiscoveredRun
from pie_fast.dump import open_dump
from pie_fast.errors import PieFastError
from pie_fast.journal import Journal
from pie_fast.llm.answers import Explanation
from pie_fast.llm.cache import AnswerCache
from pie_fast.replacement_model import load_model
from pie_fast.report import write_report
from pie_fast.run_files import JOURNAL
from pie_fast.seals import write_sealed
from pie_fast.synergy_matrix import SynergyMatrix
from pie_fast.synergy_pool import measure_dump_synergy

#: reads what the step before left, in a folder like the world's, and gives the answer as bytes
Step = Callable[[Path], bytes]


@dataclass(frozen=True)
class Case:
    """A kind of file and the step that reads it.

    Attributes:
        kind: As the table names it.
        files: Those that are damaged, from the world's folder.
        step: What reads them.
        valid: A person wrote them: damage that leaves them valid and says something else is
            another input.
        optional: Without them the answer is a smaller one, and that of a run that never had them.
    """

    kind: str
    files: tuple[str, ...]
    step: Step
    valid: bool = False
    optional: bool = False


def file_faults(world: World, n: int, rng: Random) -> Iterator[Fault]:
    """About `n` faults, shared out over the kinds of files."""
    cases = _cases(world)
    place = world.folder.with_name("struck")
    for case in cases:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(world.folder, place)
        expected = case.step(place)
        for number in range(-(-n // len(cases))):
            shutil.rmtree(place)
            shutil.copytree(world.folder, place)
            damage = DAMAGES[number % len(DAMAGES)]
            file = place / rng.choice(case.files)
            others = [one for one in file.parent.iterdir() if one.is_file() and one != file]
            how = f"{file.name}: {damage(file, rng.choice(others or [file]), rng)}"
            yield Fault(case.kind, how, *_judge(case, place, file, expected))


def _judge(case: Case, place: Path, file: Path, expected: bytes) -> tuple[str, str]:
    try:
        found = case.step(place)
    except (PieFastError, OSError) as error:
        names = (file.name, file.stem, str(file.parent))
        if any(name in str(error) for name in names):
            return CLEAR, str(error)[:200]
        return WRONG, f"an error that names no file: {type(error).__name__}: {error}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return WRONG, f"{type(error).__name__}: {error}"
    if found == expected:
        return SURVIVED, ""
    if case.valid:
        return OTHER, "valid, and says something else"
    if case.optional and not file.exists():
        return OTHER, "a run that never had it"
    return WRONG, "another answer"


def _cases(world: World) -> tuple[Case, ...]:
    shards = tuple(f"dump/{file.name}" for file in sorted(world.dump.glob("shard-*")))
    _more_files(world)
    tensors = tuple(f"clt/{file.name}" for file in sorted((world.folder / "clt").iterdir()))
    answers = tuple(f"answers/{file.name}" for file in (world.folder / "answers").iterdir())
    return (
        Case("dump: shard", shards, _read_dump),
        Case("dump: manifest.json", ("dump/manifest.json",), _read_dump),
        Case("dump: prompts", ("dump/prompts.safetensors",), _prompts),
        Case("synergy", ("dump/synergy.safetensors",), _synergy),
        Case("partial synergy", ("partial/synergy.partial.safetensors",), _go_on),
        Case("result.json", ("run/result.json",), _result),
        Case("interpretation.json", ("run/interpretation.json",), _result, optional=True),
        Case("CLT, before synergies", tensors, _go_on),
        Case("behaviour, of a run", ("few.jsonl",), _behavior_of_run),
        Case("answer of a language model", answers, _answer),
        Case("saved stage", ("saved/stages/ablate.json",), _stage),
        Case("journal", ("run/journal.jsonl",), _journal, optional=True),
        Case("behaviour, first read", ("few.jsonl",), _behavior, valid=True),
        Case("run.toml", ("run/run.toml",), _toml, valid=True),
    )


def _more_files(world: World) -> None:
    """Files of the kinds that no command of the world leaves."""
    folder = world.folder
    rows = DiscoveredRun(world.run).result["interpretations"]
    write_sealed(world.run / "interpretation.json", {"interpretations": rows})
    shutil.copytree(world.dump, folder / "partial")
    (folder / "partial/synergy.safetensors").unlink()

    def stop(*_: int) -> None:
        raise _StoppedError

    with suppress(_StoppedError):
        _measure(folder, stop)
    shutil.copy(world.run / JOURNAL, folder / "journal.whole")
    (folder / "saved").mkdir()
    _saved(folder).save("ablate", _STAGE)
    cache = AnswerCache(folder / "answers", print)
    cache.write(_QUESTION, _ANSWER.model_dump_json(), {})


class _StoppedError(Exception):
    """In the middle of a measurement."""


_STAGE = {"mean_effect": [0.25, -1.5], "n_prompts": 8}
_QUESTION = {"model": "none", "messages": [{"role": "user", "content": "what fires here?"}]}
_ANSWER = Explanation(label="months", reason="it fires on names of months")


def _measure(place: Path, progress: Callable[[int, int], None] | None = None) -> None:
    model = load_model(str(place / "model"), str(place / "clt"), device="cpu")
    measure_dump_synergy(
        model,
        open_dump(place / "partial"),
        POOL,
        n_prompts=8,
        rank_by="mean_abs",
        estimator="gradient-difference",
        direction="noising",
        progress=progress,
    )


def _read_dump(place: Path) -> bytes:
    dump = open_dump(place / "dump")
    ids, scores = dump.top_k(20)
    parts = [ids, scores, dump.score("max"), *dump.entries(0, dump.n_prompts)]
    told = json.dumps(dump.manifest, sort_keys=True).encode()
    return told + b"".join(np.asarray(part).tobytes() for part in parts)


def _prompts(place: Path) -> bytes:
    table = open_dump(place / "dump").prompts
    return b"".join(v.tobytes() for v in vars(table).values() if v is not None)


def _synergy(place: Path) -> bytes:
    matrix = SynergyMatrix.load(place / "dump/synergy.safetensors")
    told = f"{matrix.direction} {matrix.estimator} {matrix.form} {matrix.n_prompts}"
    return told.encode() + matrix.pool.tobytes() + np.asarray(matrix.values).tobytes()


def _go_on(place: Path) -> bytes:
    _measure(place)
    return (place / "partial/synergy.safetensors").read_bytes()


def _result(place: Path) -> bytes:
    run = DiscoveredRun(place / "run")
    told = json.dumps([run.told, run.settings, run.features[1]], sort_keys=True, default=str)
    return told.encode() + write_report(run.folder, place / "report.html").read_bytes()


def _behavior_of_run(place: Path) -> bytes:
    # The run names the folder where it was made: it is read with the behaviour of this one.
    settings = DiscoveredRun(place / "run").settings
    found = replace(_load(place, settings), name=settings["behavior"])
    if found.hash != settings["behavior_hash"]:
        raise PieFastError(f"{place / 'few.jsonl'}: its hash is not the run's")
    return repr(found).encode()


def _load(place: Path, settings: Mapping[str, Any]) -> Behavior:
    sizes = {name: settings[name] for name in ("n_selection", "n_held_out")}
    return load_behavior(place / "few.jsonl", seed=settings["behavior_seed"], **sizes)


def _behavior(place: Path) -> bytes:
    return repr(_load(place, {"behavior_seed": 0, "n_selection": 8, "n_held_out": 4})).encode()


def _toml(place: Path) -> bytes:
    command = get_command(app).commands["discover"]  # type: ignore[attr-defined]
    given = ["--config", str(place / "run/run.toml"), "--out", "run"]
    try:
        context = command.make_context("discover", given)
    except (
        typer.BadParameter
    ) as error:  # a file that was cut off after a whole line is a shorter one
        return error.format_message().encode()
    with context:
        return repr(sorted(context.params.items(), key=str)).encode()


def _answer(place: Path) -> bytes:
    found = AnswerCache(place / "answers", lambda _: None).read(_QUESTION, Explanation)
    return (found or _ANSWER).model_dump_json().encode()  # without an answer it is asked again


def _saved(place: Path) -> Checkpoints:
    return Checkpoints(Journal(place / "saved"), of={"budget": 6})


def _stage(place: Path) -> bytes:
    found = _saved(place).read("ablate")
    return json.dumps(found[0] if found else _STAGE).encode()  # without it the stage runs again


def _journal(place: Path) -> bytes:
    events = Journal(place / "run").events()
    whole = (place / "journal.whole").read_text().splitlines()
    # Of a shorter one the stages that it does not know of run again.
    known = [json.loads(line) for line in whole[: len(events)]]
    return str(events == [{k: v for k, v in one.items() if k != "crc"} for one in known]).encode()
