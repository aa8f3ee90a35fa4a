"""circuit-tracer's side of compare_circuit_tracer.py; runs in its environment, without pie_fast.

A process that loads once and then answers line by line, JSON in and out:

    {"tokens": [ids], "target": "logit" | "logit-diff", "answer": id, "foil": id, "out": FILE}
    {"seconds": s}
    {"tokens": [ids], "graph": true}
    {"seconds": s, "nodes": n}

FILE (safetensors) then holds the active features `layer`, `position`, `feature`, `activation` and
`effect` `[n]`, and the rest of the same attribution row, `errors` `[n_layers, n_pos]` and `tokens`
`[n_pos]`. The target is read at the last position. The row is that of `attribute`, by the parts
that `attribute` itself calls: it offers no row alone. A graph is what `attribute` gives by default.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from circuit_tracer import attribute
from circuit_tracer.replacement_model.replacement_model_transformerlens import (
    TransformerLensReplacementModel,
)
from circuit_tracer.utils.hf_utils import load_transcoder_from_hub
from safetensors.torch import save_file
from transformer_lens import HookedTransformerConfig
from transformer_lens.loading_from_pretrained import convert_gpt2_weights
from transformers import AutoTokenizer, GPT2LMHeadModel

PACKAGES = ("circuit-tracer", "transformer-lens", "transformers", "torch")


def load(model: str, clt: str) -> Any:
    """Their replacement model.

    TransformerLens knows models by their official names only, so a local folder, which must be of a
    GPT-2, is converted here; and circuit-tracer takes a relative CLT folder for a hub id.
    """
    path = str(Path(clt).resolve()) if Path(clt).is_dir() else clt
    cpu = torch.device("cpu")
    transcoders, _ = load_transcoder_from_hub(path, device=cpu, dtype=torch.float32)
    if not Path(model).is_dir():
        return TransformerLensReplacementModel.from_pretrained_and_transcoders(
            model, transcoders, device="cpu", dtype=torch.float32
        )
    hf = GPT2LMHeadModel.from_pretrained(model).eval()
    config = HookedTransformerConfig(
        n_layers=hf.config.n_layer,
        d_model=hf.config.n_embd,
        n_heads=hf.config.n_head,
        d_head=hf.config.n_embd // hf.config.n_head,
        d_mlp=hf.config.n_inner or 4 * hf.config.n_embd,
        n_ctx=hf.config.n_positions,
        d_vocab=hf.config.vocab_size,
        eps=hf.config.layer_norm_epsilon,
        act_fn=hf.config.activation_function,
        normalization_type="LN",
        model_name=Path(model).name,
        tokenizer_prepends_bos=True,
        device="cpu",
    )
    lens = TransformerLensReplacementModel(config, AutoTokenizer.from_pretrained(model))
    missing = lens.load_state_dict(convert_gpt2_weights(hf, config), strict=False).missing_keys
    absent = [m for m in missing if not m.endswith(("attn.mask", "attn.IGNORE", "unembed.b_U"))]
    if absent:
        raise SystemExit(f"{model}: weights are missing: {absent}")
    lens._configure_replacement_model(transcoders)
    return lens


def row_of(model: Any, asked: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Activations and the attribution row of one target."""
    tokens = torch.tensor(asked["tokens"])
    context = model.setup_attribution(tokens)
    with context.install_hooks(model):
        residual = model.forward(tokens.expand(1, -1), stop_at_layer=model.cfg.n_layers)
        context._resid_activations[-1] = model.ln_final(residual)
    unembed = model.unembed.W_U
    away = unembed.mean(-1) if asked["target"] == "logit" else unembed[:, asked["foil"]]
    row = context.compute_batch(
        layers=torch.tensor([model.cfg.n_layers]),
        positions=torch.tensor([len(tokens) - 1]),
        inject_values=(unembed[:, asked["answer"]] - away)[None],
        retain_graph=False,
    )[0]
    active = context.activation_matrix
    layer, position, feature = active.indices()
    n, n_pos = len(layer), len(tokens)
    return {
        "layer": layer,
        "position": position,
        "feature": feature,
        "activation": active.values(),
        "effect": row[:n],
        "errors": row[n:-n_pos].view(model.cfg.n_layers, n_pos),
        "tokens": row[-n_pos:],
    }


def answer_to(model: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """A line of the answers; only what is asked for is timed, not writing it."""
    began = time.perf_counter()
    if asked.get("graph"):
        graph = attribute(torch.tensor(asked["tokens"]), model)
        return {"seconds": time.perf_counter() - began, "nodes": len(graph.adjacency_matrix)}
    found = row_of(model, asked)
    seconds = time.perf_counter() - began
    save_file({name: tensor.detach().contiguous() for name, tensor in found.items()}, asked["out"])
    return {"seconds": seconds}


def main() -> None:
    """Load, say the versions, answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--clt", required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    # Libraries print too: standard output is for answers alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")  # of autograd about hooks, once a row
    model = load(args.model, args.clt)
    print(json.dumps({name: version(name) for name in PACKAGES}), file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(answer_to(model, asked)), file=answers)
    os._exit(0)  # their model complains when it is taken down with the interpreter


if __name__ == "__main__":
    main()
