"""What fits its format and not what it is used with: other dumps, other lengths, other files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dumps.making import edit_manifest, small_dump
from pie_fast.constrained import Constraints, select_constrained
from pie_fast.decoder import decoder_rows, redundancy
from pie_fast.dump import FeatureDump
from pie_fast.errors import DumpError, PieFastError
from pie_fast.selectors import Options, select_features
from pie_fast.synergy_matrix import SynergyMatrix
from pie_fast.synergy_stats import top_synergies

WHAT: dict[str, Any] = {
    "direction": "noising",
    "estimator": "exact",
    "form": "signed",
    "n_prompts": 4,
}
BY_SYNERGY = Options(method="fap-synergy")


def test_pairs_that_are_not_known_yet_are_no_zeros(tmp_path: Path) -> None:
    dump = FeatureDump(small_dump(tmp_path / "dump"))
    matrix = SynergyMatrix(dump.active_features()[:5], **WHAT)
    matrix.fill_row(int(matrix.pool[0]), np.zeros(5))
    with pytest.raises(PieFastError, match="is not known, 1 of 5 rows are done"):
        select_features(dump, 2, BY_SYNERGY, matrix)


def test_synergies_of_another_dump(tmp_path: Path) -> None:
    dump = FeatureDump(small_dump(tmp_path / "dump"))
    matrix = SynergyMatrix([4_000_000_000, 4_000_000_001], **WHAT)
    matrix.fill_row(4_000_000_000, np.zeros(2))
    with pytest.raises(PieFastError, match="of another dump: their pool has feature 4000000001"):
        select_features(dump, 1, BY_SYNERGY, matrix)
    with pytest.raises(PieFastError, match="of another dump: their pool has feature 4000000001"):
        select_constrained(dump, 1, BY_SYNERGY, matrix, Constraints(swaps=1))
    dump = FeatureDump(small_dump(tmp_path / "short", 1))
    inactive = np.setdiff1d(np.arange(dump.n_layers * dump.n_features), dump.active_features())
    nowhere = SynergyMatrix(inactive[:2], **WHAT)
    nowhere.fill_row(int(inactive[0]), np.zeros(2))
    with pytest.raises(PieFastError, match="none of the 2 features of the pool is active in"):
        select_features(dump, 1, BY_SYNERGY, nowhere)


@pytest.mark.parametrize("per_row", [3, 4, 10**8, 1 << 59, 1 << 62])
def test_more_of_a_row_than_it_has(per_row: int) -> None:
    joint = np.arange(1.0, 7.0)
    indptr, indices, values = top_synergies(joint, np.zeros(4), per_row)
    assert indptr.tolist() == [0, 3, 6, 9, 12]
    assert values.tolist() == [1, 2, 3, 1, 4, 5, 2, 4, 6, 3, 5, 6]
    assert indices.tolist() == [1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folder = small_dump(tmp_path / "dump")
    (folder / "prompts.safetensors").unlink()
    os.mkfifo(folder / "prompts.safetensors")
    os.mkfifo(folder / "synergy.safetensors")
    with pytest.raises(DumpError, match=r"prompts\.safetensors: is not a regular file"):
        len(FeatureDump(folder).prompts.tokens)
    with pytest.raises(DumpError, match=r"synergy\.safetensors: is not a regular file"):
        SynergyMatrix.load(folder / "synergy.safetensors")


@pytest.mark.parametrize("planned", ["abc", -5, 2.5, True])
def test_a_plan_that_is_no_number_of_prompts(tmp_path: Path, planned: object) -> None:
    folder = small_dump(tmp_path / "dump")
    edit_manifest(folder, n_prompts_planned=planned)
    with pytest.raises(DumpError, match=rf"manifest.json: n_prompts_planned is {planned!r}, must"):
        FeatureDump(folder)


def test_ids_that_the_clt_does_not_have(tmp_path: Path) -> None:
    shape = {"n_layers": 3, "n_features": 40}
    with pytest.raises(PieFastError, match=r"ids has 120, must be in \[0, 120\)"):
        redundancy(tmp_path, [1, 120], **shape)
    with pytest.raises(PieFastError, match="ids has 9223372036854775808, must be less than 2"):
        redundancy(tmp_path, np.array([1 << 63], np.uint64), **shape)
    with pytest.raises(PieFastError, match="n_features is 0, must be at least 1"):
        redundancy(tmp_path, [1], n_layers=3, n_features=0)


def test_ids_are_not_cut_to_whole_numbers(tmp_path: Path) -> None:
    matrix = SynergyMatrix([7, 9], **WHAT)
    for call in (
        lambda: matrix.fill_pairs([[7.5, 9.2]], [0.3]),
        lambda: matrix.for_pool([9.7, 7.1]),
        lambda: SynergyMatrix([1.5, 2.7], **WHAT),
        lambda: decoder_rows(tmp_path / "none", "W", [1.5]),
    ):
        with pytest.raises(TypeError, match="has dtype float64, must be whole numbers"):
            call()
