"""A server that fails 3 of 10 calls: all is explained or reported, and nothing is paid twice."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llm_features import context, feature
from pie_fast.llm import LlmExplainer, Retries
from scripted_server import Body, Reply, chatting, digest, serving

FEATURES = [
    feature(i, contexts=(context(f"Mary and John {i}", 0.0, 0.0, 1.0, 2.0),)) for i in range(50)
]
STEADY = Retries(attempts=30, invalid=30, first=0.001, longest=0.002)
IMPATIENT = Retries(attempts=1, invalid=0, first=0.001)


def fail_at_random(body: Body, n: int, seed: int = 0) -> Reply:
    """3 of 10 go wrong, each in one of many ways."""
    draw = random.Random(f"{digest(body)} {n} {seed}")
    if draw.random() >= 0.3:
        return Reply()
    return draw.choice(
        [
            Reply(status=500),
            Reply(status=429, headers={"Retry-After": "0"}),
            Reply(cut=True),
            Reply("not JSON"),
            Reply('{"label": 7}'),
            Reply(raw="<html>"),
        ]
    )


@dataclass
class Stopped:
    """Ctrl-C once 10 are done; after 30 requests the server waits for it, however slow we are."""

    seed: int
    asked: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def script(self, body: Body, n: int) -> Reply:
        self.asked += 1
        if self.asked > 30:
            self.stopped.wait(20)
        return fail_at_random(body, n, self.seed)

    def advance(self, done: int, total: int) -> None:
        if done == 10:
            threading.Timer(0.1, self.stopped.set).start()  # when it has been told
            raise KeyboardInterrupt


@pytest.mark.parametrize("seed", range(3))
def test_it_is_stopped_goes_on_and_costs_nothing_again(tmp_path: Path, seed: int) -> None:
    stopped_once = Stopped(seed)
    with serving(stopped_once.script) as server:
        with chatting(server, tmp_path, retries=STEADY) as chat, pytest.raises(KeyboardInterrupt):
            LlmExplainer(chat).explain(FEATURES, stopped_once.advance)
        stopped = len(list(tmp_path.iterdir()))
        assert 10 <= stopped == sum(server.paid.values()) < 50  # what was paid is on disk
        with chatting(server, tmp_path, retries=STEADY) as chat:
            explained = LlmExplainer(chat).explain(FEATURES)
        assert chat.spent.reused == stopped and chat.failures == ()
        assert {one.explainer for one in explained} == {"openai:tiny"}
        assert len(server.requests) > 50  # some did fail
        assert sum(server.paid.values()) == 50 and set(server.paid.values()) == {1}
        sent = len(server.requests)
        with chatting(server, tmp_path, retries=STEADY) as chat:
            assert LlmExplainer(chat).explain(FEATURES) == explained
        assert len(server.requests) == sent and chat.spent.requests == 0


def test_what_failed_is_reported_and_asked_by_the_next_run(tmp_path: Path) -> None:
    with serving(fail_at_random) as server:
        left = len(FEATURES)
        for _ in range(12):
            with chatting(server, tmp_path, retries=IMPATIENT) as chat:
                explained = LlmExplainer(chat).explain(FEATURES)
            by_rules = [str(one.feature) for one in explained if one.explainer == "rules"]
            assert [failure.about for failure in chat.failures] == by_rules
            assert chat.spent.failed == len(by_rules) and chat.spent.requests == left
            left = len(by_rules)
        assert left == 0 and set(server.paid.values()) == {1}
