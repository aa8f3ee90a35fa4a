"""Questions about several features at a time."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from pie_fast.errors import PieFastError
from pie_fast.llm import Chat
from pie_fast.llm.answers import Ratings
from pie_fast.llm.endpoint import UnusableError
from scripted_server import QUESTIONS, Body, Reply, about, chatting, serving

RIGHT = Ratings(ratings={"1": 1})


def one_by_one(chat: Chat, n: int) -> list[Ratings | None]:
    """Two questions after each other, as for one feature."""
    (first,) = chat.ask_all([QUESTIONS[2 * n]])
    return [first, *chat.ask_all([QUESTIONS[2 * n + 1]])]


def test_several_features_are_asked_about_at_once_and_come_in_order(tmp_path: Path) -> None:
    def script(body: Body, n: int) -> Reply:
        number = int(about(body).split("concept ")[1].split('"')[0])
        return Reply("no" if number == 3 else None, delay=0.03 * (12 - number) / 12)

    told: list[tuple[int, int]] = []
    with serving(script) as server:
        with chatting(server, tmp_path, concurrency=3) as chat:
            found = chat.each(lambda n: one_by_one(chat, n), range(6), lambda *d: told.append(d))
        assert server.most == 3
    assert found == [[RIGHT, None if n == 1 else RIGHT] for n in range(6)]
    assert told == [(n, 6) for n in range(1, 7)]
    assert chat.each(str, []) == []


def test_a_wrong_key_costs_one_request_whatever_is_asked_at_once(tmp_path: Path) -> None:
    with serving(lambda body, n: Reply(status=401)) as server:
        with chatting(server, tmp_path) as chat, pytest.raises(UnusableError, match="status 401"):
            chat.each(lambda n: one_by_one(chat, n), range(6))
        assert len(server.requests) == 1


def test_what_fails_for_one_feature_stops_the_others_and_is_what_is_told(tmp_path: Path) -> None:
    asked = threading.Event()

    def work(n: int) -> None:
        chat.ask_all([QUESTIONS[n]])
        if n == 0:
            asked.set()
            while True:  # until the other one has failed
                chat.check_going()
        asked.wait()
        raise PieFastError("feature 1 is broken")

    with serving() as server, chatting(server, tmp_path, concurrency=2) as chat:
        with pytest.raises(PieFastError, match="feature 1 is broken"):
            chat.each(work, range(8))
        assert len(server.requests) == 2
        # stopped was that work only
        assert chat.ask_all(QUESTIONS[:3]) == [RIGHT] * 3
        assert chat.each(lambda n: chat.ask_all([QUESTIONS[n]]), range(2)) == [[RIGHT]] * 2


def test_ctrl_c_stores_what_is_paid_and_asks_no_more(tmp_path: Path) -> None:
    main, many, first = threading.main_thread().ident, threading.Barrier(4), iter([Reply()])
    assert main is not None

    def script(body: Body, n: int) -> Reply:
        if alone := next(first, None):
            return alone
        if many.wait(10) == 0:  # all slots are taken
            signal.pthread_kill(main, signal.SIGINT)
        return Reply(delay=0.1)

    with serving(script) as server:
        with chatting(server, tmp_path) as chat, pytest.raises(KeyboardInterrupt):
            chat.each(lambda n: one_by_one(chat, n), range(6))
        assert len(server.requests) == 5 == len(list(tmp_path.iterdir()))
        assert chat.failures == ()
    with serving() as server, chatting(server, tmp_path) as chat:
        assert chat.each(lambda n: one_by_one(chat, n), range(6)) == [[RIGHT] * 2] * 6
        assert len(server.requests) == 7
