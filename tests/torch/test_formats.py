"""Every format that a CLT may be stored in, against one literal CLT."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import writing_clts as writing
from pie_fast.clt import Clt, load_clt
from writing_clts import D, F, L, Plain

Writer = Callable[[Path, torch.dtype], Plain]

#: by name, what writes the format and says what it wrote
FORMATS: dict[str, Writer] = {
    "clt-forge": lambda to, dtype: writing.clt_forge(to, writing.plain(), dtype=dtype),
    "clt-forge shards": lambda to, dtype: writing.clt_forge(
        to, writing.plain(), dtype=dtype, shards=3
    ),
    "clt-forge per layer": lambda to, dtype: writing.clt_forge(
        to, writing.plain(crosses=False), dtype=dtype, factors=False
    ),
    "clt-forge per layer shards": lambda to, dtype: writing.clt_forge(
        to, writing.plain(crosses=False), dtype=dtype, shards=2
    ),
    "crosslayer": lambda to, dtype: writing.crosslayer(to, writing.plain(), dtype=dtype),
    "crosslayer dimensions": lambda to, dtype: writing.crosslayer(
        to, writing.plain(), dtype=dtype, standardizer="Dimensionwise"
    ),
    "crosslayer layers": lambda to, dtype: writing.crosslayer(
        to, writing.plain(crosses=False), dtype=dtype, standardizer="Layerwise"
    ),
    "crosslayer relu": lambda to, dtype: writing.crosslayer(
        to, writing.plain(activation="relu"), dtype=dtype, nonlinearity="ReLU"
    ),
    "crosslayer topk": lambda to, dtype: writing.crosslayer(
        to, writing.plain(activation="topk-positive"), dtype=dtype, nonlinearity="PerLayerTopK"
    ),
    "crosslayer batch topk": lambda to, dtype: writing.crosslayer(
        to, writing.plain(), dtype=dtype, nonlinearity="BatchTopK"
    ),
    "crosslayer layer batch topk": lambda to, dtype: writing.crosslayer(
        to, writing.plain(crosses=False), dtype=dtype, nonlinearity="PerLayerBatchTopK"
    ),
    "sae-lens": lambda to, dtype: writing.sae_lens(
        to, writing.plain(crosses=False, activation="relu"), dtype=dtype
    ),
    "sae-lens skip, old": lambda to, dtype: writing.sae_lens(
        to, writing.plain(crosses=False, activation="relu", skip=True), dtype=dtype, old=True
    ),
    "sae-lens jumprelu": lambda to, dtype: writing.sae_lens(
        to, writing.plain(crosses=False), dtype=dtype
    ),
    "sae-lens jumprelu skip": lambda to, dtype: writing.sae_lens(
        to, writing.plain(crosses=False, skip=True), dtype=dtype
    ),
}


def check_same(clt: Clt, one: Plain) -> None:
    """Arrays, activations and reconstructions, to 1e-5."""

    def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)

    x = torch.randn(L, 2, 6, D, generator=torch.Generator().manual_seed(3))
    acts = one.encode(x.flatten(1, 2)).view(L, 2, 6, F)
    assert (acts != 0).any((1, 2)).sum() > 20
    rebuilt = clt.b_dec[:, None, None].expand(x.shape).clone()
    for layer in clt.covered:
        encoder = clt.encoder(layer)
        close(encoder.weight(), one.w_enc[layer])
        close(encoder.bias, one.b_enc[layer])
        columns = encoder.encode(x[layer])
        every = torch.arange(F)
        close(columns.at(every), acts[layer])
        some = torch.tensor([0, 3, 17, F - 1])
        close(encoder.encode_only(x[layer], some), acts[layer][..., some])
        close(encoder.rows(some), one.w_enc[layer][some])
        targets = clt.targets(layer)
        assert list(targets) == [t for s, t in one.w_dec if s == layer]
        wanted = torch.stack([one.w_dec[layer, t] for t in targets], 1)
        close(clt.rows(layer, every), wanted)
        close(clt.rows(layer, some), wanted[some])
        writes = clt.decode(layer, columns.ids, columns.values)
        for place, target in enumerate(targets):
            rebuilt[target] += writes[..., place, :]
        skip = clt.skip(layer, x[layer])
        assert (skip is None) == (one.skip is None)
        if skip is not None:
            rebuilt[layer] += skip
    close(clt.b_dec, one.b_dec)
    close(rebuilt, one.rebuild(x.flatten(1, 2)).view(rebuilt.shape))


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_holds_what_was_written(name: str, tmp_path: Path) -> None:
    one = FORMATS[name](tmp_path / "clt", torch.float32)
    assert os.path.isabs(tmp_path)
    for lazy in (False, True):
        check_same(load_clt(tmp_path / "clt", lazy_encoder=lazy), one)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_in_half_precision(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    one = FORMATS[name](tmp_path / "clt", dtype)
    check_same(load_clt(tmp_path / "clt"), one)
