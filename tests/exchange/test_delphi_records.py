"""Records for Delphi: attributes as its code reads them, and classes that are handed in."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_fast.errors import PieFastError
from pie_fast.exchange import delphi_record, delphi_records
from pie_fast.exchange.delphi_records import LatentRecord
from pie_fast.interpretation import Interpretation, TopContext
from pie_fast.types import FeatureId


def context(values: list[float], kind: str = "top") -> TopContext:
    peak = int(np.argmax(np.abs(values))) if any(values) else None
    tokens = tuple(f" t{i}" for i in range(len(values)))
    return TopContext(tokens, peak, max(values, default=0.0), kind, tuple(values))


def feature(*contexts: TopContext, **known: object) -> Interpretation:
    return Interpretation(FeatureId(3, 17), 0.5, "a label", 3, contexts=contexts, **known)


ROWS = st.lists(st.floats(0.125, 100, width=32), min_size=1, max_size=6)


@given(st.lists(ROWS, min_size=1, max_size=25))
def test_examples_are_sorted_scaled_and_split(rows: list[list[float]]) -> None:
    record = delphi_record(feature(*[context(row) for row in rows]))
    peaks = [example.max_activation for example in record.examples]
    assert peaks == sorted((max(row) for row in rows), reverse=True)
    assert record.max_activation == peaks[0]
    assert {id(e) for e in record.train + record.test} == {id(e) for e in record.examples}
    assert len(record.train) + len(record.test) == len(record.examples)
    quantiles = [example.quantile for example in record.examples]
    assert quantiles == sorted(quantiles) and quantiles[0] == 0 and quantiles[-1] < 10
    for example in record.examples:
        normal = example.normalized_activations.tolist()
        expected = np.clip(np.ceil(example.activations.numpy() * 10 / np.float32(peaks[0])), 0, 10)
        assert normal == expected.tolist()
        assert len(example.str_tokens) == len(example.tokens) == len(normal)


def test_a_record_has_what_delphi_reads() -> None:
    silent = TopContext((" a", " b"), None, 0.0, "silent")
    record = delphi_record(
        feature(context([0.0, 2.0]), silent, density=0.25), module="h.{layer}.mlp", token_id=len
    )
    assert str(record.latent) == "h.3.mlp_latent17"
    assert record.latent.module_name == "h.3.mlp" and record.latent.latent_index == 17
    assert record.explanation == "a label" and record.per_token_frequency == 0.25
    assert record.neighbours == [] and record.extra_examples is None
    (example,) = record.train
    assert example.tokens.tolist() == [3, 3] and example.str_tokens == [" t0", " t1"]
    assert str(example.activations.dtype) == "torch.float32"
    assert str(example.tokens.dtype) == "torch.int64"
    (quiet,) = record.not_active
    assert quiet.activations.tolist() == [0.0, 0.0] and quiet.max_activation == 0.0
    assert quiet.distance == -1.0


def test_without_ids_no_token_has_a_valid_one() -> None:
    (record,) = delphi_records([feature(context([1.0]))])
    assert record.examples[0].tokens.tolist() == [-1]
    assert isinstance(record, LatentRecord)


def test_classes_are_taken_from_where_one_says() -> None:
    def made(kind: str) -> object:
        return lambda *args, **fields: SimpleNamespace(kind=kind, args=args, **fields)

    names = ("Latent", "LatentRecord", "ActivatingExample", "NonActivatingExample")
    types = SimpleNamespace(**{name: made(name) for name in names})
    silent = TopContext((" a",), None, 0.0, "silent")
    record = delphi_record(feature(context([1.0]), silent), types=types)
    assert record.kind == "LatentRecord" and record.latent.args == ("layers.3.mlp", 17)
    assert [example.kind for example in record.examples] == ["ActivatingExample"]
    assert [example.kind for example in record.not_active] == ["NonActivatingExample"]


def test_a_feature_that_never_fires_has_an_empty_record() -> None:
    record = delphi_record(feature())
    assert record.examples == record.train == record.test == record.not_active == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (TopContext((" a", " b"), 0, 1.0), "2 tokens and 0 activations"),
        (TopContext((" a", " b"), 0, 1.0, "top", (1.0,)), "2 tokens and 1 activations"),
        (TopContext((), 0, 1.0), "0 tokens and 0 activations"),
        (TopContext((" a",), 0, 1.0, "quantile", (float("nan"),)), "not finite"),
    ],
)
def test_contexts_without_all_activations_are_refused(bad: TopContext, message: str) -> None:
    with pytest.raises(PieFastError, match=f"L3:17 .*{message}"):
        delphi_record(feature(bad))


def test_a_feature_without_layer_is_refused() -> None:
    with pytest.raises(PieFastError, match=r"\(1, 2\) has no layer and index"):
        delphi_record(Interpretation((1, 2), 0.5))


def test_without_torch_arrays_are_numpy_and_the_package_needs_none() -> None:
    code = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from pie_fast.exchange import delphi_record
from pie_fast.interpretation import Interpretation, TopContext
from pie_fast.types import FeatureId
one = Interpretation(FeatureId(0, 1), 1.0, contexts=(TopContext((" a",), 0, 2.0, "top", (2.0,)),))
example = delphi_record(one).examples[0]
print(type(example.activations).__name__, example.max_activation, "transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ndarray", "2.0", "False"]
