"""Runs as folders, made without a model: of any K, with everything that a report can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pie_fast.dump import DumpWriter, PromptTable
from pie_fast.synergy_matrix import SynergyMatrix
from pie_fast.types import FeatureId

N_LAYERS, WIDTH, N_POSITIONS = 6, 512, 12

#: text that would end a script, start one, or vanish
HOSTILE = ("<script>alert(1)</script>", "</script>", "<!--", "<img src=x onerror=alert(1)>")
TOKENS = (" to", " the", "\n", "\t", "  ", " Alice", "\u200b", "é", "&amp;", *HOSTILE)


def write_run(folder: Path, k: int = 30, *, full: bool = True, seed: int = 0) -> Path:
    """A run of `k` features; `full`: with dump, synergy and `interpretation.json` too."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(N_LAYERS * WIDTH, k, replace=False))
    features = [FeatureId.from_global(int(i), WIDTH) for i in rng.permutation(ids)]
    write(folder / "result.json", result(features, rng))
    if full:
        _write_dump(folder / "dump", ids, rng)
        write(folder / "interpretation.json", interpretation(features, rng))
    return folder


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def result(features: list[FeatureId], rng: np.random.Generator) -> dict[str, Any]:
    k = len(features)
    effect = rng.normal(size=k)
    figures = {"behavioral_fidelity": 0.8, "mean_kl": 0.2, "faithfulness": 0.7}
    intervals = {name: [value - 0.1, value + 0.1] for name, value in figures.items()}
    both = {**figures, "intervals": intervals}
    return {
        "features": [
            {"layer": f.layer, "index": f.index, "score": 1.0 / (i + 1), "rank": i}
            | {"stability": float(rng.integers(0, 11)) / 10}
            for i, f in enumerate(features)
        ],
        "interpretations": [one_interpretation(f, rng, long=False) for f in features],
        "ablation": {"mean_effect": effect.tolist(), "mean_abs_effect": np.abs(effect).tolist()},
        "evaluation": {**both, "error_keep": both, "error_drop": both, "n_prompts": 32},
        "selector": "fap",
        "cost": {"forward": 1.0, "backward": 1.0},
        "curves": {
            name: [
                {"budget": b, "fidelity": min(1.0, b / 60 + j / 9), "mean_kl": 3 / b}
                | {"faithfulness": b / 200}
                for b in (5, 10, 20, 50, 100)
            ]
            for j, name in enumerate(("random", "magnitude", "fap"))
        },
        "unit": "feature",
        "n_features": k,
        "n_active": 4 * k,
        "n_dictionary": N_LAYERS * WIDTH,
        "settings": {
            "budget": k,
            "behavior": "<b>ioi</b>",
            "model": "m",
            "clt": "c",
            "method": "fap",
        },
        "timings": {"load": 1.0, "capture": 2.0},
        "versions": {"pie-fast": "0.1.0"},
    }


def interpretation(features: list[FeatureId], rng: np.random.Generator) -> dict[str, Any]:
    k = len(features)
    effects = np.tril(rng.normal(size=(k, k)), -1)
    statement = {"text": "mark S2", "features": [str(f) for f in features[:2]], "share": 0.25}
    return {
        "interpretations": [one_interpretation(f, rng, features) for f in features],
        "narrative": {
            "text": f"First {features[0]} reads the names.\n\nThen <script>alert(2)</script>.",
            "layers": [
                {"first": 0, "last": 2, "text": "They find names.", "statements": [statement]}
            ],
        },
        "llm": {"narrative": {"summary": "In short.", "layers": [], "narrator": "openai:m"}},
        "quality": {
            "clarity_rule": {"mean": 0.61, "n": k - 1, "n_missing": 1},
            "purity_llm": {"mean": None, "n": 0, "n_missing": k},
        },
        "corpus": {"n_sequences": 6000, "n_counted": 70000, "sources": {"ioi": 6000}},
        "model_calls": {"corpus": {"forward": 6000, "backward": 0}},
        "timings": {"corpus": 2.5},
        "edges": {
            "features": [str(f) for f in features],
            "effects": effects.tolist(),
            "to_metric": rng.normal(size=k).tolist(),
        },
    }


def one_interpretation(
    feature: FeatureId,
    rng: np.random.Generator,
    others: list[FeatureId] | None = None,
    *,
    long: bool = True,
) -> dict[str, Any]:
    """As `Interpretation.to_dict()` has it."""
    told: dict[str, Any] = {
        "feature": str(feature),
        "layer": feature.layer,
        "index": feature.index,
        "fap_score": float(rng.normal()),
        "label": f'fires on " Alice" & {HOSTILE[0]} in layer {feature.layer}',
        "explainer": "rules",
        "label_quality": 0.5,
        "n_active_prompts": 14,
        "positions": [2, 3],
        "contexts": [context(rng, "top") for _ in range(3)],
        "promoted": [{"token": t, "token_id": 1, "effect": 1.0} for t in TOKENS[:4]],
        "suppressed": [{"token": t, "token_id": 1, "effect": -1.0} for t in TOKENS[-2:]],
    }
    if not long:
        return told
    kinds = ["top"] * 10 + ["quantile"] * 6 + ["silent"] * 4
    linked = [others[i] for i in rng.integers(0, len(others), 6)] if others else []
    links = [{"feature": str(f), "weight": float(rng.normal())} for f in linked]
    values = {"clarity": 0.9, "responsiveness": 0.7, "purity": 0.6, "faithfulness": -0.2}
    measures = {
        f"{name}_{judge}": {
            "value": abs(v),
            "signed": v,
            "n_positive": 20,
            "n_negative": 80,
            "why": None,
        }
        for name, v in values.items()
        for judge in ("rule", "llm")
    }
    none = {
        "value": None,
        "signed": None,
        "n_positive": 0,
        "n_negative": 0,
        "why": "no positions with the concept were made",
    }
    return told | {
        "contexts": [context(rng, kind) for kind in kinds],
        "density": 0.012,
        "histogram": {
            "edges": np.linspace(0, 5, 13).tolist(),
            "counts": rng.integers(0, 90, 12).tolist(),
        },
        "fed_by": links[:3],
        "feeds": links[3:],
        "coactive": [{**link, "weight": 0.4} for link in links[:2]],
        "quality": {**measures, "detection_rule": none},
    }


def context(rng: np.random.Generator, kind: str, n: int = 40) -> dict[str, Any]:
    tokens = [TOKENS[i] for i in rng.integers(0, len(TOKENS), n)]
    values = np.where(rng.random(n) < 0.2, rng.normal(size=n), 0.0)
    if kind == "silent":
        values[:] = 0
    peak = int(np.abs(values).argmax())
    return {
        "tokens": tokens,
        "peak": None if kind == "silent" else peak,
        "activation": float(values[peak]),
        "kind": kind,
        "activations": [round(float(v), 4) for v in values],
        "source": "ioi",
    }


def _write_dump(folder: Path, ids: np.ndarray, rng: np.random.Generator) -> None:
    n = 2
    zeros = np.zeros(n, np.int32)
    prompts = PromptTable(
        tokens=np.zeros(n * N_POSITIONS, np.int32),
        prompt_ptr=np.arange(n + 1, dtype=np.int64) * N_POSITIONS,
        answer=zeros,
        foil=zeros,
        answer_position=zeros,
        metric_clean=np.ones(n),
        metric_baseline=np.zeros(n),
    )
    manifest = {"n_layers": N_LAYERS, "n_features": WIDTH}
    with DumpWriter(folder, prompts=prompts, manifest=manifest) as writer:
        k = len(ids)
        at = np.concatenate([rng.integers(1, N_POSITIONS, k) for _ in range(n)]).astype(np.uint32)
        weight = rng.normal(size=n * k).astype(np.float32)
        writer.append(np.arange(n + 1) * k, np.tile(ids, n).astype(np.uint32), at, weight, weight)
    values = rng.normal(size=(len(ids), len(ids))).astype(np.float32) ** 3 / 20
    values = values + values.T
    np.fill_diagonal(values, 0)
    SynergyMatrix.from_dense(
        ids,
        values,
        direction="noising",
        estimator="exact",
        form="signed",
        n_prompts=n,
        redundancy=np.abs(values),
    ).save(folder / "synergy.safetensors")
