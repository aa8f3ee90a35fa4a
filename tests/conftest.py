"""Fixtures of the tests that run a model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from clusters import cluster, engine  # noqa: F401  fixtures

# Before torch is imported: at this size a second thread costs more than it gives.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Machines are shared: how long one example takes says nothing about the code.
settings.register_profile("pie_fast", deadline=None)
settings.load_profile("pie_fast")

if TYPE_CHECKING:
    from pie_fast.replacement_model import ReplacementModel


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny random GPT-2 folder and a CLT folder that fits it."""
    import tiny

    root = tmp_path_factory.mktemp("tiny")
    return tiny.write_gpt2(root / "model"), tiny.write_clt(root / "clt")


@pytest.fixture(scope="session")
def tiny_model(tiny_folders: tuple[Path, Path]) -> Iterator[ReplacementModel]:
    from pie_fast.replacement_model import load_model

    yield load_model(*map(str, tiny_folders), device="cpu")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        # The pages are ours or asked for; a container's root has no sandbox.
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()
