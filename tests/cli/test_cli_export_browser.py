"""An exported graph in circuit-tracer's own pages, in Debian's chromium.

The pages are those of an installed `circuit-tracer`, or of the folder that the variable
CIRCUIT_TRACER_FRONTEND names. Scripts that they load from elsewhere are Debian's node-d3,
node-pako and node-dagre-layout; for d3-jetpack, which Debian does not have, `front_end.js` stands
in. No request leaves the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pie_fast.exchange import Graph, read_graph
from running import run_cli

pytestmark = pytest.mark.browser

NODE = Path("/usr/share/nodejs")
SCRIPTS = {
    "d3.js": NODE / "d3" / "dist" / "d3.min.js",
    "pako.min.js": NODE / "pako" / "dist" / "pako.min.js",
    "dagre.min.js": NODE / "dagre" / "dist" / "dagre.min.js",
    "jetpack_2024-07-20.js": Path(__file__).with_name("front_end.js"),
}
#: for development, and for files that no graph has
UNUSED = ("hotserver-client-ws.js", "npy_v0.js")

SITE = "http://graphs.test"


def front_end() -> Path:
    """The folder of the pages; skips where there is none, or a script is missing."""
    named = os.environ.get("CIRCUIT_TRACER_FRONTEND")
    found = find_spec("circuit_tracer")
    if named is None and (found is None or found.origin is None):
        pytest.skip("circuit-tracer is not installed and CIRCUIT_TRACER_FRONTEND is not set")
    missing = [path for path in SCRIPTS.values() if not path.exists()]
    if missing:
        pytest.skip(f"{missing[0]} is missing: apt install node-d3 node-pako node-dagre-layout")
    if named is not None:
        return Path(named)
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "frontend" / "assets"


@dataclass
class Heard:
    """What a page said and could not have."""

    errors: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Site:
    """circuit-tracer's server: its pages, and graphs of a folder."""

    pages: Path
    data: Path
    heard: Heard

    def answer(self, route: Any) -> None:
        url = urlsplit(route.request.url)
        found = self.file(f"{url.scheme}://{url.netloc}", url.path)
        if found is not None:
            route.fulfill(path=found)
        elif Path(url.path).name in UNUSED:
            route.fulfill(body="", content_type="text/javascript")
        else:
            self.heard.refused.append(route.request.url)
            route.fulfill(status=404)

    def file(self, site: str, path: str) -> Path | None:
        if site != SITE:
            return SCRIPTS.get(Path(path).name)
        top, _, rest = path[1:].partition("/")
        found = self.data / rest if top in ("data", "graph_data") else self.pages / path[1:]
        return found if found.is_file() else None


@pytest.fixture(scope="module")
def exported(grouped_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("data")
    return run_cli("export", grouped_run, "--to", "circuit-tracer", "-o", out, "--json").json


@pytest.fixture
def opened(browser: Any, exported: dict[str, Any]) -> Iterator[tuple[Any, Heard, Graph]]:
    heard = Heard()
    site = Site(front_end(), Path(exported["file"]).parent, heard)
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(10_000)
    page.on("pageerror", lambda error: heard.errors.append(str(error)))
    page.route("**/*", lambda route: site.answer(route))
    page.goto(f"{SITE}/index.html?{exported['query']}")
    page.wait_for_selector(".link-graph .node")
    yield page, heard, read_graph(exported["file"])
    page.close()


def drawn(page: Any, kind: str) -> int:
    count: int = page.evaluate(
        "kind => d3.selectAll('.link-graph .node').data().filter(d => d.feature_type == kind)"
        ".length",
        kind,
    )
    return count


def test_every_node_is_drawn_and_nothing_fails(opened: tuple[Any, Heard, Graph]) -> None:
    page, heard, graph = opened
    assert page.title() == f"Attribution Graph: {graph.prompt}"
    assert page.locator(".link-graph .node").count() == len(graph.nodes)
    assert drawn(page, "cross layer transcoder") == len(graph.features) > 0
    assert drawn(page, "logit") == 1
    assert heard == Heard()


def click(page: Any, node_id: str) -> None:
    """With the mouse: the page looks for the node nearest to it."""
    place = page.evaluate(
        "id => d3.selectAll('.link-graph .node').data().findIndex(d => d.nodeId == id)", node_id
    )
    box = page.locator(".link-graph .node").nth(place).bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_a_clicked_node_shows_what_feeds_it(opened: tuple[Any, Heard, Graph]) -> None:
    page, heard, graph = opened
    target = graph.target
    assert target is not None
    click(page, target.id)
    shown = page.locator(".node-connections")
    assert target.label in shown.inner_text()
    fed = {link.source: link.weight for link in graph.links if link.target == target.id}
    weights = [row.split("\n")[-1] for row in shown.locator(".feature-row").all_inner_texts()]
    assert weights == [f"{weight:+.3f}" for weight in sorted(fed.values(), reverse=True)]
    assert heard == Heard()


def test_supernodes_are_drawn_as_groups(opened: tuple[Any, Heard, Graph]) -> None:
    page, heard, graph = opened
    assert len(graph.supernodes) > 0
    below = page.locator(".subgraph").inner_text()
    for label, _ in graph.supernodes:
        assert label in below
    assert heard == Heard()
