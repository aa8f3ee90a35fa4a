"""The report of a run: one page that explains itself and can be mailed, or Markdown for papers.

    write_report(Path("runs/ioi"), Path("report.html"))
    write_report(Path("runs/ioi"), Path("report.md"), format="md")      # and report_figures/*.png

The page holds everything (plotly's script included, 4.8 MB) and asks for nothing. No torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pie_fast.errors import PieFastError
from pie_fast.report.run import read_run
from pie_fast.storage import replacing

__all__ = ["write_report"]


def write_report(run: Path, out: Path, *, format: Literal["html", "md"] = "html") -> Path:
    """Write the report of a run; what is at `out` is replaced, whole or not at all.

    Args:
        run: The folder of `pie-fast discover`. `interpretation.json` and the dump are used where
            they are there.
        out: The file to write.
        format: `html`: one self-contained page; `md`: a Markdown file, and PNG figures in a
            folder beside it named after it.

    Returns:
        `out`.

    Raises:
        PieFastError: Another format; a file of the run is not what it should be; `md` without
            matplotlib (extra `report`).
        OSError: `result.json` cannot be read, or `out` not written.
    """
    if format not in ("html", "md"):
        raise PieFastError(f"format is {format!r}, must be 'html' or 'md'")
    opened = read_run(run)
    if format == "md":
        from pie_fast.report.markdown import markdown_report

        text = markdown_report(opened, out)
    else:
        from pie_fast.report.page import html_page

        text = html_page(opened)
    with replacing(out) as file:
        file.write(text.encode())
    return out
