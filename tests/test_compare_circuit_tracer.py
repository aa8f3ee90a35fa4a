"""The comparison with circuit-tracer, without it: what it measures, and that it can fail."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import tiny
from plain_gpt2 import PlainClt, PlainGpt2
from torch_prompts import random_prompts

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "circuit_tracer.md"

#: in place of circuit-tracer's: hands out rows that were put next to it
STAND_IN = """
import hashlib, json, shutil, sys
from pathlib import Path

print(json.dumps({"circuit-tracer": "stand-in"}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    name = hashlib.sha256(json.dumps([asked["tokens"], asked["target"]]).encode()).hexdigest()
    shutil.copy(Path(__file__).parent / name, asked["out"])
    print(json.dumps({"seconds": 0.25}), flush=True)
"""


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    path = ROOT / "examples" / "compare_circuit_tracer.py"
    spec = importlib.util.spec_from_file_location("compare_circuit_tracer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_circuit_tracer"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["compare_circuit_tracer"]


THRESHOLDS = np.full((2, 10), 0.5, np.float32)


def made_up(script: ModuleType) -> Any:
    keys = np.asarray([[0, 1, 3], [0, 2, 9], [1, 1, 3], [1, 3, 0]])
    return script.Row(
        keys,
        np.asarray([1, 2, 3, 4], np.float32),
        np.asarray([0.5, -2, 0.1, 0], np.float32),
        np.ones((2, 4), np.float32),
        np.ones(4, np.float32),
    )


def test_equal_rows_agree_in_any_order(script: ModuleType) -> None:
    ours = made_up(script)
    back = slice(None, None, -1)
    turned = replace(
        ours, keys=ours.keys[back], activation=ours.activation[back], effect=ours.effect[back]
    )
    found = script.compare(ours, turned, THRESHOLDS)
    assert found.missed == []
    assert (found.n_common, found.activation, found.effect) == (4, 0, 0)


@pytest.mark.parametrize(
    ("part", "at", "by", "words"),
    [
        ("activation", 2, 3e-4, "activations differ by 0.0003 > 0.0001"),
        ("effect", 3, 3e-3, "effect differ by 0.0015 > 0.001 of the largest"),
        ("errors", (1, 2), 3e-3, "errors differ by 0.003 > 0.001"),
        ("tokens", 0, np.nan, "tokens differ by nan > 0.001"),
    ],
)
def test_a_planted_disagreement_is_found(
    script: ModuleType, part: str, at: Any, by: float, words: str
) -> None:
    ours = made_up(script)
    moved = getattr(ours, part).copy()
    moved[at] += by
    (missed,) = script.compare(replace(ours, **{part: moved}), ours, THRESHOLDS).missed
    assert words in missed
    if np.isfinite(by):
        moved[at] = getattr(ours, part)[at] + by / 10
        assert script.compare(replace(ours, **{part: moved}), ours, THRESHOLDS).missed == []


def without(row: Any, n: int) -> Any:
    parts = {name: np.delete(getattr(row, name), n, 0) for name in ("activation", "effect")}
    return replace(row, keys=np.delete(row.keys, n, 0), **parts)


def test_entries_that_only_one_has(script: ModuleType) -> None:
    whole = made_up(script)
    for pair in ((without(whole, 1), whole), (whole, without(whole, 1))):
        found = script.compare(*pair, THRESHOLDS)
        assert found.n_common == 3
        assert found.alone == ("L0:9@2 (2)",)
        assert "only one has L0:9@2 (2) (1 in all)" in found.missed[0]
    whole.activation[1] = 0.5 + 5e-5  # at its threshold
    found = script.compare(without(whole, 1), whole, THRESHOLDS)
    assert found.missed == [] and found.near == ("L0:9@2 (5e-05)",) and found.alone == ()


def test_nothing_in_common_is_no_agreement(script: ModuleType) -> None:
    whole = made_up(script)
    empty = replace(
        whole, keys=whole.keys[:0], activation=whole.activation[:0], effect=whole.effect[:0]
    )
    assert "no entry in common" in script.compare(empty, empty, THRESHOLDS).missed


def test_errors_and_tokens_are_those_of_the_model_written_out(
    script: ModuleType, tiny_folders: tuple[Path, Path]
) -> None:
    from pie_fast.replacement_model import load_model

    model = load_model(*map(str, tiny_folders), device="cpu", ignore_positions="circuit-tracer")
    gpt2, clt = PlainGpt2(tiny_folders[0]), PlainClt(tiny_folders[1], tiny.N_LAYERS)
    (prompt,) = random_prompts(1)
    assert prompt.foil is not None
    vector = gpt2.unembedding[:, prompt.answer] - gpt2.unembedding[:, prompt.foil]
    seen = gpt2.run(prompt.tokens)
    acts = [clt.encode(layer, x) for layer, x in enumerate(seen.reads)]
    n_pos = len(prompt)
    each = torch.eye(n_pos).double()[..., None]  # one position a row
    nothing = torch.zeros(n_pos, n_pos, tiny.D_MODEL).double()
    errors = []
    for layer in range(tiny.N_LAYERS):
        error = seen.writes[layer] - clt.rebuilt(layer, acts)
        error[0] = 0
        writes = [nothing] * tiny.N_LAYERS
        writes[layer] = each * error
        errors.append((gpt2.direct(seen, nothing, writes)[:, -1] @ vector).numpy())
    tokens = gpt2.direct(seen, each * seen.embedded, [nothing] * tiny.N_LAYERS)[:, -1] @ vector
    found, seconds = script.our_row(model, prompt, "logit-diff")
    assert seconds > 0
    assert np.allclose(found.errors, errors, atol=1e-5) and np.abs(found.errors).max() > 0.1
    assert np.allclose(found.tokens, tokens.numpy(), atol=1e-5)


@pytest.mark.parametrize("planted", [False, True])
def test_the_whole_script(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    planted: bool,
) -> None:
    from pie_fast.behaviors import load_behavior
    from pie_fast.data import demo_clt_path, demo_model_path
    from pie_fast.replacement_model import load_model

    model = load_model(demo_model_path(), demo_clt_path(), device="cpu", ignore_positions=1)
    prompts = load_behavior(
        "ioi", tokenizer=model.host.tokenizer, n_selection=2, n_held_out=0, seed=0
    ).selection
    for prompt in prompts:
        for target in script.TARGETS:
            row, _ = script.our_row(model, prompt, target)
            if planted and target == "logit-diff" and prompt is prompts[1]:
                row.effect[5] += np.abs(row.effect).max() / 500
            name = json.dumps([list(prompt.tokens), target])
            columns = dict(zip(("layer", "position", "feature"), row.keys.T, strict=True))
            parts = {n: getattr(row, n) for n in ("activation", "effect", "errors", "tokens")}
            whole = {n: np.ascontiguousarray(v) for n, v in (columns | parts).items()}
            save_file(whole, tmp_path / hashlib.sha256(name.encode()).hexdigest())
    (tmp_path / "worker.py").write_text(STAND_IN)
    monkeypatch.setattr(script, "WORKER", tmp_path / "worker.py")
    page = tmp_path / "page.md"
    page.write_text("<!-- table: circuit-tracer -->old<!-- /table -->")
    options = ["--behaviors", "ioi", "--prompts", "2", "--repeat", "1", "--threads", "1"]
    arguments = ["--python", sys.executable, *options, "--update", str(page)]
    if planted:
        with pytest.raises(SystemExit, match=r"ioi, logit-diff, prompt 1: effect differ by 0.002"):
            script.main(arguments)
        assert "old" in page.read_text()
    else:
        script.main(arguments)
        assert "circuit-tracer stand-in" in page.read_text()
    assert "| ioi | logit-diff | 2 |" in capsys.readouterr().out


def test_the_page_is_true(script: ModuleType) -> None:
    text = PAGE.read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(PAGE), "exec", dont_inherit=True), {})
    assert printed.getvalue().startswith("[(4, ")
    rows = re.findall(r"^\| (ioi|docstring) \| (logit|logit-diff) \| 8 \| (.*) \|$", text, re.M)
    assert len(rows) == 4, "made by the script with --update"
    for *_, rest in rows:
        entries, *apart, _near, _ours, _batched, _theirs = rest.split(" | ")
        assert int(entries) > 1000
        assert all(float(a) < 1e-3 for a in apart) and float(apart[0]) < script.ACTIVATIONS
