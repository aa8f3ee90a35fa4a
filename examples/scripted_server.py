"""An OpenAI-compatible server of this machine that answers by a script, well or badly."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pie_fast.llm import Chat, Retries
from pie_fast.llm.answers import Ratings
from pie_fast.llm.prompts import render
from pie_fast.llm.request import Request

Body = dict[str, Any]

#: as `Retries` has them, but the times
SOON = Retries(first=0.001, longest=0.002)


@dataclass(frozen=True)
class Reply:
    """What the server does with a request.

    Attributes:
        content: The message; None for the right answer.
        status: Of HTTP.
        raw: The body instead of a chat completion.
        headers: Further ones.
        delay: Seconds until it answers.
        cut: Close the connection in the middle of the body.
        usage: Count tokens: 10 in, 5 out.
        finish: Why the message ends.
    """

    content: str | None = None
    status: int = 200
    raw: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False
    usage: bool = True
    finish: str = "stop"


@dataclass
class Server:
    """What it was asked.

    Attributes:
        url: Its `base_url`.
        requests: The body of every request.
        headers: And their headers, by name in lower case.
        paid: Right answers given, by the hash of the body.
        most: Requests at the same time, at most.
    """

    url: str
    requests: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paid: Counter[str] = field(default_factory=Counter)
    most: int = 0
    now: int = 0


def digest(body: Body) -> str:
    """What tells one question from another."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def data_of(body: Body) -> list[Any]:
    """What stands between the tags of the first question, in order."""
    user = body["messages"][1]["content"]
    return [json.loads(text) for text in re.findall(r"^<data>\n(.*)\n</data>$", user, re.MULTILINE)]


def right_answer(body: Body) -> str:
    """An answer of the form asked for."""
    system, data = body["messages"][0]["content"], data_of(body)
    if '"label"' in system:
        peaks = [context["peak"] for context in data[0]["contexts"] if "peak" in context]
        answer: Any = {"label": f"about {peaks}"[:100], "reason": "that is there"}
    elif '"ratings"' in system:
        answer = {"ratings": dict.fromkeys(data[1], 1)}
    elif '"texts"' in system:
        n = int(re.search(r"Write (\d+) texts", body["messages"][1]["content"])[1])
        part = digest(body)[:6]
        answer = {"texts": [f"text {i} of {part}" for i in range(n)]}
    else:
        layers = [{"layers": layer, "text": f"layer {layer}"} for layer in data[0]]
        answer = {"layers": layers, "summary": "all of it"}
    return json.dumps(answer)


def well(body: Body, n: int) -> Reply:
    """Every question gets its right answer."""
    return Reply()


@contextmanager
def serving(script: Callable[[Body, int], Reply] = well) -> Iterator[Server]:
    """A server on a free port.

    Args:
        script: What to do with a body that was asked `n` times before.
    """
    asked: Counter[str] = Counter()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = digest(body)
            with lock:
                server.requests.append(body)
                server.headers.append({k.lower(): v for k, v in self.headers.items()})
                n, asked[name] = asked[name], asked[name] + 1
                server.now += 1
                server.most = max(server.most, server.now)
            try:
                self._answer(body, name, script(body, n))
            finally:
                with lock:
                    server.now -= 1

        def _answer(self, body: Body, name: str, reply: Reply) -> None:
            time.sleep(reply.delay)
            content = right_answer(body) if reply.content is None else reply.content
            right = reply.content is None and reply.raw is None and reply.status == 200
            if right and not reply.cut:
                with lock:
                    server.paid[name] += 1
            message = {"role": "assistant", "content": content}
            choice = {"index": 0, "message": message, "finish_reason": reply.finish}
            completion: Body = {"id": "1", "object": "chat.completion", "created": 1}
            completion |= {"model": body["model"], "choices": [choice]}
            if reply.usage:
                usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
                completion["usage"] = usage
            sent = (json.dumps(completion) if reply.raw is None else reply.raw).encode()
            self.send_response(reply.status)
            for header, value in reply.headers.items():
                self.send_header(header, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            with suppress(OSError):  # whoever asked may have gone
                self.wfile.write(sent[: len(sent) // 2] if reply.cut else sent)
            if reply.cut:
                self.close_connection = True

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_port}/v1")
    thread = threading.Thread(
        target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@contextmanager
def chatting(server: Server, cache: Any, **options: Any) -> Iterator[Chat]:
    """A chat with it that waits next to nothing."""
    given = {"base_url": server.url, "retries": SOON, "concurrency": 4} | options
    with Chat("tiny", cache=cache, **given) as chat:
        yield chat


def question(about: str) -> Request[Ratings]:
    """A small question."""
    messages = render("rate.v1", description=about, items={"1": about}, again=False)
    return Request("rate.v1", about, messages, Ratings, 8)


QUESTIONS = [question(f"concept {i}") for i in range(12)]


def about(body: Body) -> str:
    """The text of a question."""
    return body["messages"][1]["content"]
