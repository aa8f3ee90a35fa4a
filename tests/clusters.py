"""One Ray cluster of two workers for all tests that need one; `conftest.py` lends it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_fast.engine import open_engine
from pie_fast.engine.on_ray import RayEngine


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayEngine]:
    # Workers import what they run: the modules of these tests too.
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with warnings.catch_warnings():
        # Ray's own use of what other libraries gave up.
        warnings.simplefilter("ignore")
        engine = open_engine("ray", workers=2)
    assert isinstance(engine, RayEngine)
    with engine:
        yield engine


@pytest.fixture(params=["local", "ray"])
def engine(request: pytest.FixtureRequest) -> object:
    if request.param == "ray":
        return request.getfixturevalue("cluster")
    return open_engine("local")
