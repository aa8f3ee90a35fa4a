"""The documentation: it builds without a warning, loads nothing from elsewhere, and is true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

import pie_fast
from pie_fast.cli import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as CI builds it."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


class Loaded(HTMLParser):
    """What a page loads as it is opened; links that a reader may follow are not loaded."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video"):
            self.found.append(of.get("src") or "")
        loading = ("stylesheet", "icon", "preload", "preconnect")
        if tag == "link" and of.get("rel") in loading:
            self.found.append(of.get("href") or "")


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        loaded = Loaded(page.read_text(encoding="utf-8")).found
        assert loaded
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], page


def test_pages_from_elsewhere_are_there(site: Path) -> None:
    for name, words in (("benches", "bench_select.py"), ("contributing", "Arrows point down")):
        assert words in (site / name / "index.html").read_text(encoding="utf-8")
    dropin = (site / "dropin" / "index.html").read_text(encoding="utf-8")
    assert "pie_fast.protocols" in dropin and "../python/" not in dropin


def test_the_api_has_every_public_name(site: Path) -> None:
    html = (site / "api" / "index.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'id="pie_fast\.([\w.]+)"', html))
    documented = {one.split(".")[-1] for one in anchors}
    assert not set(pie_fast._PUBLIC) - documented


def test_every_page_is_in_the_navigation() -> None:
    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [page for part in parts for page in pages(part)]

    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert len(listed) == len(set(listed))
    assert {page.name for page in PAGES} <= set(listed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_on_a_code_host_too(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


@pytest.mark.parametrize("page", ["index.md", "own.md"])
def test_python_of_the_pages_runs(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(page, "python")
    exec(compile(code, page, "exec", dont_inherit=True), {})
    assert capsys.readouterr().out


def test_the_line_of_a_behaviour_is_one() -> None:
    (line,) = blocks("own.md", "json")
    assert {"prompt", "answer", "foil", "counterfactual"} == set(json.loads(line))


def test_the_page_of_the_command_line_lists_every_command() -> None:
    listed = set(re.findall(r"`([\w-]+)`", (DOCS / "cli.md").read_text(encoding="utf-8")))
    named = [one.name for one in app.registered_commands + app.registered_groups]
    assert named and set(named) <= listed
