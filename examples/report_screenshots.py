"""Screenshots of a report at two widths in light and dark, to be looked at.

    python examples/report_screenshots.py report.html screenshots

Needs the extra `browser` and Debian's chromium (`apt install chromium`). Writes
`screenshots/{1440,390}-{light,dark}.png`, the whole page each, with the first node pinned and every
figure drawn, and `paper.pdf`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

WIDTHS = {1440: 900, 390: 844}


def take(page: Any, out: Path) -> None:
    """One screenshot of the whole page, all figures drawn and a node pinned."""
    for box in page.locator(".plot").all():
        box.scroll_into_view_if_needed()
        box.locator(".main-svg").first.wait_for()
    page.locator(".node").first.click()
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=out, full_page=True)


def main(report: Path, folder: Path) -> None:
    """All of them."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for width, height in WIDTHS.items():
            for scheme in ("light", "dark"):
                page = browser.new_page(
                    viewport={"width": width, "height": height}, color_scheme=scheme
                )
                page.goto(report.resolve().as_uri())
                take(page, folder / f"{width}-{scheme}.png")
                page.close()
        page = browser.new_page()
        page.goto(report.resolve().as_uri())
        page.pdf(path=folder / "paper.pdf", format="A4")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
