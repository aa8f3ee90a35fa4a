"""Questions to a server that answers late, wrongly, half, or not at all."""

from __future__ import annotations

import json
import math
import signal
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from pie_fast.errors import PieFastError
from pie_fast.llm import Chat, Price, Retries, Sampling
from pie_fast.llm.answers import Ratings
from pie_fast.llm.endpoint import UnusableError
from pie_fast.llm.request import Request
from scripted_server import QUESTIONS, SOON, Body, Reply, about, chatting, serving, well


def test_answers_come_in_order_and_a_second_run_asks_nothing(tmp_path: Path) -> None:
    with serving() as server:
        for _ in range(2):
            with chatting(server, tmp_path) as chat:
                answers = chat.ask_all(QUESTIONS)
            assert answers == [Ratings(ratings={"1": 1})] * 12
            assert len(server.requests) == 12
        assert chat.spent.reused == 12 and chat.spent.requests == 0 and chat.budget.requests == 0
    assert len(list(tmp_path.iterdir())) == 12


def test_no_more_requests_at_once_than_allowed(tmp_path: Path) -> None:
    with serving(lambda body, n: Reply(delay=0.02)) as server:
        with chatting(server, tmp_path, concurrency=3) as chat:
            batches = [
                threading.Thread(target=chat.ask_all, args=(QUESTIONS[i::2],)) for i in (0, 1)
            ]
            for batch in batches:
                batch.start()
            for batch in batches:
                batch.join()
        assert server.most == 3
        assert chat.spent.answers == 12


def test_equal_questions_in_flight_are_asked_once(tmp_path: Path) -> None:
    with serving(lambda body, n: Reply(delay=0.05)) as server:
        with chatting(server, tmp_path, concurrency=8) as chat:
            answers = chat.ask_all([QUESTIONS[0]] * 8)
        assert len(server.requests) == 1 and answers == [Ratings(ratings={"1": 1})] * 8
        assert chat.spent.answers == 1 and chat.spent.reused == 7


@pytest.mark.parametrize(
    "bad",
    [
        Reply(status=500),
        Reply(status=503),
        Reply(status=408),
        Reply(status=409),
        Reply(status=429),
        Reply(cut=True),
        Reply(raw='{"choices": ['),
        Reply(raw='{"choices": []}'),
        Reply(raw="null"),
        Reply(raw='{"choices": [{"message": {"content": "\\ud800"}}]}'),
        Reply(delay=0.4),
    ],
    ids=lambda bad: f"{bad.status}-{bad.raw}-{bad.cut}-{bad.delay}",
)
def test_what_may_pass_is_asked_again(tmp_path: Path, bad: Reply) -> None:
    script = lambda body, n: bad if n < 2 else Reply()  # noqa: E731
    with serving(script) as server, chatting(server, tmp_path, timeout=0.2) as chat:
        assert chat.ask_all(QUESTIONS[:1]) == [Ratings(ratings={"1": 1})]
        assert len(server.requests) == 3 and chat.spent.requests == 3
        assert chat.failures == ()


def test_what_never_passes_is_reported_and_the_rest_is_answered(tmp_path: Path) -> None:
    def script(body: Body, n: int) -> Reply:
        if "concept 3" in about(body):
            return Reply(status=500, raw='{"error": {"message": "out of order"}}')
        return Reply(status=400) if "concept 5" in about(body) else Reply()

    with serving(script) as server, chatting(server, tmp_path) as chat:
        answers = chat.ask_all(QUESTIONS)
    assert [i for i, answer in enumerate(answers) if answer is None] == [3, 5]
    third, fifth = chat.failures
    assert (third.about, third.attempts) == ("concept 3", SOON.attempts)
    assert "status 500" in third.reason and "out of order" in third.reason
    assert (fifth.about, fifth.attempts) == ("concept 5", 1)
    assert chat.spent.failed == 2 and chat.spent.requests == 10 + SOON.attempts + 1


@pytest.mark.parametrize("how", ["0.15", "date", "nonsense", "inf", "-1"])
def test_retry_after(tmp_path: Path, how: str) -> None:
    def script(body: Body, n: int) -> Reply:
        soon = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        header = {"Retry-After": soon if how == "date" else how}
        return Reply() if n else Reply(status=429, headers=header)

    start = datetime.now(UTC)
    with serving(script) as server, chatting(server, tmp_path) as chat:
        assert chat.ask_all(QUESTIONS[:1]) == [Ratings(ratings={"1": 1})]
    waited = (datetime.now(UTC) - start).total_seconds()
    assert waited >= {"0.15": 0.15, "date": 0.9}.get(how, 0.0)  # a date has whole seconds


def test_a_server_that_asks_for_too_long_a_wait_is_given_up(tmp_path: Path) -> None:
    busy = Reply(status=429, headers={"Retry-After": "3600"})
    with serving(lambda body, n: busy) as server, chatting(server, tmp_path) as chat:
        assert chat.ask_all(QUESTIONS[:1]) == [None]
        assert chat.failures[0].attempts == 1
        assert "asks to wait 3600 s" in chat.failures[0].reason


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_an_unusable_endpoint_stops_with_one_request(tmp_path: Path, status: int) -> None:
    with serving(lambda body, n: Reply(status=status)) as server:
        with chatting(server, tmp_path) as chat, pytest.raises(UnusableError) as raised:
            chat.ask_all(QUESTIONS)
        assert len(server.requests) == 1 and chat.spent.requests == 1
    assert f"status {status}" in str(raised.value) and "'tiny'" in str(raised.value)
    assert server.url in str(raised.value)
    assert raised.value.__cause__ is None and raised.value.__context__ is None


@pytest.mark.parametrize("status", [401, 403])
def test_one_question_that_is_forbidden_later_ends_nothing(tmp_path: Path, status: int) -> None:
    script = lambda body, n: Reply(status=status) if "concept 5" in about(body) else Reply()  # noqa: E731
    with serving(script) as server, chatting(server, tmp_path, concurrency=1) as chat:
        answers = chat.ask_all(QUESTIONS)
    assert [i for i, answer in enumerate(answers) if answer is None] == [5]
    assert chat.failures[0].attempts == 1


def test_nobody_there_is_told_at_once(tmp_path: Path) -> None:
    with serving() as server:
        pass
    slow = Retries(first=100)  # one that was waited for would be noticed
    with (
        chatting(server, tmp_path, retries=slow) as chat,
        pytest.raises(PieFastError, match="refused"),
    ):
        chat.ask_all(QUESTIONS)
    assert chat.spent.requests == 1


def test_a_server_that_goes_away_ends_it_after_some_questions(tmp_path: Path) -> None:
    script = lambda body, n: Reply() if "concept 0" in about(body) else Reply(status=500)  # noqa: E731
    retries = Retries(attempts=2, first=0.001, in_a_row=4)
    with (
        serving(script) as server,
        chatting(server, tmp_path, retries=retries, concurrency=1) as chat,
    ):
        with pytest.raises(
            UnusableError, match="4 questions in a row failed, the last by: status 500"
        ):
            chat.ask_all(QUESTIONS)
        assert len(server.requests) == 1 + 4 * 2
        assert len(chat.failures) == 3  # the fourth is told by the error


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("I cannot do that", "Invalid JSON"),
        ("", "Invalid JSON"),
        ('{"rating": {"1": 1}}', "ratings: Field required"),
        ('{"ratings": {"1": 3}}', "ratings.1"),
        ('{"ratings": {"1": "2"}}', "ratings.1"),
        ('{"ratings": [1]}', "ratings"),
        ("[" * 100_000, "Invalid JSON"),
    ],
)
def test_an_invalid_answer_is_asked_again_with_the_reason(
    tmp_path: Path, content: str, reason: str
) -> None:
    script = lambda body, n: Reply(content, finish="length")  # noqa: E731
    with serving(script) as server, chatting(server, tmp_path) as chat:
        assert chat.ask_all(QUESTIONS[:1]) == [None]
    first, second, third = server.requests
    assert second["messages"][:2] == third["messages"][:2] == first["messages"]
    assert [m["role"] for m in second["messages"]] == ["system", "user", "assistant", "user"]
    assert len(third["messages"]) == 4  # only the last answer is shown
    assert (
        second["messages"][2]["content"] == content and reason in second["messages"][3]["content"]
    )
    (failure,) = chat.failures
    assert (
        failure.attempts == 3
        and reason in failure.reason
        and "cut for its length" in failure.reason
    )
    assert chat.spent.rejected == 3 and chat.spent.tokens_in == 30 and chat.spent.tokens_out == 15
    assert list(tmp_path.iterdir()) == []


def test_a_corrected_answer_is_the_answer_of_the_question(tmp_path: Path) -> None:
    script = lambda body, n: Reply() if len(body["messages"]) == 4 else Reply("no")  # noqa: E731
    with serving(script) as server:
        for _ in range(2):
            with chatting(server, tmp_path) as chat:
                assert chat.ask_all(QUESTIONS[:1]) == [Ratings(ratings={"1": 1})]
        assert len(server.requests) == 2


def test_ctrl_c_waits_for_what_is_paid(tmp_path: Path) -> None:
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
            chat.ask_all(QUESTIONS)
        assert len(server.requests) == 5 == len(list(tmp_path.iterdir()))
        assert chat.spent.answers == 5
    with serving() as server, chatting(server, tmp_path) as chat:
        assert None not in chat.ask_all(QUESTIONS)
        assert len(server.requests) == 7


def test_nothing_more_is_sent_by_what_waits_when_it_is_stopped(tmp_path: Path) -> None:
    first = iter([Reply()])

    def script(body: Body, n: int) -> Reply:
        return next(first, Reply(status=500))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with serving(script) as server, chatting(server, tmp_path, retries=Retries(first=30)) as chat:
        with pytest.raises(KeyboardInterrupt):
            chat.ask_all(QUESTIONS[:3], stop)
        assert len(server.requests) <= 3


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"format": "other", "version": 1}',
        b'{"format": "pie-fast-llm-answer", "version": 2}',
    ],
)
def test_a_broken_file_is_told_and_asked_again(tmp_path: Path, broken: bytes) -> None:
    told: list[str] = []
    with serving() as server:
        with chatting(server, tmp_path) as chat:
            chat.ask_all(QUESTIONS[:1])
        (path,) = tmp_path.iterdir()
        whole = path.read_bytes()
        path.write_bytes(broken)
        with chatting(server, tmp_path, note=told.append) as chat:
            assert chat.ask_all(QUESTIONS[:1]) == [Ratings(ratings={"1": 1})]
        assert len(server.requests) == 2 and path.read_bytes() == whole
    assert len(told) == 1 and str(path) in told[0]


@pytest.mark.parametrize("field", ["answer", "request"])
def test_a_file_that_was_changed_is_not_believed(tmp_path: Path, field: str) -> None:
    with serving() as server:
        with chatting(server, tmp_path) as chat:
            chat.ask_all(QUESTIONS[:1])
        (path,) = tmp_path.iterdir()
        stored = json.loads(path.read_text())
        del stored["checksum"]  # what it holds is compared too
        path.write_text(json.dumps(stored | {field: {"model": "other"}}))
        with chatting(server, tmp_path) as chat:
            assert chat.ask_all(QUESTIONS[:1]) == [Ratings(ratings={"1": 1})]
        assert len(server.requests) == 2


def test_another_model_template_or_sampling_is_another_question(tmp_path: Path) -> None:
    one = QUESTIONS[0]
    other = Request("rate.v2", one.about, one.messages, one.schema, one.answer_tokens)
    with serving() as server, serving() as elsewhere:
        for options in ({}, {"sampling": Sampling(seed=1)}, {"sampling": Sampling(0.5)}):
            with chatting(server, tmp_path, **options) as chat:
                chat.ask_all([one])
        with chatting(server, tmp_path) as chat:
            chat.ask_all([other])
        with Chat("another", cache=tmp_path, base_url=server.url) as chat:
            chat.ask_all([one])
        assert len(server.requests) == 5
        with chatting(elsewhere, tmp_path) as chat:  # the address is no part of it
            chat.ask_all([one])
        assert elsewhere.requests == []


def test_what_is_sent(tmp_path: Path) -> None:
    sampling = Sampling(temperature=None, max_tokens=50, seed=3, json_object=True)
    with serving() as server:
        with chatting(server, tmp_path, sampling=sampling) as chat:
            chat.ask_all(QUESTIONS[:1])
        with chatting(server, tmp_path) as chat:
            chat.ask_all(QUESTIONS[:1])
    first, second = server.requests
    assert first.keys() == {"model", "messages", "max_tokens", "seed", "response_format"}
    assert first["response_format"] == {"type": "json_object"}
    assert second.keys() == {"model", "messages", "temperature"} and second["temperature"] == 0


def test_costs_before_and_after(tmp_path: Path) -> None:
    price = Price(input=2.0, output=4.0)
    with serving(lambda body, n: Reply(usage="concept 1" in about(body))) as server:
        with chatting(server, tmp_path, price=price, dry_run=True) as chat:
            assert chat.ask_all([*QUESTIONS[:2], QUESTIONS[0]]) == [None] * 3
        assert server.requests == [] and list(tmp_path.iterdir()) == []
        assert chat.failures == () and chat.spent.requests == 0
        characters = [len(m["content"]) for q in QUESTIONS[:2] for m in q.messages]
        assert chat.budget.tokens_in == sum(-(-n // 4) for n in characters)
        assert (chat.budget.requests, chat.budget.tokens_out) == (2, 16)
        assert chat.budget.told(price).startswith("2 requests, about ")
        assert "cost" not in chat.budget.told()

        with chatting(server, tmp_path, price=price, count_tokens=lambda text: 7) as chat:
            chat.ask_all(QUESTIONS[:2])
        assert chat.budget.tokens_in == 28
        assert (chat.spent.tokens_in, chat.spent.tokens_out) == (10 + 14, 5 + 7)  # one is counted
        assert chat.spent.uncounted == 1 and "(1 answers estimated)" in chat.spent.told()
        assert chat.cost == pytest.approx((24 * 2 + 12 * 4) / 1e6)


def test_a_dry_run_needs_no_key_and_shows_what_is_in_the_cache(tmp_path: Path) -> None:
    with serving() as server, chatting(server, tmp_path) as chat:
        chat.ask_all(QUESTIONS[:1])
    with Chat("tiny", cache=tmp_path, base_url="https://example.invalid", dry_run=True) as chat:
        assert chat.ask_all(QUESTIONS[:2]) == [Ratings(ratings={"1": 1}), None]
    assert chat.budget.requests == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "ftp://127.0.0.1"}, "base_url is 'ftp://127.0.0.1', must be http"),
        ({"base_url": "127.0.0.1:80"}, "base_url is '127.0.0.1:80'"),
        ({"base_url": "http://[::1"}, "base_url is"),
        ({"base_url": "http://127.0.0.1:99999"}, "base_url is"),
        ({"base_url": "https://example.invalid", "key_variable": "NO_SUCH"}, "variable NO_SUCH"),
        ({"base_url": "http://127.0.0.1", "concurrency": 0}, "concurrency is 0"),
        ({"base_url": "http://127.0.0.1", "timeout": 0}, "timeout is 0 s, must be above 0"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(PieFastError, match=message.replace("[", r"\[")):
        Chat("tiny", cache=tmp_path, **options)


@pytest.mark.parametrize(
    "name", ["attempts", "first", "longest", "patience", "invalid", "in_a_row"]
)
def test_bad_retries(name: str) -> None:
    with pytest.raises(PieFastError, match=f"{name} is -1, must be at least"):
        Retries(**{name: -1})


@pytest.mark.parametrize("price", [-1.0, math.nan, math.inf])
def test_bad_prices(price: float) -> None:
    with pytest.raises(PieFastError, match=f"price of input is {price}, must be finite"):
        Price(price, 1.0)
    with pytest.raises(PieFastError, match=f"price of output is {price}, must be finite"):
        Price(1.0, price)


def test_nothing_to_ask(tmp_path: Path) -> None:
    with serving(well) as server, chatting(server, tmp_path) as chat:
        assert chat.ask_all([]) == [] and server.requests == []
