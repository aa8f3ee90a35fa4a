"""A release's version is the same everywhere: `python packing/version.py v0.1.0`.

Exit code 1 unless `Cargo.toml` (which the wheel takes it from), `CITATION.cff` and a heading of
`CHANGELOG.md` say what the tag says.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def of_cargo(root: Path = ROOT) -> str:
    """The version of the workspace."""
    with (root / "Cargo.toml").open("rb") as file:
        return str(tomllib.load(file)["workspace"]["package"]["version"])


def of_citation(root: Path = ROOT) -> str | None:
    """The version that `CITATION.cff` names."""
    found = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text("utf-8"), re.M)
    return found and found[1].strip("\"'")


def of_changelog(root: Path = ROOT) -> list[str]:
    """The versions that the changelog has a heading for, newest first."""
    text = (root / "CHANGELOG.md").read_text("utf-8")
    return re.findall(r"^## \[(\d+\.\d+\.\d+)\]", text, re.M)


def faults(tag: str, root: Path = ROOT) -> list[str]:
    """What does not say the version of `tag`."""
    version = tag.removeprefix("v")
    found = []
    if not re.fullmatch(r"v\d+\.\d+\.\d+", tag):
        found.append(f"tag {tag} is not vMAJOR.MINOR.PATCH")
    if of_cargo(root) != version:
        found.append(f"Cargo.toml says {of_cargo(root)}")
    if of_citation(root) != version:
        found.append(f"CITATION.cff says {of_citation(root)}")
    if version not in of_changelog(root):
        found.append(f"CHANGELOG.md has no heading [{version}]")
    return found


if __name__ == "__main__":
    wrong = faults(sys.argv[1])
    print("\n".join(wrong) or f"{sys.argv[1]}: one version everywhere")
    sys.exit(bool(wrong))
