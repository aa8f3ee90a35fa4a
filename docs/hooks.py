"""The documentation site: pages that stand elsewhere, and links that work in both places.

On a code host a page links to `../python/pie_fast/protocols.py` or `../benches/README.md`. In the
site the second is a page of its own, and the first, which is no page, becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent

#: file of the repository -> page of the site
ELSEWHERE = {
    "README.md": "index.md",
    "benches/README.md": "benches.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}

_LINK = re.compile(r"\[([^\]\[]+)\]\((?!https?://|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:mod|func|meth|class|attr):<code>")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand outside `docs`; the README's is the quick start, written for it."""
    for source, page in ELSEWHERE.items():
        if files.get_file_from_path(page) is None:
            content = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as the site has them."""
    at = {made: source for source, made in ELSEWHERE.items() if made != "index.md"}
    here = at.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return _LINK.sub(lambda link: _moved(link, posixpath.dirname(here)), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name modules as Sphinx has it, `:mod:`; here the name alone is enough."""
    return _ROLE.sub("<code>", html)


def _moved(link: re.Match[str], folder: str) -> str:
    """One link of a file in `folder`, for the site."""
    text, target, anchor = link[1], link[2], link[3] or ""
    path = posixpath.normpath(posixpath.join(folder, target))
    if not (ROOT / path).exists():
        return link[0]  # the strict build says that it is broken
    if path in ELSEWHERE:
        return f"[{text}]({ELSEWHERE[path]}{anchor})"
    if path.startswith("docs/") and path.endswith(".md"):
        return f"[{text}]({path.removeprefix('docs/')}{anchor})"
    return text
