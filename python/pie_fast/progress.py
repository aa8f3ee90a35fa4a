"""Stages of long work: what, how much, how long still; quiet when nobody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pie_fast.cost import Cost

#: called with how much is done and how much there is
Advance = Callable[[int, int], None]


class Reporter:
    """Measures the stages of a run, and shows them on a terminal.

    Args:
        visible: Show progress bars on standard error.
        notes: Print notes there.

    Attributes:
        timings: Stage -> seconds.
        calls: Stage -> model calls, of stages after `count`.
    """

    def __init__(self, *, visible: bool = False, notes: bool = False) -> None:
        self.visible, self.notes = visible, notes
        self.timings: dict[str, float] = {}
        self.calls: dict[str, Cost] = {}
        self._spent: Callable[[], Cost] | None = None

    def count(self, spent: Callable[[], Cost]) -> None:
        """Count model calls too, by what `spent` says before and after a stage."""
        self._spent = spent

    def note(self, text: str) -> None:
        """Tell something that is no error."""
        if self.notes:
            print(f"pie-fast: note: {text}", file=sys.stderr)

    def told(self) -> list[str]:
        """A line for each stage: its time, and its model calls where they were counted."""
        lines = []
        for name, seconds in self.timings.items():
            spent = self.calls.get(name, Cost())
            calls = (
                f", {spent.forward:g} forward and {spent.backward:g} backward passes of a prompt"
            )
            lines.append(f"{name}: {seconds:.2f} s{calls if spent != Cost() else ''}")
        return lines

    @contextmanager
    def stage(self, name: str) -> Iterator[Advance]:
        """Time a stage; call what it yields as the stage goes on."""
        start = time.perf_counter()
        before = self._spent and self._spent()
        try:
            if self.visible:
                with _bar(name) as advance:
                    yield advance
            else:
                yield lambda done, total: None
        finally:
            spent = time.perf_counter() - start
            self.timings[name] = self.timings.get(name, 0.0) + spent
            if before is not None and self._spent is not None:
                self.calls[name] = self.calls.get(name, Cost()) + (self._spent() - before)


@contextmanager
def _bar(name: str) -> Iterator[Advance]:
    # rich is only needed where somebody watches
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.3g}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
