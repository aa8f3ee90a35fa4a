"""The journal: whole lines only, a torn last one dropped, one process at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_fast.checkpoints import Checkpoints
from pie_fast.errors import JournalError, RunInUseError
from pie_fast.journal import Journal, begin, differences, locked, unfinished


def made(folder: Path, n: int = 3) -> Journal:
    journal = Journal(folder)
    for i in range(n):
        journal.write("begun" if i == 0 else "stage", name="discover", number=i)
    return journal


def test_events_are_read_as_written(tmp_path: Path) -> None:
    events = made(tmp_path).events()
    assert [event["number"] for event in events] == [0, 1, 2]
    assert all(event["at"].endswith("+00:00") and event["pid"] > 0 for event in events)
    assert Journal(tmp_path / "none").events() == []


def test_a_last_line_torn_anywhere_is_dropped_and_told(tmp_path: Path) -> None:
    journal = made(tmp_path)
    content = journal.path.read_bytes()
    last = content.rindex(b"\n", 0, len(content) - 1) + 1
    for end in range(last + 1, len(content), 7):
        journal.path.write_bytes(content[:end])
        assert len(journal.events()) == 2
        told: list[str] = []
        with locked(tmp_path, told.append) as again:
            again.write("stage", number=9)
        assert len(told) == 1 and "line 3 was torn" in told[0]
        assert [event.get("number") for event in journal.events()] == [0, 1, 9]


@given(data=st.data())
def test_a_changed_byte_before_the_last_line_is_an_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    journal = made(tmp_path_factory.mktemp("journal"))
    content = bytearray(journal.path.read_bytes())
    last = content.rindex(b"\n", 0, len(content) - 1)
    at = data.draw(st.integers(0, last - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    journal.path.write_bytes(bytes(content))
    with pytest.raises(JournalError, match="is broken"):
        journal.events()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    made(tmp_path)
    refused = pytest.raises(RunInUseError, match=r"in use by process \d+")
    with locked(tmp_path), refused, locked(tmp_path):
        raise AssertionError
    with locked(tmp_path):
        pass


def test_what_was_begun_otherwise_is_refused(tmp_path: Path) -> None:
    told: list[str] = []
    how = {"command": ["pie-fast"], "asked": None, "note": told.append, "resume": True}
    journal = Journal(tmp_path)
    begin(journal, "discover", {"plan": {"k": 1}, "model": "a"}, threads=1, **how)  # type: ignore[arg-type]
    with pytest.raises(JournalError, match=r"model is 'b', was 'a'; plan.k is 2, was 1"):
        begin(journal, "discover", {"plan": {"k": 2}, "model": "b"}, threads=1, **how)  # type: ignore[arg-type]
    again = begin(journal, "discover", {"plan": {"k": 1}, "model": "a"}, threads=2, **how)  # type: ignore[arg-type]
    assert again["threads"] == 1 and "begun with 1 threads, gone on with 2" in told[0]
    assert len(unfinished(journal)) == 1
    journal.write("finished", name="discover", spent={})
    assert unfinished(journal) == []


def test_differences_name_fields() -> None:
    assert list(differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})) == [
        "b.c is 3, was 2"
    ]
    assert list(differences({"a": 1}, {})) == ["a is None, was 1"]


def test_a_stage_runs_once_and_again_where_its_file_is_broken(tmp_path: Path) -> None:
    told: list[str] = []
    saved, runs = Checkpoints(Journal(tmp_path), told.append), []

    def work() -> dict[str, object]:
        runs.append(1)
        return {"values": (0.1, 1e-300, None)}

    expected = {"values": [0.1, 1e-300, None]}
    for _ in range(2):
        assert saved.once("work", work, of=[1]) == expected
    assert len(runs) == 1 and told == []
    assert saved.once("work", work, of=[2]) == expected and len(runs) == 2
    path = tmp_path / "stages" / "work.json"
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        found = saved.read("work", of=[2])
        assert found is None or found == (expected,)
    path.write_bytes(b"")
    assert saved.once("work", work, of=[2]) == expected and "is broken" in told[-1]
