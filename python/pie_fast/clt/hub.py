"""Folders and files of the HuggingFace hub, downloaded when they are asked for.

Only here is the hub client imported: local folders need none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlparse

from pie_fast.errors import CheckpointError


def local_folder(source: str | Path) -> Path:
    """`source` as a folder on this machine, downloaded when it is a hub id.

    Args:
        source: A folder, `org/repo[/sub/folder][@revision]`, or `hf://org/repo[/sub/folder]`
            with an optional `?revision=`.

    Raises:
        CheckpointError: Neither a folder nor a repository that can be had.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    text = str(source)
    if text.startswith("hf://"):
        repo, inside, revision = _parts_of_uri(text)
    else:
        if text.count("/") < 1 or folder.is_absolute() or text.startswith("."):
            raise CheckpointError(f"{text}: no such folder; give a path, or a hub id (OWNER/NAME)")
        name, _, revision = text.partition("@")
        org, repo_name, *sub = name.split("/")
        repo, inside = f"{org}/{repo_name}", "/".join(sub)
    with _refusals(text):
        from huggingface_hub import snapshot_download

        patterns = [f"{inside}/*"] if inside else None
        root = snapshot_download(repo, revision=revision or None, allow_patterns=patterns)
    found = Path(root, inside)
    if not found.is_dir():
        raise CheckpointError(f"{text}: {repo} has no folder {inside!r}")
    return found


def hub_file(uri: str) -> Path:
    """One file, `hf://org/repo/path[?revision=...]`.

    Raises:
        CheckpointError: It is no such address, or cannot be had.
    """
    repo, inside, revision = _parts_of_uri(uri)
    if not inside:
        raise CheckpointError(f"{uri}: names a repository and no file in it")
    with _refusals(uri):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repo, inside, revision=revision or None))


def _parts_of_uri(uri: str) -> tuple[str, str, str]:
    """Repository, path in it and revision ('' for none)."""
    try:
        parsed = urlparse(uri)
    except ValueError as error:
        raise CheckpointError(f"{uri}: must be hf://org/repo[/path][?revision=...]") from error
    repo, _, inside = parsed.path.lstrip("/").partition("/")
    if not parsed.netloc or not repo or ".." in inside.split("/"):
        raise CheckpointError(f"{uri}: must be hf://org/repo[/path][?revision=...]")
    revision = parse_qs(parsed.query).get("revision", [""])[0]
    return f"{parsed.netloc}/{repo}", inside.rstrip("/"), revision


@contextmanager
def _refusals(source: str) -> Iterator[None]:
    try:
        yield
    # The client passes on what its HTTP library raises, and which one that is, is its own matter.
    except Exception as error:
        raise CheckpointError(
            f"{source}: neither a folder here nor a repository that the hub hands out: {error}. "
            "What was downloaded is kept and gone on with. Without network pass a local folder: an "
            "absolute path, or a relative one that exists"
        ) from error
