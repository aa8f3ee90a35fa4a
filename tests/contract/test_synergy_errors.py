"""What a synergy matrix and its file refuse, and with which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pie_fast import DumpError, PieFastError, SynergyMatrix, top_synergies
from pie_fast.storage import write_safetensors

TEXTS = {"direction": "noising", "estimator": "exact", "form": "signed", "n_prompts": "4"}
GOOD: dict[str, np.ndarray] = {
    "pool": np.array([3, 5, 9], dtype=np.uint32),
    "values": np.array([[0, 1, -2], [1, 0, 3], [-2, 3, 0]], dtype=np.float32),
    "done": np.ones(3, dtype=np.uint8),
}
SPARSE = {
    "pool": GOOD["pool"],
    "done": GOOD["done"],
    "indptr": np.array([0, 1, 2, 2]),
    "indices": np.array([1, 0], dtype=np.int32),
    "values": np.array([2, 2], dtype=np.float32),
}


def changed(name: str, at: Any, value: Any, tensors: dict[str, np.ndarray] = GOOD) -> Any:
    array = tensors[name].copy()
    array[at] = value
    return {**tensors, name: array}


@pytest.mark.parametrize(
    ("tensors", "texts", "message"),
    [
        (
            GOOD,
            {**TEXTS, "direction": "up"},
            'direction: is "up", must be "noising" or',
        ),
        (GOOD, {**TEXTS, "form": ""}, 'form: is "", must be "clipped" or "signed"'),
        (GOOD, {**TEXTS, "form": "clipped"}, "values: has -2, must be at least 0 when clipped"),
        (GOOD, {**TEXTS, "n_prompts": "0"}, 'n_prompts: is "0", must be a number from 1 on'),
        (GOOD, {"direction": "noising"}, "estimator: is missing in the metadata"),
        (GOOD, None, "direction: is missing in the metadata"),
        ({k: v for k, v in GOOD.items() if k != "pool"}, TEXTS, "pool: is missing"),
        ({k: v for k, v in GOOD.items() if k != "done"}, TEXTS, "done: is missing"),
        (changed("pool", 1, 3), TEXTS, "pool: has 3 before 3, must ascend"),
        (changed("pool", 0, 7), TEXTS, "pool: has 7 before 5, must ascend"),
        (
            {**GOOD, "pool": GOOD["pool"].astype(np.int64)},
            TEXTS,
            "pool: has dtype I64, must be",
        ),
        ({**GOOD, "pool": GOOD["pool"][None]}, TEXTS, "pool: has shape .1, 3., must have one"),
        ({**GOOD, "values": GOOD["values"][:2]}, TEXTS, "values: has shape .2, 3., must be .3, 3."),
        ({**GOOD, "values": GOOD["values"].astype(np.float64)}, TEXTS, "values: has dtype F64"),
        (changed("values", (0, 1), 2), TEXTS, r"values: synergy is not symmetric: \[0, 1\] is 2"),
        (changed("values", (1, 1), np.nan), TEXTS, r"values: synergy\[1, 1\] is NaN"),
        (changed("done", 1, 2), TEXTS, "done: has 2, must be 0 or 1"),
        ({**GOOD, "done": GOOD["done"][:1]}, TEXTS, "done: has shape .1., must be .3."),
        ({**GOOD, "redundancy": GOOD["values"][0]}, TEXTS, "redundancy: has shape .3., must be"),
        ({**GOOD, "known": GOOD["done"]}, TEXTS, "known: has shape .3., must be .1."),
        (changed("indices", 0, 3, SPARSE), TEXTS, "values: row 0 of synergy has column 3"),
        (changed("indices", 0, -1, SPARSE), TEXTS, "values: row 0 of synergy has column -1"),
        (changed("indptr", 1, 5, SPARSE), TEXTS, r"values: indptr\[0\] = 0 and indptr\[1\] = 5"),
        (changed("values", 0, 3, SPARSE), TEXTS, "values: synergy is not symmetric"),
        ({**SPARSE, "values": SPARSE["values"][:1]}, TEXTS, "values: has shape .1., must be .2."),
        (SPARSE, {**TEXTS, "per_row": "two"}, "per_row: is 'two', must be a number from 0 on"),
        (SPARSE, {**TEXTS, "per_row": "-1"}, "per_row: is '-1', must be a number from 0 on"),
        (SPARSE, {**TEXTS, "per_row": "9" * 5000}, "per_row: is '999"),  # int() refuses it
    ],
)
def test_files_that_are_not_what_they_promise(
    tmp_path: Path, tensors: Any, texts: Any, message: str
) -> None:
    path = tmp_path / "synergy.safetensors"
    write_safetensors(path, tensors, texts)
    with pytest.raises(DumpError, match=message) as error:
        SynergyMatrix.load(path)
    assert str(path) in str(error.value)


def test_good_files_load(tmp_path: Path) -> None:
    for tensors in (GOOD, SPARSE):
        write_safetensors(tmp_path / "s", tensors, TEXTS)
        assert SynergyMatrix.load(tmp_path / "s").pool.tolist() == [3, 5, 9]


def test_no_byte_of_a_file_can_make_a_crash_or_a_silent_lie(tmp_path: Path) -> None:
    """Every truncation and every flipped byte of the header: an error, or the same content."""
    path = tmp_path / "s"
    write_safetensors(path, GOOD, TEXTS)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    seen = 0
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(DumpError):
            SynergyMatrix.load(path)
    rng = np.random.default_rng(0)
    for at in range(header):
        damaged = bytearray(whole)
        damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            loaded = SynergyMatrix.load(path)
        except PieFastError:
            seen += 1
        else:
            assert np.array_equal(loaded.values, GOOD["values"])
    assert seen > header / 2
    with pytest.raises(OSError):
        SynergyMatrix.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.fill_row(4, [0, 0, 0]), "feature 4 is not in the pool of 3"),
        (lambda m: m.fill_row(3, [0, 0]), r"synergy has shape \[2\], must be \[3\]"),
        (lambda m: m.fill_row(3, [0, np.nan, 0]), "features 3 and 5 is nan, must be finite"),
        (lambda m: m.fill_row(3, [0, 1e300, 0]), "features 3 and 5 is inf, must be finite"),
        (lambda m: m.fill_pairs([[3, 3]], [0]), "feature 3 has no synergy with itself"),
        (lambda m: m.fill_pairs([[3, 5], [5, 3]], [0, 1]), "is known, "),
        (lambda m: m.fill_pairs([[3, 5]], [0, 1]), r"synergy has shape \[2\], must be \[1\]"),
        (lambda m: m.sparsified(3), "0 of 3 rows are done, all must be"),
        (lambda m: m.clusters(1, by="redundancy"), "the matrix has no redundancy"),
        (lambda m: m.clusters(1, by="size"), "by is 'size', must be 'synergy' or 'redundancy'"),
    ],
)
def test_calls_that_are_refused(call: Callable[[SynergyMatrix], Any], message: str) -> None:
    matrix = SynergyMatrix(
        [3, 5, 9], direction="noising", estimator="exact", form="signed", n_prompts=1
    )
    with pytest.raises(PieFastError, match=message):
        call(matrix)
    assert matrix.stats().n_known == 0


@pytest.mark.parametrize("form", ["signed", "clipped"])
def test_a_zero_is_kept_without_its_sign(form: Any) -> None:
    matrix = SynergyMatrix(
        [3, 5, 9], direction="noising", estimator="exact", form=form, n_prompts=1
    )
    # The second is a number of its own as float64 only.
    matrix.fill_row(3, [0, -0.0, -1e-300])
    assert not np.signbit(np.asarray(matrix.values)).any()


def test_words_and_pools_that_are_refused() -> None:
    good = {"direction": "noising", "estimator": "exact", "form": "signed", "n_prompts": 1}
    for change, message in (
        ({"direction": "both"}, "direction is 'both'"),
        ({"form": "raw"}, "form is 'raw'"),
        ({"n_prompts": 0}, "n_prompts is 0, must be at least 1"),
        ({"redundancy": np.zeros((2, 2))}, r"redundancy is float64 \[2, 2\], must be float32"),
    ):
        with pytest.raises(PieFastError, match=message):
            SynergyMatrix([1, 2], **{**good, **change})
    for pool in ([2, 1], [1, 1], [-1, 2], [1, 1 << 32]):
        with pytest.raises(PieFastError, match="pool"):
            SynergyMatrix(pool, **good)
    with pytest.raises(PieFastError, match="joint has length 2, must be 3 for 3 candidates"):
        top_synergies(np.zeros(2), np.zeros(3), 1)
    with pytest.raises(PieFastError, match=r"synergy of \(0, 1\) is NaN, must be finite"):
        top_synergies(np.array([np.nan, 0, 0]), np.zeros(3), 1)
    with pytest.raises(TypeError):
        top_synergies(np.zeros(3, dtype=int), np.zeros(3), 1)
    with pytest.raises(PieFastError, match="at least 0"):
        SynergyMatrix.from_dense([3, 5, 9], GOOD["values"], **{**good, "form": "clipped"})


def test_the_metadata_is_plain_json(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "s", GOOD, TEXTS)
    raw = (tmp_path / "s").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header["__metadata__"] == TEXTS
