"""`pie-fast convert SRC DST`: what is written is what was read, in every format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from pie_fast.clt import Clt, load_clt
from pie_fast.clt.writing import write_circuit_tracer
from pie_fast.errors import CheckpointError, OutputExistsError, PieFastError
from plain_transcoders import CASES, F, plain_layers, write_set
from running import run_cli


def same(one: Clt, other: Clt) -> None:
    every = torch.arange(F)
    assert (one.read_hook, one.write_hook) == (other.read_hook, other.write_hook)
    assert torch.equal(one.b_dec, other.b_dec)
    assert one.skips.keys() == other.skips.keys()
    for layer in one.covered:
        ours, theirs = one.encoder(layer), other.encoder(layer)
        assert torch.equal(ours.weight(), theirs.weight())
        assert torch.equal(ours.bias, theirs.bias)
        assert type(ours.activation) is type(theirs.activation)
        x = torch.randn(5, tiny.D_MODEL, generator=torch.Generator().manual_seed(layer))
        assert torch.equal(ours.encode(x).at(every), theirs.encode(x).at(every))
        assert one.targets(layer) == other.targets(layer)
        assert torch.equal(one.rows(layer, every), other.rows(layer, every))
        if layer in one.skips:
            assert torch.equal(one.skips[layer], other.skips[layer])


@pytest.mark.parametrize("case", CASES)
def test_written_and_read_again(case: str, tmp_path: Path) -> None:
    write, _ = CASES[case]
    source = write(tmp_path / "source")
    said = run_cli("convert", source, tmp_path / "made", "--json").json
    assert (said["n_layers"], said["n_features"]) == (tiny.N_LAYERS, F)
    same(load_clt(source), load_clt(tmp_path / "made"))
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("jump", [False, True])
def test_a_clt_keeps_its_bytes(jump: bool, tmp_path: Path) -> None:
    source = tiny.write_clt(tmp_path / "source", jump=jump)
    made = write_circuit_tracer(load_clt(source), tmp_path / "made")
    same(load_clt(source), load_clt(made))
    half = write_circuit_tracer(load_clt(source), tmp_path / "half", dtype="BF16")
    rows = load_clt(source).rows(0, torch.arange(F)).bfloat16().float()
    assert torch.equal(load_clt(half).rows(0, torch.arange(F)), rows)


def test_a_conversion_that_was_stopped_goes_on(tmp_path: Path) -> None:
    clt, made = load_clt(write_set(tmp_path / "source", plain_layers())), tmp_path / "made"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_circuit_tracer(clt, made, progress=stop)
    assert not made.exists()
    first = tmp_path / "made.partial" / "layer_0.safetensors"
    before = first.stat().st_mtime_ns
    with pytest.raises(OutputExistsError, match="another conversion"):
        write_circuit_tracer(clt, made, dtype="BF16")
    write_circuit_tracer(clt, made)
    same(clt, load_clt(made))
    assert (made / "layer_0.safetensors").stat().st_mtime_ns == before


def test_what_the_layout_cannot_say_is_refused(tmp_path: Path) -> None:
    clt = load_clt(write_set(tmp_path / "source", plain_layers()))
    there = tmp_path / "there"
    there.mkdir()
    with pytest.raises(OutputExistsError, match="--force"):
        write_circuit_tracer(clt, there)
    with pytest.raises(OutputExistsError, match="not replaced"):
        write_circuit_tracer(clt, there, force=True)
    with pytest.raises(PieFastError, match="dtype is 'F8'"):
        write_circuit_tracer(clt, tmp_path / "made", dtype="F8")
    with pytest.raises(CheckpointError, match=r"layers \[0, 1, 2\] of 5"):
        write_circuit_tracer(clt.for_layers(5), tmp_path / "made")
    run_cli("convert", tmp_path / "nowhere", tmp_path / "made").refused("no such folder")


def test_what_is_no_transcoder_alone_is_never_replaced(tmp_path: Path) -> None:
    clt = load_clt(write_set(tmp_path / "source", plain_layers()))
    project = tmp_path / "project"
    project.mkdir()
    (project / "config.yaml").write_text("lr: 1")
    (project / "thesis.txt").write_text("years")
    outer = write_circuit_tracer(clt, tmp_path / "outer")
    write_set(outer / "raw", plain_layers())
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "source", target_is_directory=True)
    for target in (project, outer, link):
        with pytest.raises(OutputExistsError, match="not replaced"):
            write_circuit_tracer(clt, target, force=True)
    assert (project / "thesis.txt").read_text() == "years"


def test_leftovers_of_a_conversion_that_was_stopped(tmp_path: Path) -> None:
    clt = load_clt(write_set(tmp_path / "source", plain_layers()))
    made = write_circuit_tracer(clt, tmp_path / "made")
    (tmp_path / "made.replaced").mkdir()
    (tmp_path / "made.replaced" / "layer_0.safetensors").write_bytes(b"old")
    same(clt, load_clt(write_circuit_tracer(clt, made, force=True)))
    assert not (tmp_path / "made.replaced").exists()
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "converting.json").write_text("{")
    with pytest.raises(OutputExistsError, match="remove it to begin anew"):
        write_circuit_tracer(clt, tmp_path / "new")


def test_a_folder_is_replaced_by_force(tmp_path: Path) -> None:
    clt = load_clt(write_set(tmp_path / "source", plain_layers()))
    made = write_circuit_tracer(clt, tmp_path / "made")
    (made / "layer_1.safetensors").unlink()
    same(clt, load_clt(write_circuit_tracer(clt, made, force=True)))
