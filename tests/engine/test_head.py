"""A head that is gone is told, and in time."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from pie_fast.engine import open_engine
from pie_fast.engine.head import Head
from pie_fast.errors import WorkerError


def listening() -> tuple[socket.socket, str]:
    server = socket.create_server(("127.0.0.1", 0))
    return server, f"127.0.0.1:{server.getsockname()[1]}"


def test_one_that_answers_is_there_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pie_fast.engine.head.AWAY", 0.2)
    server, address = listening()
    head = Head(address)
    with server:
        head.check()
        head.check()
    head.glance()  # it was looked at a moment ago
    for _ in range(2):
        with pytest.raises(WorkerError, match=f"^the Ray cluster at {address} is gone: .*0.2 s"):
            head.check()
    begin = time.monotonic()
    with pytest.raises(WorkerError, match="resume"):
        head.check()
    assert time.monotonic() - begin < 0.1, "what is gone is not waited for again"


def test_one_that_is_started_again_in_time_was_never_gone() -> None:
    server, address = listening()
    server.close()
    again: list[socket.socket] = []

    def start() -> None:
        again.append(socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))))

    timer = threading.Timer(0.3, start)
    timer.start()
    Head(address).check()
    timer.join()
    again[0].close()


def test_a_cluster_that_is_not_there_is_not_looked_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("pie_fast.engine.head.AWAY", 0.2)
    server, address = listening()
    server.close()
    with pytest.raises(WorkerError, match=f"^the Ray cluster at {address} is gone"):
        open_engine("ray", address=address)
