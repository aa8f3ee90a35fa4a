"""Folders of transcoders in every format: a `CheckpointError`, or a CLT whose rows can be read."""

from __future__ import annotations

import torch
from _fuzzing import folder, fuzz, instrumented, spread

with instrumented():
    from pie_fast.clt.loading import load_clt, open_clt
    from pie_fast.clt.npz import Archive
    from pie_fast.errors import CheckpointError, PieFastError
    from pie_fast.estimate import read_header

FOLDER = folder() / "clt"
NAMES = (
    "config.yaml",
    "clt_cfg.json",
    "cfg.json",
    "W_enc_0.safetensors",
    "W_dec_0.safetensors",
    "layer_0.safetensors",
    "clt_weights.safetensors",
    "rank0_clt_weights.safetensors",
    "checkpoint.safetensors",
    "sae_weights.safetensors",
    "a/cfg.json",
    "a/sae_weights.safetensors",
    "layer_0.npz",
    "W_enc_1.safetensors",
    "W_dec_1.safetensors",
)


def one(data: bytes) -> None:
    FOLDER.mkdir(exist_ok=True)
    spread(data, NAMES, FOLDER)
    for path in FOLDER.rglob("*.safetensors"):
        try:
            read_header(path)
        except PieFastError as error:
            assert str(path) in str(error), error
    for read in (open_clt, load_clt):
        try:
            clt = read(FOLDER)
        except CheckpointError as error:
            assert str(FOLDER) in str(error) or "hf://" in str(error), error
        else:
            assert clt.n_layers > 0 and clt.d_model > 0
    archive = FOLDER / "layer_0.npz"
    if archive.exists():
        try:
            found = Archive(archive)
            for key, stored in found.stored.items():
                assert found.read(key, stored.shape).dtype == torch.float32
        except CheckpointError as error:
            assert str(archive) in str(error), error


fuzz(one)
