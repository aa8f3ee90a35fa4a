"""The key goes to the endpoint, and nowhere else."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from pie_fast.errors import PieFastError
from pie_fast.llm import Chat
from scripted_server import QUESTIONS, Body, Reply, about, chatting, right_answer, serving

KEY = "sk-a-key-that-nobody-may-see"


def indiscreet(body: Body, n: int) -> Reply:
    """A server that says the key wherever it can."""
    number = about(body)
    if "concept 1" in number:
        return Reply(right_answer(body)[:-1] + f', "said": "{KEY}"}}')
    if "concept 2" in number:
        return Reply(f"your key is {KEY}")
    if "concept 3" in number:
        return Reply(status=500, raw=f'{{"error": {{"message": "Bearer {KEY}"}}}}')
    if "concept 4" in number:
        return Reply(raw=f'{{"choices": "{KEY}"}}')
    if "concept 5" in number:
        return Reply(status=401, raw=f'{{"error": {{"message": "wrong key {KEY}"}}}}')
    return Reply()


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "ANOTHER_KEY"])
def test_the_key_is_sent_and_never_told(
    tmp_path: Path,
    variable: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv(variable, KEY)
    told: list[str] = []
    with serving(indiscreet) as server:
        with chatting(server, tmp_path, key_variable=variable, note=told.append) as chat:
            answers = chat.ask_all(QUESTIONS[:5])
        refused = chatting(server, tmp_path, key_variable=variable)
        with refused as another, pytest.raises(PieFastError) as raised:
            another.ask_all(QUESTIONS[5:6])
        assert all(headers["authorization"] == f"Bearer {KEY}" for headers in server.headers)
    assert [answer is None for answer in answers] == [False, False, True, True, True]
    assert "***" in str(raised.value) and "***" in chat.failures[1].reason
    assert "***" in str(server.requests)  # an answer of it that was shown again
    out, err = capfd.readouterr()
    shown = [*told, out, err, caplog.text, repr(chat), str(chat.failures), chat.spent.told()]
    shown += [
        "".join(traceback.format_exception(raised.value)),
        repr(vars(chat)),
        repr(vars(chat._gate)),
    ]
    shown += [str(server.requests)]
    for text in shown:
        assert KEY not in text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    for path in files:
        assert KEY.encode() not in path.read_bytes()
    assert "openai" in caplog.text  # the client did log


@pytest.mark.parametrize("inner", ["\n", "\r\n", " ", "\t", "\x7f", "é", "\u2028"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str
) -> None:
    monkeypatch.setenv("ANOTHER_KEY", f"sk-SECRET{inner}SECRET")
    with pytest.raises(PieFastError, match="variable ANOTHER_KEY has a character") as raised:
        Chat("tiny", cache=tmp_path, base_url="http://127.0.0.1", key_variable="ANOTHER_KEY")
    assert raised.value.__context__ is None
    assert "SECRET" not in "".join(traceback.format_exception(raised.value))


def test_blanks_around_a_key_are_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    with serving() as server, chatting(server, tmp_path) as chat:
        assert None not in chat.ask_all(QUESTIONS[:1])
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_redirection_does_not_take_the_key_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as other:
        there = Reply(status=307, headers={"Location": f"{other.url}/chat/completions"})
        with serving(lambda body, n: there) as server, chatting(server, tmp_path) as chat:
            chat.ask_all(QUESTIONS[:1])
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
        assert KEY not in str(other.headers)


@pytest.mark.parametrize(
    "where",
    ["user:SECRET@127.0.0.1/v1", "SECRET@127.0.0.1", "127.0.0.1/v1?key=SECRET", "u:SECRET@[::1"],
)
def test_an_address_with_credentials_is_refused_unseen(tmp_path: Path, where: str) -> None:
    with pytest.raises(PieFastError, match="environment only") as raised:
        Chat("tiny", cache=tmp_path, base_url=f"http://{where}")
    assert "SECRET" not in str(raised.value)
    with pytest.raises(PieFastError, match="environment only"):
        Chat("tiny", cache=tmp_path, base_url=where)


def test_the_address_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        with Chat("tiny", cache=tmp_path) as chat:
            assert None not in chat.ask_all(QUESTIONS[:1])
        assert len(server.requests) == 1


@pytest.mark.parametrize("missing", ["openai", "tenacity", "pydantic"])
def test_without_the_extra(missing: str) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
try:
    import pie_fast.llm
except ValueError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"PieFastError a language model needs {missing}: pip install 'pie-fast[llm]'\n"
    )


def test_no_torch() -> None:
    code = "import sys, pie_fast.llm; print({'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
