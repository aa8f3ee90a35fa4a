from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from pie_fast import DumpError, open_dump
from pie_fast.delphi import convert_delphi
from pie_fast.errors import PieFastError
from pie_fast.storage import write_safetensors

N_SEQUENCES, LENGTH, WIDTH = 300, 16, 1000


def cached(seed: int = 0, n: int = 4000) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Rows (sequence, position, latent) in row-major order, and their activations."""
    rng = np.random.default_rng(seed)
    flat = np.sort(rng.choice(N_SEQUENCES * LENGTH * WIDTH, n, replace=False))
    rows = np.stack(np.unravel_index(flat, (N_SEQUENCES, LENGTH, WIDTH)), axis=1)
    return rows, (np.abs(rng.normal(size=n)) + 0.1).astype(np.float16)


def write_splits(
    folder: Path,
    rows: NDArray[np.int64],
    activations: NDArray[Any],
    *,
    tokens: NDArray[np.int64] | None = None,
    n_splits: int = 5,
) -> Path:
    folder.mkdir(parents=True)
    edges = np.linspace(0, WIDTH, n_splits + 1).astype(int)
    for i, (start, end) in enumerate(itertools.pairwise(edges)):
        keep = (rows[:, 2] >= start) & (rows[:, 2] < end)
        local = rows[keep] - [0, 0, start]
        tensors: dict[str, Any] = {
            # Splits of one module may differ in dtype.
            "locations": local.astype([np.uint16, np.uint32, np.int64][i % 3]),
            "activations": activations[keep],
        }
        if tokens is not None:
            tensors["tokens"] = tokens
        write_safetensors(folder / f"{start}_{end - 1}.safetensors", tensors)
    return folder


def check(path: Path, rows: NDArray[np.int64], activations: NDArray[Any], layer: int) -> None:
    dump = open_dump(path)
    assert dump.n_active == len(rows)
    order = np.lexsort((rows[:, 1], rows[:, 2], rows[:, 0]))
    found = dump.entries(0, dump.n_prompts)
    np.testing.assert_array_equal(found.feature, rows[order, 2] + layer * dump.n_features)
    np.testing.assert_array_equal(found.position, rows[order, 1])
    np.testing.assert_array_equal(found.activation, activations[order].astype(np.float32))
    sequences = np.repeat(np.arange(dump.n_prompts), np.diff(found.prompt_ptr))
    np.testing.assert_array_equal(sequences, rows[order, 0])
    dump.verify()


def test_a_module_of_splits(tmp_path: Path) -> None:
    rows, activations = cached()
    tokens = np.random.default_rng(1).integers(0, 50_000, (N_SEQUENCES, LENGTH))
    module = write_splits(tmp_path / "layers.5.mlp", rows, activations, tokens=tokens)
    (module / "config.json").write_text(json.dumps({"model_name": "tiny", "cache_ctx_len": 16}))
    dump = convert_delphi(module, tmp_path / "d")
    assert (dump.n_layers, dump.n_features, dump.n_prompts) == (6, WIDTH, N_SEQUENCES)
    assert dump.manifest["model"] == "tiny"
    assert not dump.has_attribution
    check(tmp_path / "d", rows, activations, 5)
    np.testing.assert_array_equal(dump.prompts.tokens, tokens.reshape(-1))
    ids, scores = dump.top_k(3, "max")
    best = np.argsort(-activations.astype(np.float64), kind="stable")[0]
    assert scores[0] == activations[best]
    assert len(ids) == 3
    with pytest.raises(PieFastError, match="needs attributions, which this dump does not have"):
        dump.top_k(3)


def test_without_tokens(tmp_path: Path) -> None:
    rows, activations = cached()
    dump = convert_delphi(
        write_splits(tmp_path / "h.3.mlp", rows, activations), tmp_path / "d", n_layers=12
    )
    assert dump.n_layers == 12
    assert len(dump.prompts.tokens) == 0
    check(tmp_path / "d", rows, activations, 3)


def test_one_file_per_module(tmp_path: Path) -> None:
    rows, activations = cached()
    (tmp_path / "latents").mkdir()
    path = tmp_path / "latents" / "model.layers.2.mlp.safetensors"
    write_safetensors(path, {"locations": rows, "activations": activations.astype(np.float32)})
    dump = convert_delphi(path, tmp_path / "d")
    assert dump.n_features == rows[:, 2].max() + 1
    check(tmp_path / "d", rows, activations, 2)
    wide = convert_delphi(tmp_path / "latents", tmp_path / "e", n_features=2048)
    assert wide.n_features == 2048


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "uint64"])
def test_locations_of_any_integers(tmp_path: Path, dtype: str) -> None:
    rows, activations = np.array([[0, 1, 3], [0, 2, 127], [100, 0, 5]]), np.array([1.0, 2.0, 3.0])
    path = tmp_path / "layers.2.mlp.safetensors"
    values = activations.astype(np.float32)
    save_file({"locations": rows.astype(dtype), "activations": values}, path)
    convert_delphi(path, tmp_path / "d")
    check(tmp_path / "d", rows, activations, 2)


def test_a_folder_of_modules_is_a_dump_of_layers(tmp_path: Path) -> None:
    one, two = cached(1), cached(2)
    write_splits(tmp_path / "latents" / "layers.0.mlp", *one)
    write_splits(tmp_path / "latents" / "layers.10.mlp", *two)
    dump = convert_delphi(tmp_path / "latents", tmp_path / "d")
    assert dump.n_layers == 11
    assert dump.summary().layers == {0: 4000, 10: 4000}
    ids = dump.entries(0, dump.n_prompts).feature
    assert set(ids // WIDTH) == {0, 10}


def test_unnamed_layers_and_refusals(tmp_path: Path) -> None:
    rows, activations = cached(n=50)
    module = write_splits(tmp_path / "resid", rows, activations)
    with pytest.raises(PieFastError, match="its name does not tell the layer"):
        convert_delphi(module, tmp_path / "d")
    assert convert_delphi(module, tmp_path / "d", layer=4).n_layers == 5
    write_splits(tmp_path / "two" / "layers.1.mlp", rows, activations)
    write_splits(tmp_path / "two" / "layers.1.attn", rows, activations)
    with pytest.raises(PieFastError, match="are both layer 1"):
        convert_delphi(tmp_path / "two", tmp_path / "e")
    with pytest.raises(PieFastError, match="layer 4 was given for 2 modules"):
        convert_delphi(tmp_path / "two", tmp_path / "e", layer=4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DumpError, match="no latent cache"):
        convert_delphi(tmp_path / "empty", tmp_path / "e")
    with pytest.raises(FileNotFoundError):
        convert_delphi(tmp_path / "nothing", tmp_path / "e")


def split_of(rows: Any, activations: Any, **tensors: Any) -> dict[str, Any]:
    locations = np.array(rows, np.int64).reshape(-1, 3)
    return {"locations": locations, "activations": np.array(activations, np.float16), **tensors}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (split_of([[1, 0, 0], [0, 0, 0]], [1, 1]), "row 1: .*rows must ascend|out of order"),
        (split_of([[0, 1, 0], [0, 0, 0]], [1, 1]), "rows must ascend"),
        (split_of([[0, 0, 1], [0, 0, 1]], [1, 1]), "rows must ascend"),
        (split_of([[0, 0, 10]], [1]), r"row 0: latent 10 \+ 0 is outside \[0, 10\)"),
        (split_of([[0, -1, 1]], [1]), "row 0: position -1 is not a position"),
        (split_of([[0, 0, -1]], [1]), r"latent -1 \+ 0 is outside"),
        (split_of([[-1, 0, 1]], [1]), "row 0: sequence -1 is out of order|do not ascend"),
        (split_of([[0, 0, 1]], [np.inf]), "activations: row 0 has inf, must be finite"),
        (split_of([[0, 0, 1]], [1, 1]), r"locations: has shape \[1, 3\], must be \[2, 3\]"),
        ({"locations": np.zeros((1, 3), np.float32), "activations": np.ones(1, np.float16)},
         "locations: has dtype F32, must be whole"),
        ({"locations": np.zeros((1, 3), np.uint16), "activations": np.ones(1, np.int64)},
         "activations: has dtype I64"),
        ({"activations": np.ones(1, np.float16)}, "locations: is missing"),
        (split_of([[3, 0, 1]], [1], tokens=np.zeros((2, 4), np.int64)),
         "tokens: has 2 sequences, locations name 4"),
        (split_of([[0, 0, 1]], [1], tokens=np.zeros(4, np.int64)), "tokens: is I64 of shape"),
        (split_of([[0, 0, 1]], [1], tokens=np.full((1, 4), -5)), "tokens: has ids outside"),
    ],
)  # fmt: skip
def test_broken_caches(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    module = tmp_path / "layers.0.mlp"
    module.mkdir()
    write_safetensors(module / "0_9.safetensors", tensors)
    with pytest.raises(DumpError, match=message):
        convert_delphi(module, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_overlapping_ranges_and_one_entry_in_two_files(tmp_path: Path) -> None:
    module = tmp_path / "layers.0.mlp"
    module.mkdir()
    for name in ("0_9", "5_20"):
        write_safetensors(module / f"{name}.safetensors", split_of([[0, 0, 1]], [1]))
    with pytest.raises(DumpError, match="its latents overlap those of 0_9"):
        convert_delphi(module, tmp_path / "d")


def test_an_empty_split_and_an_empty_cache(tmp_path: Path) -> None:
    module = tmp_path / "layers.0.mlp"
    module.mkdir()
    write_safetensors(module / "0_9.safetensors", split_of([], []))
    assert convert_delphi(module, tmp_path / "d").n_prompts == 0
    write_safetensors(module / "10_19.safetensors", split_of([[4, 0, 3]], [2]))
    dump = convert_delphi(module, tmp_path / "d", force=True)
    assert dump.n_prompts == 5
    assert dump.active_features().tolist() == [13]


def test_what_is_odd_is_told(tmp_path: Path) -> None:
    module = tmp_path / "layers.0.mlp"
    module.mkdir()
    rows = [[s, p, f] for s in range(2) for p in range(3) for f in range(10)]
    tensors = split_of(rows, np.ones(60), tokens=np.zeros((2, 3), np.int64))
    write_safetensors(module / "0_9.safetensors", tensors)
    with pytest.warns(UserWarning, match="100% of latents are active"):
        convert_delphi(module, tmp_path / "d")
    write_safetensors(module / "0_9.safetensors", split_of([[0, 0, 1]], [-2.0]))
    with pytest.warns(UserWarning, match="1 activations are negative"):
        dump = convert_delphi(module, tmp_path / "e")
    assert dump.score("magnitude")[1] == 2.0


def one_row(folder: Path, name: str, sequence: int = 0, **more: NDArray[Any]) -> Path:
    """A cache of one split with one row."""
    folder.mkdir(parents=True)
    tensors = {"locations": np.array([[sequence, 2, 0]]), "activations": np.ones(1, np.float32)}
    write_safetensors(folder / name, {**tensors, **more})
    return folder


@pytest.mark.parametrize(
    ("module", "split", "message"),
    [
        (
            "layers.99999999999999999999",
            "0_7",
            "layer 9{20} is not below 4294967296",
        ),
        ("layers.0", "0_99999999999999999999", "0_99999999999999999999 is not a range below"),
        ("layers.0", "4_2", "4_2 is not a range below"),
    ],
)
def test_numbers_in_names_beyond_any_use(
    tmp_path: Path, module: str, split: str, message: str
) -> None:
    folder = one_row(tmp_path / module, f"{split}.safetensors")
    with pytest.raises(DumpError, match=f"{module}.*{message}"):
        convert_delphi(folder, tmp_path / "d")


@pytest.mark.parametrize("sequence", [1 << 24, 1 << 40, (1 << 62) - 1, (1 << 63) - 1])
def test_a_row_cannot_make_many_prompts(tmp_path: Path, sequence: int) -> None:
    folder = one_row(tmp_path / "layers.0", "0_7.safetensors", sequence)
    with pytest.raises(DumpError, match=r"0_7.safetensors: locations: sequence \d+ is not below"):
        convert_delphi(folder, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_positions_beyond_the_tokens(tmp_path: Path) -> None:
    folder = one_row(tmp_path / "layers.0", "0_7.safetensors", tokens=np.zeros((1, 2), np.int64))
    with pytest.raises(DumpError, match=r"layers.0: locations: position 2 of feature 0 in prompt"):
        convert_delphi(folder, tmp_path / "d")


@pytest.mark.parametrize("text", ["[" * 5000, '{"a": ' + "1" * 5000 + "}", "[1]", "7", "\xff"])
def test_a_hostile_config(tmp_path: Path, text: str) -> None:
    folder = one_row(tmp_path / "layers.0", "0_7.safetensors")
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DumpError, match=r"config.json: file: is not a JSON object"):
        convert_delphi(folder, tmp_path / "d")
