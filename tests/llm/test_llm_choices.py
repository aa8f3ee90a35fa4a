"""What is asked of a language model is checked before anything runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pie_fast.errors import PieFastError
from pie_fast.interpret.by_llm import LlmChoices
from scripted_server import serving


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "ftp://somewhere"}, "base_url is 'ftp://somewhere'"),
        ({"base_url": "https://example.invalid"}, "variable NO_SUCH_KEY"),
        ({"base_url": "http://127.0.0.1", "concurrency": 0}, "concurrency is 0"),
        ({"base_url": "http://127.0.0.1", "price": (-1.0, 1.0)}, "price of input is -1.0"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PieFastError, match=message):
        LlmChoices("tiny", tmp_path, key_variable="NO_SUCH_KEY", **options).check()


def test_a_bad_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a\nkey")
    with pytest.raises(PieFastError, match="variable OPENAI_API_KEY has a character"):
        LlmChoices("tiny", tmp_path).check()


def test_what_can_work_sends_nothing(tmp_path: Path) -> None:
    with serving() as server:
        LlmChoices("tiny", tmp_path / "answers", base_url=server.url).check()
        assert server.requests == []
    LlmChoices("tiny", tmp_path / "answers", key_variable="NO_SUCH_KEY", dry_run=True).check()
    assert list(tmp_path.iterdir()) == []


def test_rules_need_no_extra_and_its_absence_is_told_by_the_check() -> None:
    code = """
import sys
from pathlib import Path
sys.modules["openai"] = None
from pie_fast.interpret.by_llm import LlmChoices
try:
    LlmChoices("tiny", Path("nowhere"), dry_run=True).check()
except ValueError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "PieFastError a language model needs openai: pip install 'pie-fast[llm]'\n"
    )
