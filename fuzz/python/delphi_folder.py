"""Delphi caches as folders: an error that names a file, or a dump that can be scored."""

from __future__ import annotations

import shutil
import warnings

from _fuzzing import folder, fuzz, instrumented, spread

with instrumented():
    from pie_fast.delphi import convert_delphi
    from pie_fast.errors import PieFastError

FOLDER = folder()
NAMES = (
    "layers.0.mlp/0_7.safetensors",
    "layers.0.mlp/8_15.safetensors",
    "layers.0.mlp/config.json",
    "layers.1.mlp.safetensors",
    "layers.99999999999999999999.mlp/0_7.safetensors",
    "layers.2.mlp/0_99999999999999999999.safetensors",
    "h.3.mlp/4_2.safetensors",
    "other/0_1.safetensors",
)


def one(data: bytes) -> None:
    source, target = FOLDER / "cache", FOLDER / "dump"
    source.mkdir(exist_ok=True)
    spread(data, NAMES, source)
    shutil.rmtree(target, ignore_errors=True)
    try:
        with warnings.catch_warnings(action="ignore"):
            dump = convert_delphi(source, target)
    except PieFastError as error:
        assert FOLDER.name in str(error) or "2**32" in str(error), error
        assert not target.exists()
        return
    if dump.n_layers * dump.n_features <= 1 << 20:
        dump.score("max")


fuzz(one)
