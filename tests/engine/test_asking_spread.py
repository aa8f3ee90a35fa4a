"""Questions asked by workers: the answers, the files and the counts of one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_features import context, feature
from pie_fast.engine.on_ray import RayEngine
from pie_fast.interpretation import TokenEffect
from pie_fast.llm import Chat, LlmExplainer, LlmNarrator, LlmScorer
from pie_fast.llm.endpoint import UnusableError
from pie_fast.llm.spread import ask_by_workers
from running import contents
from scripted_server import SOON, Body, Reply, Server, data_of, serving

FEATURES = [feature(i, promoted=(TokenEffect(f" up{i}", i, 1.0),)) for i in range(20, 26)]
FIRES = [context(f"word{i} fires", 0.0, 1.0) for i in range(3)]
SILENT = [context(f"word{i} rests", kind="silent") for i in range(3)]


def script(body: Body, n: int) -> Reply:
    """Labels, then verdicts on them, then the story; there is no label of feature 23."""
    system, data = body["messages"][0]["content"], data_of(body)
    if '"label"' in system:
        label = f"about{data[0]['promoted'][0]}"
        return Reply("no" if "23" in label else json.dumps({"label": label, "reason": "it is"}))
    if '"layers"' in system:
        return Reply()
    return Reply(json.dumps({"ratings": {i: int("1" in str(text)) for i, text in data[1].items()}}))


def about_all(chat: Chat) -> Any:
    """Three stages, each of which asks about the answers of the one before."""
    labelled = LlmExplainer(chat).explain(FEATURES)
    scores = chat.each(lambda one: LlmScorer(chat).score(one, FIRES, SILENT), labelled)
    return labelled, scores, LlmNarrator(chat).narrate(labelled)


def told(
    server: Server, cache: Path, engine: RayEngine | None
) -> tuple[Any, Any, dict[str, bytes], list[str]]:
    """What is found, what it took, the files, and every request that was sent."""
    options: dict[str, Any] = {"model": "tiny", "base_url": server.url, "concurrency": 2}
    options["retries"] = SOON
    sent = len(server.requests)
    with Chat(cache=cache, **options) as chat:
        if engine is not None:
            ask_by_workers(about_all, chat, engine, cache=cache, **options)
            by_workers = len(server.requests) - sent
            assert by_workers > 0
        found = about_all(chat)
        if engine is not None:
            again = [str(body) for body in server.requests[sent + by_workers :]]
            assert all("up23" in body for body in again), "only what nobody was told"
        bodies = sorted({json.dumps(body) for body in server.requests[sent:]})
        return found, chat.spent, contents(cache), bodies


def test_workers_ask_what_one_process_would(cluster: RayEngine, tmp_path: Path) -> None:
    with serving(script) as server:
        here = told(server, tmp_path / "here", None)
        there = told(server, tmp_path / "there", cluster)
        answered = len(server.requests)
        told(server, tmp_path / "here", None)
        assert len(server.requests) > answered, "what failed is asked again, and nothing else"
    assert here[0] == there[0]
    assert here[2:] == there[2:]
    for name in ("answers", "reused", "failed"):
        assert getattr(here[1], name) == getattr(there[1], name)
    # What no worker got an answer to was asked once more.
    assert here[1].requests < there[1].requests == here[1].requests + here[1].rejected


def test_an_endpoint_that_answers_nothing_is_told(cluster: RayEngine, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": "tiny", "concurrency": 2, "retries": SOON}
    with serving(lambda body, n: Reply(status=401)) as server:
        options["base_url"] = server.url
        with (
            Chat(cache=tmp_path, **options) as chat,
            pytest.raises(UnusableError, match="status 401"),
        ):
            ask_by_workers(about_all, chat, cluster, cache=tmp_path, **options)
    assert len(server.requests) <= cluster.n_workers
    assert chat.spent.requests > 0
