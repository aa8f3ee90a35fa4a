from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import make_entries, write_dump

import pie_fast
from pie_fast import DumpError, _native, twin_dump
from pie_fast.decoder import redundancy_of_pool, strongest_pairs
from pie_fast.errors import CheckpointError, PieFastError
from pie_fast.storage import to_bf16, write_safetensors


def write_clt(
    folder: Path, *, n_layers: int = 3, n_features: int = 40, d: int = 6, dtype: str = "BF16"
) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for layer in range(n_layers):
        values = rng.normal(size=(n_features, n_layers - layer, d)).astype(np.float32)
        tensor: Any = {
            "BF16": ("BF16", to_bf16(values)),
            "F16": values.astype(np.float16),
            "F32": values,
        }[dtype]
        tensors = {f"W_dec_{layer}": tensor, "other": np.arange(3)}
        write_safetensors(folder / f"W_dec_{layer}.safetensors", tensors)
    return folder


@pytest.fixture(scope="module", params=["BF16", "F16", "F32"])
def clt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clt(tmp_path_factory.mktemp("clt") / "clt", dtype=request.param)


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(0, 39), max_size=60), layer=st.integers(0, 2))
def test_rows_are_the_twin_s(clt: Path, ids: list[int], layer: int) -> None:
    path, name = clt / f"W_dec_{layer}.safetensors", f"W_dec_{layer}"
    expected = twin_dump.decoder_rows(path, name, np.array(ids, np.int64))
    for threads in (1, 3, None):
        rows = pie_fast.decoder_rows(path, name, ids, threads=threads)
        assert rows.dtype == np.float32
        assert rows.shape == (len(ids), 3 - layer, 6)
        assert rows.tobytes() == expected.tobytes()


def test_more_rows_than_one_read(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(300, 2, 3000)).astype(np.float32)
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"w": values})
    ids = np.random.default_rng(2).integers(0, 300, 500)
    for threads in (1, 2):
        np.testing.assert_array_equal(
            pie_fast.decoder_rows(path, "w", ids, threads=threads), values[ids]
        )
    write_safetensors(path, {"w": values[:, 0]})
    assert pie_fast.decoder_rows(path, "w", [3]).shape == (1, 3000)


def test_bf16_rounds_to_nearest_even() -> None:
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 1 << 32, 10_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 1e38)]
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy()
    np.testing.assert_array_equal(to_bf16(values).view(np.int16), expected)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([40], r"W_dec_0\.safetensors: W_dec_0: row 40 is outside \[0, 40\)"),
        ([0, -1], r"row -1 is outside \[0, 40\)"),
    ],
)
def test_rows_out_of_range(clt: Path, ids: list[int], message: str) -> None:
    with pytest.raises(PieFastError, match=message):
        pie_fast.decoder_rows(clt / "W_dec_0.safetensors", "W_dec_0", ids)


def test_wrong_files_and_tensors(tmp_path: Path) -> None:
    clt = write_clt(tmp_path / "clt", dtype="F32")
    path = clt / "W_dec_0.safetensors"
    with pytest.raises(DumpError, match=r"W_dec_9: is missing; the file has \["):
        pie_fast.decoder_rows(path, "W_dec_9", [0])
    with pytest.raises(DumpError, match="other: has dtype I64, must be BF16, F16 or F32"):
        pie_fast.decoder_rows(path, "other", [0])
    with pytest.raises(FileNotFoundError):
        pie_fast.decoder_rows(clt / "nothing", "W_dec_0", [0])
    with pytest.raises(TypeError, match="ids has dtype float64"):
        pie_fast.decoder_rows(path, "W_dec_0", [0.5])
    write_safetensors(path, {"W_dec_0": np.full((40, 3, 6), np.nan, np.float32)})
    with pytest.raises(DumpError, match="W_dec_0: row 3 has NaN, must be finite"):
        pie_fast.decoder_rows(path, "W_dec_0", [7, 3])
    write_safetensors(path, {"W_dec_0": np.ones(4, np.float32)})
    with pytest.raises(DumpError, match="must have at least two axes"):
        pie_fast.decoder_rows(path, "W_dec_0", [0])
    os.truncate(path, 50)
    with pytest.raises(DumpError, match=r"W_dec_0\.safetensors"):
        pie_fast.decoder_rows(path, "W_dec_0", [0])


def decoders(clt: Path, n_layers: int = 3) -> list[tuple[int, Path, str]]:
    return [(i, clt / f"W_dec_{i}.safetensors", f"W_dec_{i}") for i in range(n_layers)]


@pytest.mark.parametrize("m", [0, 1, 5, 64, 120])
@pytest.mark.parametrize("weights", [None, [1.0, 0.0, 2.5]])
def test_redundancy_is_the_twin_s(clt: Path, m: int, weights: list[float] | None) -> None:
    ids = np.random.default_rng(m).permutation(120)[:m]
    matrix = pie_fast.redundancy(clt, ids, n_layers=3, n_features=40, weights=weights)
    expected = twin_dump.redundancy(decoders(clt), 3, ids // 40, ids % 40, weights=weights)
    assert matrix.dtype == np.float32
    # Dot products of at most 18 terms in f32: (18 + 2) rounding errors of the norms' product,
    # and as many for the norms.
    np.testing.assert_allclose(matrix, expected, atol=40 * 2.0**-24)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), np.ones(m))
    for threads in (1, 2, 5):
        again = pie_fast.redundancy(
            clt, ids, n_layers=3, n_features=40, weights=weights, threads=threads
        )
        assert again.tobytes() == matrix.tobytes()


def test_redundancy_of_known_writes(tmp_path: Path) -> None:
    """Copies: 1; mirrors: -1; what writes elsewhere or nothing: 0; half the targets: sqrt(1/2)."""
    first = np.zeros((4, 2, 3), np.float32)
    first[0] = [[1, 0, 0], [1, 0, 0]]
    first[1] = first[0] * 3
    first[2] = -first[0]
    second = np.zeros((4, 1, 3), np.float32)
    second[0] = [[2, 0, 0]]
    second[1] = [[0, 0, 5]]
    write_safetensors(tmp_path / "W_dec_0.safetensors", {"W_dec_0": first})
    write_safetensors(tmp_path / "W_dec_1.safetensors", {"W_dec_1": second})
    matrix = pie_fast.redundancy(tmp_path, range(6), n_layers=2, n_features=4)
    half = np.float32(np.sqrt(0.5))
    expected = [
        [1, 1, -1, 0, half, 0],
        [1, 1, -1, 0, half, 0],
        [-1, -1, 1, 0, -half, 0],
        [0, 0, 0, 0, 0, 0],
        [half, half, -half, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    np.testing.assert_allclose(matrix, expected, atol=1e-7)
    only_last = pie_fast.redundancy(tmp_path, [0, 4], n_layers=2, n_features=4, weights=[0.0, 1.0])
    np.testing.assert_array_equal(only_last, np.ones((2, 2)))


def test_wrong_redundancies(clt: Path, tmp_path: Path) -> None:
    def call(ids: Any, **options: Any) -> None:
        pie_fast.redundancy(clt, ids, **{"n_layers": 3, "n_features": 40, **options})

    with pytest.raises(PieFastError, match="2 weights for 3 target layers"):
        call([0], weights=[1, 2])
    with pytest.raises(PieFastError, match="weight of target layer 1 is -1, must be finite"):
        call([0], weights=[1, -1, 1])
    with pytest.raises(PieFastError, match=r"ids has -1, must be in \[0, 120\)"):
        call([-1])
    with pytest.raises(CheckpointError, match=r"W_dec_3\.safetensors does not exist"):
        call([120], n_layers=4, weights=None)
    with pytest.raises(PieFastError, match="feature L0:41: layer 0 has 40 features"):
        call([41], n_features=50)
    with pytest.raises(DumpError, match=r"W_dec_0: has rows \[3, 6\], must be \[4, 6\]"):
        call([0], n_layers=4)


def test_the_pool_of_a_dump(clt: Path, tmp_path: Path) -> None:
    dump = pie_fast.open_dump(
        write_dump(tmp_path / "d", make_entries(np.random.default_rng(0), 30))
    )
    ids, scores, matrix = redundancy_of_pool(dump, clt, 10)
    assert ids.tolist() == dump.top_k(10)[0].tolist()
    assert matrix.shape == (10, 10)
    pairs = strongest_pairs(ids, matrix, 5, 40)
    sizes = [abs(pair["cosine"]) for pair in pairs]
    assert sizes == sorted(sizes, reverse=True)
    upper = np.abs(matrix[np.triu_indices(10, 1)])
    assert sizes == sorted(upper.tolist(), reverse=True)[:5]
    assert len(scores) == 10


@pytest.mark.parametrize("row_axes", [None, 1, 2])
def test_rows_of_any_trailing_axes(row_axes: int | None, tmp_path: Path) -> None:
    whole = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    write_safetensors(tmp_path / "w.safetensors", {"W": whole})
    flat = whole.reshape(-1, 4) if row_axes == 1 else whole
    ids = np.array([4, 0, 4, 2], dtype=np.int64)
    got = _native.decoder_rows(tmp_path / "w.safetensors", "W", ids, row_axes=row_axes)
    np.testing.assert_array_equal(got, flat[ids])
    with pytest.raises(PieFastError, match=r"outside \[0, "):
        _native.decoder_rows(tmp_path / "w.safetensors", "W", ids + 20, row_axes=row_axes)


def test_rows_need_an_axis_to_count_by(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "w.safetensors", {"W": np.zeros((5, 3), np.float32)})
    none = np.zeros(0, np.int64)
    with pytest.raises(PieFastError, match=r"W: has shape \[5, 3\], must have at least 3 axes"):
        _native.decoder_rows(tmp_path / "w.safetensors", "W", none, row_axes=2)


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_rows_at_a_place_of_any_file(dtype: str, tmp_path: Path) -> None:
    numbers = np.random.default_rng(1).normal(size=(6, 4))
    whole = numbers.astype(np.float32 if dtype == "F32" else np.float16)
    path = tmp_path / "numbers"
    path.write_bytes(b"head" + whole.tobytes())
    ids = np.array([5, 1, 1], dtype=np.int64)
    got = _native.rows_at(path, "numbers", dtype, (6, 4), 4, ids)
    np.testing.assert_array_equal(got, whole[ids].astype(np.float32))
    for shape, offset in (((6, 4), 5), ((7, 4), 4), ((2**62, 2**62), 0), ((6, 4), 2**64 - 1)):
        with pytest.raises(PieFastError, match="does not fit"):
            _native.rows_at(path, "numbers", dtype, shape, offset, ids)
    with pytest.raises(PieFastError, match="must have two axes"):
        _native.rows_at(path, "numbers", dtype, (6,), 4, ids)
    with pytest.raises(PieFastError, match="dtype is I8"):
        _native.rows_at(path, "numbers", "I8", (6, 4), 4, ids)
