from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import MANIFEST, cut, make_entries, make_prompts, small_dump, write_dump

from pie_fast import DumpError, open_dump
from pie_fast.dump import DumpWriter
from pie_fast.errors import OutputExistsError, PieFastError


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    columns = make_entries(np.random.default_rng(1), 300)
    dump = open_dump(write_dump(tmp_path / "d", columns))
    assert (dump.n_layers, dump.n_features, dump.n_prompts) == (3, 40, 300)
    assert dump.n_active == len(columns["feature"])
    assert dump.complete
    for name, values in zip(dump.entries(0, 300)._fields, dump.entries(0, 300), strict=True):
        np.testing.assert_array_equal(values, columns[name])
    part = cut(columns, 250, 290)
    for name, values in zip(part, dump.entries(250, 40), strict=True):
        np.testing.assert_array_equal(values, part[name])
    assert dump.prompts.difference(make_prompts(300)) is None


@pytest.mark.parametrize(("dtype", "bits"), [("F16", 11), ("BF16", 8), ("F32", 24)])
def test_activations_are_rounded_once(tmp_path: Path, dtype: Any, bits: int) -> None:
    columns = make_entries(np.random.default_rng(2), 10)
    dump = open_dump(write_dump(tmp_path / "d", columns, activation_dtype=dtype))
    read, given = dump.entries(0, 10).activation, columns["activation"]
    assert dump.manifest["dtypes"]["activation"] == dtype
    assert np.all(np.abs(read - given) <= np.maximum(np.abs(given), 2.0**-14) * 2.0**-bits)


def test_long_prompts_have_wide_positions(tmp_path: Path) -> None:
    prompts = make_prompts(2, length=70_000)
    with DumpWriter(tmp_path / "d", prompts=prompts, manifest=MANIFEST) as writer:
        writer.append([0, 1, 2], [5, 5], [69_999, 3], [1.0, 2.0], [1.0, 2.0])
    assert open_dump(tmp_path / "d").entries(0, 2).position.tolist() == [69_999, 3]


def test_shards_are_cut_at_multiples_of_256(tmp_path: Path) -> None:
    columns = make_entries(np.random.default_rng(3), 1100)
    path = write_dump(tmp_path / "d", columns, batch=100, shard_bytes=1)
    shards = json.loads((path / "manifest.json").read_text())["shards"]
    assert [shard["first_prompt"] for shard in shards] == [0, 256, 512, 768, 1024]
    whole = write_dump(tmp_path / "e", columns, batch=1100, shard_bytes=1 << 30)
    assert len(json.loads((whole / "manifest.json").read_text())["shards"]) == 1
    assert open_dump(path).score().tobytes() == open_dump(whole).score().tobytes()


def test_batches_change_no_byte(tmp_path: Path) -> None:
    columns = make_entries(np.random.default_rng(3), 700)
    paths = [
        write_dump(tmp_path / str(batch), columns, batch=batch, shard_bytes=1)
        for batch in (1, 99, 256, 700)
    ]
    files = [{f.name: f.read_bytes() for f in path.iterdir()} for path in paths]
    assert len(files[0]) == 5
    assert all(other == files[0] for other in files[1:])


def test_zero_prompts_and_zero_entries(tmp_path: Path) -> None:
    empty = open_dump(small_dump(tmp_path / "none", n=0))
    assert (empty.n_prompts, empty.n_active) == (0, 0)
    assert not empty.score().any()
    assert empty.active_features().tolist() == []
    silent = make_entries(np.random.default_rng(0), 5, density=0.0)
    dump = open_dump(write_dump(tmp_path / "silent", silent))
    assert (dump.n_prompts, dump.n_active) == (5, 0)
    assert not dump.score("magnitude").any()
    assert dump.top_k(0)[0].tolist() == []
    with pytest.raises(ValueError, match="budget 1 exceeds the 0 active features"):
        dump.top_k(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature": [4, 3]}, r"\(3, 1\) of prompt 0 follows \(4, 0\)"),
        ({"position": [1, 1], "feature": [3, 3]}, "must ascend, none twice"),
        ({"feature": [3, 120]}, r"feature 120 is outside \[0, 120\)"),
        ({"feature": [-1, 3]}, r"feature has -1, outside \[0, 4294967295\]"),
        ({"feature": [0.5, 3.0]}, "feature has dtype float64"),
        ({"position": [0, 9]}, "position 9 of feature 4 in prompt 0: is beyond the prompt"),
        ({"activation": [1.0, np.nan]}, "activation nan of feature 4 in prompt 0"),
        ({"attribution": [np.inf, 1.0]}, "attribution inf of feature 3 in prompt 0"),
        ({"activation": [1.0]}, r"activation has shape \(1,\), must be \(2,\)"),
        ({"prompt_ptr": [0, 1]}, "prompt_ptr must rise from 0 to the 2 entries"),
        ({"prompt_ptr": [0, 3, 2]}, "prompt_ptr must rise"),
        ({"prompt_ptr": [0, 0, 0, 2]}, "prompts up to 3 were appended"),
    ],
)
def test_wrong_entries_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "prompt_ptr": [0, 2],
        "feature": [3, 4],
        "position": [0, 1],
        "activation": [1.0, 2.0],
        "attribution": [1.0, 2.0],
    }
    writer = DumpWriter(tmp_path / "d", prompts=make_prompts(2), manifest=MANIFEST)
    with pytest.raises(PieFastError, match=message):
        writer.append(**{**good, **change})
    assert writer.n_appended == 0
    writer.append(**good)
    writer.append(**good)
    writer.close()
    assert open_dump(tmp_path / "d").n_active == 4


def test_f16_overflow_is_refused(tmp_path: Path) -> None:
    writer = DumpWriter(
        tmp_path / "d", prompts=make_prompts(1), manifest=MANIFEST, activation_dtype="F16"
    )
    with pytest.raises(PieFastError, match="must be finite, as F16 too"):
        writer.append([0, 1], [0], [0], [70_000.0], [0.0])


def test_attributions_for_all_or_none(tmp_path: Path) -> None:
    columns = make_entries(np.random.default_rng(4), 4)
    writer = DumpWriter(tmp_path / "d", prompts=make_prompts(4), manifest=MANIFEST)
    writer.append(**{**cut(columns, 0, 2), "attribution": None})
    with pytest.raises(PieFastError, match="for some prompts and not for others"):
        writer.append(**cut(columns, 2, 4))


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    path = small_dump(tmp_path / "d")
    before = {f.name: f.read_bytes() for f in path.iterdir()}
    with pytest.raises(OutputExistsError, match="use --force to replace it"):
        small_dump(path, n=3)
    assert {f.name: f.read_bytes() for f in path.iterdir()} == before


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_no_dump_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError):
        small_dump(tmp_path / "d", force=force)
    assert (tmp_path / "d" / "thesis.tex").read_text() == "years of work"


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert open_dump(small_dump(tmp_path / "d")).n_prompts == 20


def test_force_replaces_only_when_complete(tmp_path: Path) -> None:
    path = small_dump(tmp_path / "d", n=20)
    with (
        pytest.raises(RuntimeError),
        DumpWriter(path, prompts=make_prompts(3), manifest=MANIFEST, force=True),
    ):
        raise RuntimeError
    assert open_dump(path).n_prompts == 20
    small_dump(path, n=3, force=True)
    assert open_dump(path).n_prompts == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]


def test_close_needs_every_prompt(tmp_path: Path) -> None:
    columns = make_entries(np.random.default_rng(5), 400)
    writer = DumpWriter(tmp_path / "d", prompts=make_prompts(400), manifest=MANIFEST, shard_bytes=1)
    writer.append(**cut(columns, 0, 300))
    with pytest.raises(PieFastError, match="300 of 400 prompts were appended"):
        writer.close()
    dump = open_dump(tmp_path / "d")
    assert (dump.n_prompts, dump.complete) == (256, False)
    assert dump.prompts.n_prompts == 256


def test_an_interrupted_dump_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    columns = make_entries(np.random.default_rng(6), 700)
    once = write_dump(tmp_path / "once", columns, shard_bytes=1)
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "twice", columns, 600)
    assert open_dump(tmp_path / "twice").n_prompts == 512
    write_dump(tmp_path / "twice", columns, shard_bytes=1, resume=True)
    for file in once.iterdir():
        assert (tmp_path / "twice" / file.name).read_bytes() == file.read_bytes()


def interrupted(path: Path, columns: dict[str, Any], stop: int, **options: Any) -> None:
    prompts = make_prompts(len(columns["prompt_ptr"]) - 1)
    with DumpWriter(path, prompts=prompts, manifest=MANIFEST, shard_bytes=1, **options) as writer:
        writer.append(**cut(columns, 0, stop))
        raise KeyboardInterrupt


def test_a_forced_capture_resumes_too(tmp_path: Path) -> None:
    columns = make_entries(np.random.default_rng(6), 700)
    path = small_dump(tmp_path / "d", n=5)
    with pytest.raises(KeyboardInterrupt):
        interrupted(path, columns, 600, force=True)
    assert open_dump(path).n_prompts == 5
    writer = DumpWriter(path, prompts=make_prompts(700), manifest=MANIFEST, force=True, resume=True)
    assert writer.next_prompt == 512
    writer.append(**cut(columns, 512, 700))
    writer.close()
    assert open_dump(path).n_prompts == 700


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"model": {"name": "tiny", "hash": "z"}}, "model"),
        ({"clt": {"name": "other"}}, "clt"),
        ({"behavior": {"name": "ioi", "hash": "z"}}, "behavior"),
        ({"metric": "kl"}, "metric"),
        ({"baseline": "mean"}, "baseline"),
        ({"threshold": 0.1}, "threshold"),
        ({"n_features": 41}, "n_features"),
    ],
)
def test_another_capture_does_not_resume(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    path = small_dump(tmp_path / "d")
    with pytest.raises(DumpError, match=rf"manifest.json: {key}: "):
        small_dump(path, resume=True, manifest=change)


def test_other_prompts_or_dtypes_do_not_resume(tmp_path: Path) -> None:
    path = small_dump(tmp_path / "d")
    with pytest.raises(DumpError, match="dtypes"):
        small_dump(path, resume=True, activation_dtype="F16")
    with pytest.raises(DumpError, match=r"prompts\.safetensors: tokens"):
        DumpWriter(path, prompts=make_prompts(20, seed=9), manifest=MANIFEST, resume=True)


def test_resuming_nothing_begins_and_resuming_a_whole_dump_is_done(tmp_path: Path) -> None:
    path = small_dump(tmp_path / "d", resume=True)
    before = {f.name: f.read_bytes() for f in path.iterdir()}
    small_dump(path, resume=True)
    assert {f.name: f.read_bytes() for f in path.iterdir()} == before


@pytest.mark.parametrize("fails_at", range(1, 11))
def test_a_full_disk_leaves_a_valid_dump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Whichever fsync meets the full disk, what is there opens, and resuming ends whole."""
    columns = make_entries(np.random.default_rng(7), 1000)
    whole = write_dump(tmp_path / "whole", columns, shard_bytes=1)
    calls = 0

    def fsync(_descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "d"
    with monkeypatch.context() as patch:
        patch.setattr("pie_fast.storage.sync_folder", lambda _folder: None)
        patch.setattr("os.fsync", fsync)
        try:
            write_dump(path, columns, shard_bytes=1)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            failed = True
        else:
            failed = False
    assert failed
    assert not list(path.glob(".*.tmp"))
    if (path / "manifest.json").exists():
        assert open_dump(path).n_prompts % 256 == 0
        open_dump(path).score()
    write_dump(path, columns, shard_bytes=1, resume=True)
    assert {f.name: f.read_bytes() for f in path.iterdir()} == {
        f.name: f.read_bytes() for f in whole.iterdir()
    }


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"n_layers": 0}, "n_layers is 0"),
        ({"n_features": None}, "n_features is None"),
        ({"n_layers": 1 << 20, "n_features": 1 << 20}, r"exceeds 2\*\*32"),
        ({"shards": []}, "shards is filled in by the writer"),
        ({"n_prompts": 7}, "n_prompts is filled in by the writer"),
        ({"threshold": float("nan")}, "manifest: "),
        ({"model": object()}, "manifest: "),
    ],
)
def test_wrong_manifests_are_refused(
    tmp_path: Path, manifest: dict[str, Any], message: str
) -> None:
    with pytest.raises(PieFastError, match=message):
        small_dump(tmp_path / "d", manifest=manifest)
    assert not (tmp_path / "d").exists()


def test_a_write_that_fails_half_way(tmp_path: Path) -> None:
    """A process that may write no more than 400 kB a file: the third shard is too large."""
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from making import make_entries, cut, write_dump
rng = np.random.default_rng(0)
small, large = make_entries(rng, 512, density=0.01), make_entries(rng, 256, density=0.2)
both = {k: np.concatenate([small[k], large[k]]) for k in small if k != "prompt_ptr"}
both["prompt_ptr"] = np.concatenate(
    [small["prompt_ptr"], large["prompt_ptr"][1:] + small["prompt_ptr"][-1]]
)
if sys.argv[3] == "limited":
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
write_dump(sys.argv[2], both, shard_bytes=1, resume=True)
"""
    path = tmp_path / "d"
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(path)]
    limited = subprocess.run([*command, "limited"], capture_output=True, text=True, check=False)
    assert limited.returncode == 1
    assert "File too large" in limited.stderr
    dump = open_dump(path)
    dump.verify()
    assert (dump.n_prompts, dump.complete) == (512, False)
    assert not list(path.glob(".*.tmp"))
    subprocess.run([*command, "free"], check=True)
    assert open_dump(path).n_prompts == 768
    open_dump(path).verify()


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    """Also of one that was killed before its first manifest."""
    prompts = make_prompts(2, 5)
    for n, name in enumerate((".prompts.safetensors.12.tmp", ".manifest.json.34.tmp")):
        (tmp_path / "dump").mkdir(exist_ok=True)
        (tmp_path / "dump" / name).write_bytes(b"half")
        DumpWriter(tmp_path / "dump", prompts=prompts, manifest=MANIFEST, resume=True)
        left = sorted(path.name for path in (tmp_path / "dump").iterdir())
        assert left == ["manifest.json", "prompts.safetensors"], n


def test_prompts_that_wait_are_not_looked_at_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache of a few bytes may tell of millions of empty prompts: no time in their square."""
    seen: list[int] = []
    joined = np.concatenate

    def counted(parts: Any, *args: Any, **options: Any) -> Any:
        seen.append(len(parts))
        return joined(parts, *args, **options)

    n, each = 300, 256
    none = [np.zeros(0, dtype) for dtype in (np.uint32, np.uint16, np.float32)]
    with DumpWriter(tmp_path / "dump", prompts=make_prompts(n * each), manifest=MANIFEST) as writer:
        monkeypatch.setattr(np, "concatenate", counted)
        for _ in range(n):
            writer.append(np.zeros(each + 1, np.int64), *none)
        monkeypatch.undo()
    assert sum(seen) <= 3 * n
    assert open_dump(tmp_path / "dump").n_prompts == n * each
