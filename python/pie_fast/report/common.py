"""What both forms of a report say of a run, ready for their templates."""

from __future__ import annotations

from typing import Any

from pie_fast.report.facts import (
    cost_rows,
    headline,
    notes,
    quality_rows,
    setting_rows,
    version_rows,
)
from pie_fast.report.kept import counted_from_end
from pie_fast.report.narrative import all_narratives
from pie_fast.report.run import Run


def common_facts(run: Run) -> dict[str, Any]:
    """By the names that templates know."""
    return {
        "head": headline(run),
        "notes": notes(run),
        "from_end": counted_from_end(run),
        "narrative": all_narratives(run.told),
        "quality": quality_rows(run.told.get("quality") or {}),
        "costs": cost_rows(run.result),
        "costs_told": cost_rows(run.told),
        "settings": setting_rows(run),
        "versions": version_rows(run),
    }
