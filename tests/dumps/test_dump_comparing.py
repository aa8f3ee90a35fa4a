"""Two dumps of the same prompts: what only one has, and how far apart the rest is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import MANIFEST, N_FEATURES, cut, make_entries, make_prompts

from pie_fast.dump import DumpWriter, FeatureDump, open_dump
from pie_fast.dump_comparing import LISTED, compare_dumps
from pie_fast.errors import DumpError
from running import run_cli

#: more than a block of the comparison, and than a shard
N_PROMPTS = 300

CAPTURE = """
import sys
from pie_fast.behaviors import load_behavior
from pie_fast.capture import capture
from pie_fast.data import demo_clt_path, demo_model_path
from pie_fast.replacement_model import load_model
model = load_model(demo_model_path(), demo_clt_path(), device="cpu")
capture(model, load_behavior("ioi", tokenizer=model.host.tokenizer, n_prompts=32), sys.argv[1])
"""

#: of the libraries that multiply matrices: no vector instructions, as on another kind of processor
PLAIN = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}


def written(path: Path, columns: dict[str, Any], n: int = N_PROMPTS, **of: Any) -> FeatureDump:
    with DumpWriter(path, prompts=make_prompts(n), manifest={**MANIFEST, **of}) as writer:
        writer.append(**cut(columns, 0, n))
    return open_dump(path)


@pytest.fixture(scope="module")
def columns() -> dict[str, Any]:
    return make_entries(np.random.default_rng(0), N_PROMPTS)


def without(columns: dict[str, Any], gone: int) -> dict[str, Any]:
    """All entries but one."""
    ptr = columns["prompt_ptr"]
    rest = {k: np.delete(v, gone) for k, v in columns.items() if k != "prompt_ptr"}
    return {"prompt_ptr": ptr - (ptr > gone), **rest}


def test_a_dump_agrees_with_itself(columns: dict[str, Any], tmp_path: Path) -> None:
    dump = written(tmp_path / "dump", columns)
    found = compare_dumps(dump, dump)
    assert found.agrees and found.lone == () and found.n_lone == 0
    assert found.n_shared == found.n_first == found.n_second == dump.n_active > 0
    assert found.activation.difference == found.attribution.difference == 0
    assert found.activation.largest == columns["activation"].max()
    assert found.metric.largest > 0


@pytest.mark.parametrize("gone", [0, 4000, -1])
def test_entries_of_one_dump_only_are_named(
    columns: dict[str, Any], tmp_path: Path, gone: int
) -> None:
    gone %= len(columns["feature"])
    both = (
        written(tmp_path / "whole", columns),
        written(tmp_path / "less", without(columns, gone)),
    )
    for where, (first, second) in enumerate((both, both[::-1]), 1):
        found = compare_dumps(first, second)
        (lone,) = found.lone
        assert lone.where == where
        assert lone.prompt == np.searchsorted(columns["prompt_ptr"], gone, "right") - 1
        assert lone.feature == columns["feature"][gone]
        assert lone.name == f"L{lone.feature // N_FEATURES}:{lone.feature % N_FEATURES}"
        assert lone.position == columns["position"][gone]
        assert lone.activation == columns["activation"][gone]
        assert found.n_shared == len(columns["feature"]) - 1
        assert found.agrees, "one in 16,000"


@pytest.mark.parametrize(("name", "share"), [("activation", 9e-5), ("attribution", 2e-4)])
def test_the_largest_difference_decides(
    columns: dict[str, Any], tmp_path: Path, name: str, share: float
) -> None:
    changed = columns | {name: columns[name].copy()}
    largest = float(np.abs(columns[name]).max())
    changed[name][4000] += np.float32(share * largest)
    found = compare_dumps(
        written(tmp_path / "first", columns), written(tmp_path / "second", changed)
    )
    assert getattr(found, name).share == pytest.approx(share, rel=1e-2)
    assert found.agrees == (share < 1e-4)
    told = found.to_dict()
    assert told["agrees"] == found.agrees
    assert told[name]["share"] == getattr(found, name).share


def test_many_lone_entries_are_counted_and_the_strongest_listed(tmp_path: Path) -> None:
    ours, theirs = (make_entries(np.random.default_rng(seed), N_PROMPTS) for seed in (1, 2))
    found = compare_dumps(written(tmp_path / "first", ours), written(tmp_path / "second", theirs))
    assert not found.agrees and found.n_lone > LISTED == len(found.lone)
    sizes = [abs(one.activation) for one in found.lone]
    assert sizes == sorted(sizes, reverse=True)
    assert {one.where for one in found.lone} == {1, 2}


def test_dumps_of_other_prompts_or_dictionaries_are_refused(
    columns: dict[str, Any], tmp_path: Path
) -> None:
    dump = written(tmp_path / "dump", columns)
    for name, other in (
        ("n_prompts", written(tmp_path / "short", columns, 290)),
        ("n_features", written(tmp_path / "wide", columns, n_features=N_FEATURES + 1)),
    ):
        with pytest.raises(DumpError, match=f"{name} is .*, of .* it is"):
            compare_dumps(dump, other)
    moved = make_prompts(N_PROMPTS, seed=5)
    with DumpWriter(tmp_path / "moved", prompts=moved, manifest=MANIFEST) as writer:
        writer.append(**columns)
    with pytest.raises(DumpError, match="prompts are not those of"):
        compare_dumps(dump, open_dump(tmp_path / "moved"))


def test_the_command_tells_it(columns: dict[str, Any], tmp_path: Path) -> None:
    whole, less = tmp_path / "whole", tmp_path / "less"
    written(whole, columns)
    written(less, without(columns, 7))
    told = run_cli("compare", whole, less, "--json").json
    assert (told["agrees"], told["n_lone"], len(told["lone"])) == (True, 1, 1)
    said = run_cli("compare", whole, less).stdout
    assert "they agree" in said and "only in 1: prompt 0, L" in said
    run_cli("compare", whole, tmp_path).refused("manifest.json")


def test_another_kind_of_processor_agrees(tmp_path: Path) -> None:
    """The libraries told to use no vector instructions add in another order."""
    subprocess.run(
        [sys.executable, "-c", CAPTURE, tmp_path / "plain"], env=os.environ | PLAIN, check=True
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["capture", str(tmp_path / "ours")])
        exec(CAPTURE)
    found = compare_dumps(*(open_dump(tmp_path / name) for name in ("ours", "plain")))
    assert found.agrees, found.to_dict()
    assert found.n_shared > 1000
