"""What `plan` says, held against what a run counts, writes and refuses."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pie_fast
from pie_fast import estimate
from pie_fast.behaviors import load_behavior
from pie_fast.cli import planning
from pie_fast.cli.common import Loading
from pie_fast.errors import CheckpointError, PieFastError
from pie_fast.estimate import Activity, Memory, Shape, Texts, check_fits, disk, memory
from running import World, contents, run_cli

#: the dump is within this factor of what was told from a probe
DISK_FACTOR = 1.5


def stages_of(world: World, *options: object) -> dict[str, dict[str, Any]]:
    told = run_cli("plan", *world.sources, *options, "--json").json
    return {stage["stage"]: stage for stage in told["stages"]}


@pytest.mark.parametrize(
    ("options", "exact"),
    [
        (["--method", "auto", "--no-curve"], {"capture", "prepare", "grow", "stability"}),
        (["--method", "auto", "--pairs", 4, "--no-curve"], {"capture", "prepare"}),
        (["--method", "fap", "--no-curve", "--missed", 8], {"capture", "ablate", "evaluate"}),
        (["--method", "fap", "--baseline", "mean"], {"capture", "prepare", "ablate", "evaluate"}),
        (["--method", "fap-synergy", "--baseline", "zero", "--no-curve"], {"capture", "ablate"}),
        (["--method", "exact", "--no-curve"], {"capture", "prepare"}),
        (["--method", "fap-ig", "--no-curve"], {"capture", "prepare", "select"}),
        (["--method", "linkl", "--no-curve"], {"capture", "prepare"}),
        (["--method", "auto"], {"capture", "prepare", "ablate", "evaluate"}),
        (["--unit", "node", "--no-curve"], {"capture", "prepare", "grow", "stability"}),
        (["--unit", "node", "--method", "fap"], {"capture", "prepare", "select", "evaluate"}),
        (["--method", "relp"], {"capture", "prepare", "select", "ablate", "evaluate"}),
    ],
    ids=lambda value: "-".join(map(str, value)).replace("--", "") if type(value) is list else "",
)
def test_model_calls_are_those_of_a_run(
    world: World, tmp_path: Path, options: list[object], exact: set[str]
) -> None:
    common = ("-k", 6, *options)
    planned = stages_of(world, *common)
    found = run_cli("discover", *world.sources, *common, "--out", tmp_path / "r", "--json").json
    counted = found["model_calls"]
    total = counted.pop("total")
    counted = {name: calls for name, calls in counted.items() if any(calls.values())}
    assert set(counted) <= set(planned)
    assert {name for name, stage in planned.items() if stage["exact"]} >= exact
    for name, calls in counted.items():
        told = {key: planned[name][key] for key in calls}
        if planned[name]["exact"]:
            assert calls == told, name
        else:
            assert all(calls[key] <= told[key] for key in calls), (name, calls, told)
    assert total == {
        key: sum(calls[key] for calls in counted.values()) for key in ("forward", "backward")
    }, "no model call is outside the stages"


@pytest.mark.parametrize("baseline", ["counterfactual", "zero", "mean"])
def test_disk_is_that_of_a_capture(world: World, tmp_path: Path, baseline: str) -> None:
    options = (*world.sources, "--baseline", baseline)
    told = run_cli("plan", *options, "-k", 5, "--probe", "--json").json
    assert run_cli("capture", *options, "--out", tmp_path / "dump").code == 0
    took = sum(len(content) for content in contents(tmp_path / "dump").values())
    headers = 2000  # of a manifest and two files: nothing beside real dumps
    assert told["disk_bytes"] / DISK_FACTOR <= took <= DISK_FACTOR * told["disk_bytes"] + headers
    assert told["active_features"]["measured"] is True
    assert told["seconds"] > 0


def test_plan_reads_no_weight(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in world.model.iterdir():
        content = file.read_bytes()
        if file.suffix == ".safetensors":
            content = content[: 8 + int.from_bytes(content[:8], "little")]
        (folder / file.name).write_bytes(content)
    sources = ("--model", folder, "--clt", world.clt, "--behavior", world.behavior)
    told = run_cli("plan", *sources, "-k", 5, "--json").json
    whole = run_cli("plan", *world.sources, "-k", 5, "--json").json
    assert told == whole
    assert told["n_prompts"] == {"selection": 8, "held_out": 4}
    assert told["seconds"] is None and told["active_features"]["measured"] is False
    assert told["memory_bytes"]["weights"] > 4 * 60 * 32


def test_plan_for_people(world: World) -> None:
    said = run_cli("plan", *world.sources, "-k", 5, "--missed", 8)
    assert said.code == 0 and said.stderr == ""
    words = " ".join(said.stdout.split())
    for part in ("capture", "just", "at most", "missed mass", "8 selection prompts", "of disk"):
        assert part in words or part == "of disk", part
    assert "assumed" in words and "time: not known without --probe" in words
    said = run_cli("plan", *world.sources, "-k", "auto", "--probe")
    words = " ".join(said.stdout.split())
    assert "measured" in words and "time: up to about" in words and "budget" in words


def test_tokens_are_those_of_the_model_itself() -> None:
    model, clt = pie_fast.demo_model_path(), pie_fast.demo_clt_path()
    without = planning._behavior_only(str(model), "ioi", 12, 0)
    loaded = pie_fast.load_model(model, clt, device="cpu")
    assert without == load_behavior("ioi", tokenizer=loaded.host.tokenizer, n_prompts=12)
    from pie_fast.probe import shape_of

    read, seen = planning._shape(Loading(str(model), str(clt), "cpu")), shape_of(loaded)
    assert vars(read) | {"n_parameters": 0} == vars(seen) | {"n_parameters": 0}
    assert read.n_parameters == pytest.approx(seen.n_parameters, rel=0.25), (
        "the bridge keeps queries, keys and values once more"
    )


def test_the_limits_are_those_of_the_transcoder() -> None:
    from pie_fast import estimate
    from pie_fast.clt import assembling, decoder, encoder, loading

    assert estimate.HOLD_BYTES == loading.HOLD_BYTES
    assert estimate.ROW_BYTES == assembling.CACHE_BYTES + decoder.CHUNK_BYTES
    assert estimate.DENSE_BLOCK == encoder.BLOCK


def test_what_does_not_fit_is_refused_before_it_begins(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (("capture",), ("discover", "-k", 5, "--no-curve")):
        given = (*command, *world.sources, "--out", tmp_path / command[0])
        with monkeypatch.context() as patch:
            patch.setattr("pie_fast.probe.memory_left", lambda: 300_000)
            run_cli(*given).refused("memory are needed", "300.0 kB are left", "--ignore-estimate")
            patch.setattr("pie_fast.probe.memory_left", lambda: 10)
            run_cli(*given).refused("weights", "encoders", "10 B are left")
            assert not (tmp_path / command[0]).exists()
            assert run_cli(*given, "--ignore-estimate").code == 0
        with monkeypatch.context() as patch:
            patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
            run_cli(*given, "--force").refused("the dump takes", "100 B are left on the disk")


def test_who_watches_is_told(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("capture", *world.sources, "--out", tmp_path / "dump")
    monkeypatch.setattr("pie_fast.cli.speech.watched", lambda: True)
    said = run_cli(*given).stderr
    assert "note: up to about" in said and "prompts forward" in said and "of disk" in said


def test_a_probe_is_not_counted(world: World, tmp_path: Path) -> None:
    given = ("discover", *world.sources, "-k", 4, "--method", "fap", "--no-curve", "--json")
    with_it = run_cli(*given, "--out", tmp_path / "a").json["model_calls"]
    assert with_it["capture"] == {"forward": 8 * 4, "backward": 8}


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors", "W_enc_0.safetensors"])
def test_shapes_that_cannot_be_read(world: World, tmp_path: Path, broken: str) -> None:
    import shutil

    model = Path(shutil.copytree(world.model, tmp_path / "model"))
    clt = Path(shutil.copytree(world.clt, tmp_path / "clt"))
    file = (clt if broken.startswith("W") else model) / broken
    file.write_bytes(b"\xff" * 20)
    given = ("--model", model, "--clt", clt, "--behavior", world.behavior, "-k", 3)
    run_cli("plan", *given).refused(file)
    file.unlink()
    with pytest.raises(CheckpointError, match=broken.split(".")[0]):
        planning._shape(Loading(str(model), str(clt), "cpu"))
        raise CheckpointError(broken)  # weights elsewhere are none here


def test_what_is_not_here_is_read_with_a_probe(world: World) -> None:
    given = ("--model", "org/name", "--clt", world.clt, "--behavior", world.behavior, "-k", 3)
    run_cli("plan", *given).refused("org/name", "--probe")


def test_estimates_grow_as_they_should() -> None:
    gemma = Shape(26, 2304, 8, 256_000, 2_600_000_000, 16_384, 26 * 27 // 2)
    sparse = Activity(active=50, entries=70, distinct=26 * 2000, tokens=40, exponent=0.6)

    def needs(n: int, length: int, **options: Any) -> Memory:
        how = {"batch_size": 32, "baseline": "zero", "keeps_prompts": False, **options}
        return memory(gemma, sparse, Texts((length,) * n), **how)

    assert needs(4096, 20) == needs(32, 20), "a capture streams"
    kept = [needs(n, 20, keeps_prompts=True).prepared for n in (256, 4096)]
    assert kept[1] == pytest.approx(16 * kept[0]), "a selection keeps its prompts"
    assert kept[1] > 100e9
    half = needs(32, 20, dtype="bfloat16")
    assert 2 * half.weights == needs(32, 20).weights == 4 * gemma.n_parameters
    short, long = (needs(1, n, batch_size=1).batch for n in (1000, 2000))
    assert long < 3.2 * short
    frozen = needs(1, 2000, batch_size=1, freeze=True).batch
    assert frozen - long == pytest.approx(26 * 4 * 8 * 2000**2)
    sizes = [disk(gemma, sparse, Texts((20,) * n), "zero") for n in (10, 20)]
    assert sizes[1] == 2 * sizes[0]


def test_refusals_say_numbers() -> None:
    needed = Memory(weights=10**9, encoders=0, decoders=2 * 10**9, prepared=0, batch=500)
    with pytest.raises(PieFastError, match=r"3\.0 GB .*weights 1\.0 GB, decoders 2\.0 GB, batch"):
        check_fits(needed, 10**9, 0, 0)
    with pytest.raises(PieFastError, match=r"takes about 5\.0 MB, 1\.0 MB are left"):
        check_fits(needed, 10**10, 5 * 10**6, 10**6)
    check_fits(needed, 10**10, 5, 5)
    assert [estimate.human(n) for n in (0, 999, 1500, 2.5e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 TB",
    ]


def test_memory_left_is_of_this_machine() -> None:
    pages = Path("/proc/meminfo")
    left = estimate.memory_left()
    if pages.exists():
        whole = int(pages.read_text().split()[1]) * 1024
        assert 0 < left <= whole
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0


def test_dtype_and_autocast_are_recorded(world: World, tmp_path: Path) -> None:
    given = ("capture", *world.sources, "--dtype", "bfloat16", "--out", tmp_path / "half")
    assert run_cli(*given).code == 0
    manifest = json.loads((tmp_path / "half" / "manifest.json").read_text())
    assert manifest["dtypes"]["model"] == "bfloat16" and manifest["dtypes"]["autocast"] is None
    run_cli(*given[:-4], "--out", tmp_path / "half", "--resume").refused("dtypes")
    given = ("discover", *world.sources, "-k", 5, "--method", "fap", "--no-curve", "--json")
    plain = run_cli(*given, "--out", tmp_path / "a").json
    cast = run_cli(*given, "--out", tmp_path / "b", "--autocast", "bfloat16").json
    assert plain["settings"]["dtypes"] == {"model": "float32", "autocast": None}
    assert cast["settings"]["dtypes"] == {"model": "float32", "autocast": "bfloat16"}
    ours, theirs = (run["evaluation"]["metric_model"] for run in (plain, cast))
    assert ours != theirs and theirs == pytest.approx(ours, abs=0.2)
    run_cli(*given, "--out", tmp_path / "c", "--dtype", "int8").refused("int8", "bfloat16")


def test_no_selection_prompts(world: World, tmp_path: Path) -> None:
    behavior = tmp_path / "b.jsonl"
    behavior.write_text('{"tokens": [0, 5, 6], "answer_id": 3, "split": "held_out"}\n')
    given = ("plan", *world.model_and_clt, "--behavior", behavior, "-k", 3)
    run_cli(*given).refused("no selection prompts")
    run_cli(*given, "--probe").refused("no selection prompts")
