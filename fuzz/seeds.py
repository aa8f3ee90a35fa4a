"""Write the valid seeds of the corpus: `python fuzz/seeds.py` makes `fuzz/corpus/TARGET/seed-*`.

The same call gives the same bytes. Beside them lie `kept-*`, by hash, what a campaign found to
reach more (`fuzz/smoke SECONDS --keep`), and `found-*`, what once was a finding.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"

#: safetensors dtype -> struct format
_FORMATS = {"I64": "q", "I32": "i", "U32": "I", "U16": "H", "U8": "B", "F32": "f", "F16": "e"}


def safetensors(columns: dict[str, tuple[str, list[int], list[float]]], **metadata: str) -> bytes:
    """A file of tensors: name -> dtype, shape, numbers."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, (dtype, shape, numbers) in columns.items():
        packed = struct.pack(f"<{len(numbers)}{_FORMATS[dtype]}", *numbers)
        offsets = [len(data), len(data) + len(packed)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += packed
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data


def headers() -> list[bytes]:
    """JSON of a header, a zero byte, the data; the hostile ones too."""
    good = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    next_ = {"dtype": "U16", "shape": [1, 1], "data_offsets": [8, 10]}
    cases: list[Any] = [
        {},
        {"a": good},
        {"a": good, "b": next_, "__metadata__": {"by": "x"}},
        {"a": {**good, "shape": [1 << 62, 4]}},
        {"a": {**good, "shape": [-2]}},
        {"a": {**good, "data_offsets": [4, 12]}},
        {"a": {**good, "data_offsets": [8, 0]}},
        {"a": {**good, "data_offsets": [0, 1 << 60]}},
        {"a": {**good, "dtype": "F8_E8M0"}},
        {"a": good, "b": good},
        {"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}},
    ]
    texts = [json.dumps(case).encode() for case in cases]
    texts.append(b'{"a":' + json.dumps(good).encode() + b',"a":' + json.dumps(good).encode() + b"}")
    texts.append(b'{"a":' + b"[" * 200 + b"]" * 200 + b"}")
    return [text + b"\0" + bytes(range(10))[: 10 if b"U16" in text else 8] for text in texts]


def manifests() -> list[bytes]:
    """Of the two shards that the target has, right and wrong."""
    line = {"n_prompts": 1, "n_active": 1, "bytes": _BYTES, "hash": "0" * 64}
    first = {"file": "a", "first_prompt": 0, **line}
    second = {"file": "b", "first_prompt": 1, **line}
    good = {"format": "pie-fast-dump", "version": 1, "n_layers": 3, "n_features": 40}
    cases = [
        {**good, "n_prompts": 2, "shards": [first, second]},
        {**good, "n_prompts": 2, "shards": [second, first], "model": {"name": "m"}},
        {**good, "n_prompts": 0, "shards": []},
        {**good, "n_prompts": 1, "shards": [first], "n_layers": 1 << 32, "n_features": 1},
        {**good, "n_prompts": 1, "shards": [{**first, "file": "../a"}]},
        {**good, "n_prompts": 1, "shards": [{**first, "file": "/etc/passwd"}]},
        {**good, "n_prompts": 2, "shards": [first, {**second, "first_prompt": 0}]},
        {**good, "n_prompts": 1 << 62, "shards": [{**first, "n_prompts": 1 << 62}]},
    ]
    return [json.dumps(case).encode() for case in cases]


#: length of the shard that `targets/manifest.rs` writes
_BYTES = 354


def columns(n_prompts: int, seed: int) -> dict[str, tuple[str, list[int], list[float]]]:
    """Of a shard of 3 layers of 40 features."""
    draw = random.Random(seed)
    pointer, pairs = [0], []
    for _ in range(n_prompts):
        some = {(draw.randrange(120), draw.randrange(9)) for _ in range(draw.randrange(9))}
        pairs += sorted(some)
        pointer.append(len(pairs))
    n = len(pairs)
    numbers = [round(draw.gauss(0, 1), 2) for _ in range(2 * n)]
    return {
        "prompt_ptr": ("I64", [n_prompts + 1], pointer),
        "feature": ("U32", [n], [feature for feature, _ in pairs]),
        "attribution": ("F32", [n], numbers[:n]),
        "activation": (("F32", "F16")[seed % 2], [n], numbers[n:]),
        "position": (("U16", "U32")[seed // 2 % 2], [n], [place for _, place in pairs]),
    }


def shards() -> list[bytes]:
    """Layers, features, prompts, entries, then a shard."""
    found = []
    for seed, n_prompts in enumerate((0, 1, 3, 7)):
        parts = columns(n_prompts, seed)
        n = len(parts["feature"][2])
        found.append(struct.pack("<BBBH", 3, 40, n_prompts, n) + safetensors(parts))
    del parts["attribution"]
    found.append(struct.pack("<BBBH", 3, 40, n_prompts, n) + safetensors(parts))
    return found


def caches() -> list[bytes]:
    """Seven bytes of numbers, the length of the first file, one or two Delphi splits."""

    def split(dtype: str, rows: list[list[int]], *, tokens: bool = True) -> bytes:
        flat = [number for row in rows for number in row]
        values = [0.5 + i for i in range(len(rows))]
        parts = {"locations": (dtype, [len(rows), 3], flat)}
        if tokens:
            parts["tokens"] = ("I64", [2, 4], list(range(8)))
        return safetensors({**parts, "activations": ("F16", [len(rows)], values)})

    one = split("I64", [[0, 1, 2], [0, 2, 0], [1, 0, 3]])
    other = split("U16", [[0, 0, 1], [1, 1, 1]])
    far = split("I64", [[0, 0, 0], [(1 << 62) - 1, 0, 0]], tokens=False)
    return [
        bytes([0, 1, 0, 0, 16, 0, 2]) + len(one).to_bytes(2, "little") + one,
        bytes([1, 0, 0, 9, 16, 1, 2]) + len(one).to_bytes(2, "little") + one + other,
        bytes([0, 0, 255, 255, 255, 254, 2]) + len(one).to_bytes(2, "little") + one,
        bytes([0, 0, 0, 0, 16, 0, 2]) + len(far).to_bytes(2, "little") + far,
    ]


def synergies() -> list[bytes]:
    """Dense and sparse files of `pie_fast`'s own format."""
    about = {"direction": "noising", "estimator": "exact", "n_prompts": "4", "form": "signed"}
    pool, done = ("U32", [3], [4, 7, 9]), ("U8", [3], [1, 1, 0])
    dense = [0, 1, -2, 1, 0, 0.5, -2, 0.5, 0]
    known, flat = ("U8", [1], [5]), ("F32", [3, 3], dense)
    sparse = {
        "pool": pool,
        "indptr": ("I64", [4], [0, 1, 2, 2]),
        "indices": ("I32", [2], [1, 0]),
        "values": ("F32", [2], [1.5, 1.5]),
        "done": done,
    }
    square = {"pool": pool, "values": flat, "done": done, "redundancy": flat, "known": known}
    return [safetensors(square, **about), safetensors(sparse, **{**about, "form": "clipped"})]


def decoders() -> list[bytes]:
    """Axes of a row, four rows, then a file with a tensor `W`."""
    numbers = [i / 4 for i in range(24)]
    shapes = ([4, 6], [2, 3, 4], [24, 1], [0, 1 << 40])
    return [
        bytes([axes, 0, 1, 3, 1]) + safetensors({"W": (dtype, shape, numbers if shape[0] else [])})
        for axes, dtype, shape in zip(
            (0, 2, 1, 0), ("F32", "F16", "F32", "F32"), shapes, strict=True
        )
    ]


def behaviors() -> list[bytes]:
    """`t` for a tokenizer, then lines."""
    ids = '{"tokens": [0, 1, 2], "answer_id": 5, "foil_id": 6, "split": "selection"}'
    text = '{"prompt": "Then Al went", "answer": "to", "counterfactual": "Thus Di goes"}'
    place = '{"tokens": [7, 8], "answer_id": 1, "answer_position": -2}'
    odd = ['{"tokens": [1e999], "answer_id": 1}', '{"tokens": [NaN]}', '{"tokens": [' + "1" * 4400]
    deep = '{"tokens": ' + "[" * 3000
    lines = [ids, f"{place}\n\n{place}\n", *odd, deep, f"\ufeff{ids}"]
    return [b"-" + line.encode() for line in lines] + [b"t" + text.encode()]


def configs() -> list[bytes]:
    """TOML of `discover`'s options, right and wrong."""
    texts = [
        'model = "m"\nclt = "c"\nbehavior = "ioi"\nbudget = 5\n',
        'budget = "auto"\nsynergy = true\npool-factor = 4.0\nseed = 3\n',
        "seed = " + "9" * 30,
        "seed = nan\npool-factor = inf",
        "a = " + "[" * 2000,
        "a.b.c.d = {e = 1}",
        "budget = " + "1" * 4400,
    ]
    return [text.encode() for text in texts]


def exchanged() -> list[bytes]:
    """`g` and a graph, `e` and explanations, `n` and Neuronpedia's."""
    nodes = [
        {"node_id": "E_5_0", "feature_type": "embedding", "layer": "E", "ctx_idx": 0},
        {"node_id": "0_3_0", "feature_type": "cross layer transcoder", "layer": "0", "ctx_idx": 0},
        {
            "node_id": "0_1_1",
            "feature_type": "mlp reconstruction error",
            "layer": "0",
            "ctx_idx": 1,
        },
        {"node_id": "2_7_1", "feature_type": "logit", "layer": "2", "ctx_idx": 1},
    ]
    more = {"feature": 9, "jsNodeId": "0_3-0", "clerp": "", "influence": 0.5, "activation": 1.5}
    nodes = [{**more, **node, "token_prob": 0.5, "is_target_logit": True} for node in nodes]
    links = [{"source": "E_5_0", "target": "0_3_0", "weight": 0.5}]
    links.append({"source": "0_3_0", "target": "2_7_1", "weight": -1.0})
    about = {"slug": "a", "scan": "m", "prompt": "a b", "prompt_tokens": ["a", " b"]}
    params = {"pinnedIds": ["0_3_0"], "supernodes": [["s", "0_3_0"]], "linkType": "both"}
    whole = {"metadata": about, "qParams": params, "nodes": nodes, "links": links}
    label = {"format": "pie_fast/explanation", "version": 1, "layer": 0, "index": 3, "label": "x"}
    label |= {"explainer": "rules", "model": "m", "clt": "c", "rule": None, "quality": {}}
    theirs = {"modelId": "m", "layer": "5-clt", "index": "7", "description": "words"}
    theirs["scores"] = [{"explanationScoreTypeName": "eleuther", "value": 0.5}]
    values = [
        (b"g", whole),
        (b"e", label),
        (b"n", theirs),
        (b"n", [theirs, {**theirs, "index": 8}]),
    ]
    found = [kind + json.dumps(value).encode() for kind, value in values]
    return [
        *found,
        b"g" + b'{"metadata":' * 2000,
        b"e" + b"[" * 3000,
        b"n[1e999]",
        b"g\x1f\x8b\x08",
    ]


def files(*parts: tuple[int, bytes]) -> bytes:
    """Number of a name, content."""
    return b"\n==\n".join(bytes([number]) + content for number, content in parts)


def npz(*arrays: tuple[str, str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Name, shape and bytes of float32 arrays."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, shape, content in arrays:
            header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
            head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = method
            archive.writestr(member, head + content)
    return buffer.getvalue()


def checkpoints() -> list[bytes]:
    """Folders of every format, of 1 layer, 2 features and a model of width 2."""

    def tensors(**shapes: list[int]) -> bytes:
        sizes = {name: shape[0] * (shape[1] if shape[1:] else 1) for name, shape in shapes.items()}
        return safetensors(
            {name: ("F32", shape, [0.5] * sizes[name]) for name, shape in shapes.items()}
        )

    kind = (
        b"model_kind: %s\nfeature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"
    )
    both = {"W_enc": [2, 2], "W_dec": [2, 2], "b_enc": [2], "b_dec": [2]}
    sae = {"architecture": "transcoder", "d_in": 2, "d_out": 2, "d_sae": 2}
    sae |= {"hook_name": "blocks.0.hook_mlp_in", "hook_name_out": "blocks.0.hook_mlp_out"}
    forge = {"n_layers": 1, "d_in": 2, "d_latent": 2, "cross_layer_decoders": True}
    shapes = {"W_enc": [1, 2, 2], "b_enc": [1, 2], "log_threshold": [1, 2], "W_dec": [1, 2, 2]}
    forged = {
        name: ("F32", shape, [0.5] * shape[-1] * (shape[1] if shape[2:] else 1))
        for name, shape in shapes.items()
    }
    for side in ("in", "out"):
        forged[f"estimated_norm_scaling_factor_{side}"] = ("F32", [1], [1.0])
    forged["b_dec"] = ("F32", [1, 2], [0.5] * 2)
    encoder = {"W_enc_0": [2, 2], "b_enc_0": [2], "b_dec_0": [2], "threshold_0": [2]}
    decoder = safetensors({"W_dec_0": ("F32", [2, 1, 2], [0.5] * 4)})
    array = ("W_enc", "(2, 2)", bytes(16))
    bomb = npz(("W_enc", "(1000, 1000)", bytes(4_000_000)), method=zipfile.ZIP_DEFLATED)
    return [
        files((0, kind % b"cross_layer_transcoder"), (3, tensors(**encoder)), (4, decoder)),
        files((0, kind % b"transcoder_set"), (5, tensors(**both))),
        files((2, json.dumps(sae).encode()), (9, tensors(**both))),
        files((10, json.dumps(sae).encode()), (11, tensors(**both))),
        files((1, json.dumps(forge).encode()), (6, safetensors(forged))),
        files((0, b"a: &a [x, x]\nb: [*a, *a]\nmodel: {class_path: x}\n"), (8, tensors(**both))),
        files((12, npz(array, ("b_enc", "(2,)", bytes(8))))),
        files((12, npz(array, method=zipfile.ZIP_DEFLATED))),
        files((12, npz(("W_enc", "(-1, 2)", bytes(16))))),
        files((12, npz(("W_enc", "(1000000000, 1000000000)", b"")))),
        files((12, bomb)),
        files(
            (0, b"transcoders: [../x, /etc/passwd, 'hf://a/b/../c']\n" + kind % b"transcoder_set")
        ),
        files((2, b'{"a":' * 2000), (9, b"")),
        files((0, b"[" * 3000)),
        files((2, b'{"d_in": ' + b"9" * 4400 + b"}"), (9, b"")),
    ]


def runs() -> list[bytes]:
    """`result.json` and `interpretation.json`."""
    told = {"feature": "L0:1", "layer": 0, "index": 1, "fap_score": 0.5, "label": "x"}
    told |= {"contexts": [], "promoted": [], "suppressed": [], "positions": [0], "quality": {}}
    figures = {"behavioral_fidelity": 0.5, "mean_kl": 0.1, "faithfulness": 0.7, "intervals": {}}
    names = dict.fromkeys(("model", "clt", "behavior", "behavior_hash", "metric"), "x")
    numbers = {
        "behavior_seed": 0,
        "n_selection": 1,
        "n_held_out": 1,
        "hooks": ["a", "b"],
        "budget": 1,
    }
    result = {
        "features": [{"layer": 0, "index": 1, "score": 1.0, "rank": 0}],
        "interpretations": [told],
        "settings": {**names, **numbers, "method": "fap"},
        "evaluation": {**figures, "error_keep": figures, "error_drop": figures, "n_prompts": 1},
        "curves": {"fap": [{"budget": 1, "fidelity": 0.5, "mean_kl": 0.1, "faithfulness": 0.2}]},
        "ablation": {"mean_effect": [0.1], "mean_abs_effect": [0.1]},
        "cost": {"forward": 1, "backward": 1},
        "unit": "feature",
        "n_features": 1,
        "n_active": 4,
        "n_dictionary": 10,
    }
    more = {"interpretations": [told], "edges": {"features": ["L0:1"], "effects": [[0.0]]}}
    good = json.dumps(result).encode()
    return [
        files((0, good)),
        files((0, good), (1, json.dumps(more).encode())),
        files((0, good.replace(b"0.5", b"1e999"))),
        files((0, good.replace(b"0.5", b"NaN"))),
        files((0, b'{"features": ' + b"[" * 3000)),
        files((0, b'{"features": [' + b"1" * 4400 + b"]}")),
        files((0, good), (1, b"\xff\xfe[]")),
    ]


def answers() -> list[bytes]:
    """A byte for the schema, then what was said."""
    said = [
        (0, '{"label": "a", "reason": "b"}'),
        (0, '<think>{</think>\n```json\n{"label": "a", "reason": "b"}\n```\n'),
        (1, '{"texts": ["a", "b"]}'),
        (2, '{"ratings": {"a1": 2, "b": 0}}'),
        (3, '{"layers": [{"layers": "0-3", "text": "t"}], "summary": "s"}'),
        (3, '{"layers": [{"layers": "9999-1", "text": "\\ud800"}], "summary": "s"}'),
        (1, '{"texts": ' + "[" * 3000),
        (2, '{"ratings": {"a": 1e999, "b": NaN}}'),
    ]
    stored = {"format": "pie-fast-llm-answer", "version": 1, "request": {"model": "m"}}
    said.append((0, json.dumps(stored | {"answer": said[0][1]})))
    return [bytes([schema]) + text.encode() for schema, text in said]


def resumed() -> list[bytes]:
    """Parts: number of a file and what it holds, or `-` and the number of one to remove."""
    good = {"format": "pie-fast-dump", "version": 1, "n_layers": 2, "n_features": 5, "n_prompts": 0}
    empty = json.dumps({**good, "shards": []}).encode()
    deep = b'{"model": ' + b"[" * 3000
    parts = [[b"-\0"], [b"-\x01"], [b"-\x02"], [b"\0" + empty], [b"\0" + deep], [b"\x01"]]
    return [b"\n==\n".join(some) for some in [*parts, [b"\0{}", b"-\x02"]]]


def delphi_folders() -> list[bytes]:
    """Files of caches."""
    one, other, _, far = (cache[9:] for cache in caches())
    cut = len(one)
    return [
        files((0, one)),
        files((0, one), (1, other[cut:]), (2, b'{"model_name": "m"}')),
        files((0, one), (2, b"[" * 3000)),
        files((3, one)),
        files((0, far)),
        files((4, one)),
        files((5, one)),
        files((6, one)),
        files((7, one)),
    ]


def noise(seed: int) -> list[bytes]:
    """For targets that make their own structure of any bytes."""
    draw = random.Random(seed)
    return [draw.randbytes(size) for size in (16, 60, 200, 700)]


def all_seeds() -> dict[str, list[bytes]]:
    """Target -> inputs."""
    return {
        "header": headers(),
        "manifest": manifests(),
        "shard": shards(),
        "score": noise(1),
        "delphi": caches(),
        "synergy_file": synergies(),
        "decoder": decoders(),
        "matrix": noise(2),
        "topk": noise(3),
        "contexts": noise(4),
        "behaviors": behaviors(),
        "config": configs(),
        "exchange": exchanged(),
        "checkpoints": checkpoints(),
        "runs": runs(),
        "answers": answers(),
        "resume": resumed(),
        "delphi_folder": delphi_folders(),
    }


def main() -> None:
    """Write them."""
    for target, seeds in all_seeds().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (folder / f"seed-{number:02}").write_bytes(seed)


if __name__ == "__main__":
    main()
