"""A real server of another make, `transformers serve`, with a model too small to say anything.

A random model writes no JSON, so what is seen here over its HTTP are answers that are refused and
counted. Answers that are accepted come from the scripted server of the other tests only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer, LlamaForCausalLM

import pie_fast
from pie_fast.interpretation import Interpretation, TopContext
from pie_fast.llm import Chat, LlmExplainer, LlmRater, Retries, Sampling
from pie_fast.types import FeatureId
from tiny import random_llama

#: the server ends when its standard input does, and so with whoever started it
START = """
import os, sys, threading
threading.Thread(target=lambda: os._exit(sys.stdin.read() == ""), daemon=True).start()
from transformers.cli.transformers import main
main()
"""
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a tokenizer and a chat template."""
    folder = tmp_path_factory.mktemp("served") / "model"
    tokenizer = AutoTokenizer.from_pretrained(pie_fast.demo_model_path())
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    config = random_llama().config
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 4096
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's address on this machine, on a port that it chose itself."""
    log = tmp_path_factory.mktemp("log") / "log"
    offline = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    options = ("--host", "127.0.0.1", "--port", "0", "--device", "cpu")
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-c", START, "serve", str(folder), *options],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | offline,
        ) as process,
    ):
        try:
            yield f"{address(process, log)}/v1"
        finally:
            process.kill()
    assert process.returncode is not None


def address(process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(1200):
        told = log.read_text()
        running = re.search(r"running on (http://127\.0\.0\.1:\d+)", told)
        if running is not None:
            return running[1]
        assert process.poll() is None, told
        time.sleep(0.1)
    raise AssertionError(f"no server after two minutes: {log.read_text()}")


def test_what_it_babbles_is_counted_and_reported(served: str, folder: Path, tmp_path: Path) -> None:
    contexts = (TopContext((" then", " Mary"), 1, 2.0, "top", (0.0, 2.0)),)
    features = [
        Interpretation(FeatureId(0, i), 1.0, f"rule {i}", contexts=contexts, layer=0)
        for i in range(2)
    ]
    with Chat(
        str(folder),
        cache=tmp_path,
        base_url=served,
        sampling=Sampling(max_tokens=12, seed=0),
        retries=Retries(invalid=1, first=0.01),
        timeout=60,
        concurrency=2,
    ) as chat:
        assert LlmExplainer(chat).explain(features) == features
        assert LlmRater(chat).rate("names", [" Mary", " it rains"]) == [None, None]
    assert [failure.about for failure in chat.failures] == ["L0:0", "L0:1", "names"]
    assert all("Invalid JSON" in failure.reason for failure in chat.failures)
    spent = chat.spent
    # both features look alike: one question, asked twice; the ratings twice too
    assert (spent.answers, spent.rejected, spent.requests, spent.failed) == (0, 4, 4, 3)
    assert 0 < spent.tokens_out <= 4 * 12 and spent.tokens_in > 4 * 100 and spent.uncounted == 0
    assert list(tmp_path.iterdir()) == []
