"""The report of a run: one page that explains itself and can be mailed, or Markdown for papers.

    write_report(Path("runs/ioi"), Path("report.html"))
    write_report(Path("runs/ioi"), Path("report.md"), format="md")      # and report_figures/*.png

The page holds everything (plotly's script included, 4.8 MB) and asks for nothing. No torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pie_fast.errors import PieFastError
from pie_fast.outputs import RESULT
from pie_fast.report.run import INTERPRETATION, read_run
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
        PieFastError: Another format; not a run; a file of the run is not what it should be; `md`
            without matplotlib (extra `report`).
        OSError: `result.json` cannot be read, or `out` not written.
    """
    if format not in ("html", "md"):
        raise PieFastError(f"format is {format!r}, must be 'html' or 'md'")
    try:
        text = _markdown(run, out) if format == "md" else _html(run)
    except PieFastError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise PieFastError(_damaged(run, error)) from error
    with replacing(out) as file:
        file.write(text.encode())
    return out


def _damaged(run: Path, error: Exception) -> str:
    found = f"no field {error}" if isinstance(error, KeyError) else str(error)
    or_told = f", or of {INTERPRETATION} as `interpret`" if (run / INTERPRETATION).exists() else ""
    return f"{run / RESULT}: a field is not as `discover` writes it{or_told}: {found}"


def _html(run: Path) -> str:
    from pie_fast.report.page import html_page

    return html_page(read_run(run))


def _markdown(run: Path, out: Path) -> str:
    from pie_fast.report.markdown import markdown_report

    return markdown_report(read_run(run), out)
