"""What a wheel and a source distribution hold, and what they must not.

    python packing/contents.py FILE.whl FILE.tar.gz

Compared with the files of the package in this checkout, so that neither forgets an asset. Standard
library only.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: of the wheel: type information, the native module for every CPython from 3.11 on, licences
WHEEL_NEEDS = (
    r"pie_fast/py\.typed",
    r"pie_fast/_native\.pyi",
    r"pie_fast/_native(\.abi3\.so|\.pyd)",
    r"pie_fast-[\d.]+\.dist-info/licenses/LICENSE-APACHE",
    r"pie_fast-[\d.]+\.dist-info/licenses/LICENSE-MIT",
)
#: of the source distribution: what builds it again, with the same versions
SDIST_NEEDS = (
    r"PKG-INFO",
    r"pyproject\.toml",
    r"Cargo\.toml",
    r"Cargo\.lock",
    r"LICENSE-APACHE",
    r"LICENSE-MIT",
    r"README\.md",
    r"rust/core/src/lib\.rs",
    r"rust/py/src/lib\.rs",
)
#: caches, what git keeps, what was built, what fuzzes
NOWHERE = re.compile(r"(^|/)(__pycache__|\.git[^/]*|\.\w+_cache|target|corpus|fuzz)(/|$)|\.pyc$")
#: of the wheel: what only a checkout runs
NOT_INSTALLED = re.compile(r"(^|/)(tests?|benches|examples|faults)/|(^|/)(test_\w+|conftest)\.py$")


def package_files() -> set[str]:
    """The files of the package that git knows, as a wheel names them."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "python/pie_fast"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {name.removeprefix("python/") for name in done.stdout.splitlines()}


def missing(names: set[str], needs: tuple[str, ...], files: set[str]) -> list[str]:
    """What should be there and is not."""
    patterns = [need for need in needs if not any(re.fullmatch(need, name) for name in names)]
    return [f"has no {what}" for what in [*patterns, *sorted(files - names)]]


def wheel_faults(names: set[str], files: set[str]) -> list[str]:
    """What is wrong with the names in a wheel, where the package has `files`."""
    faults = missing(names, WHEEL_NEEDS, files)
    for name in sorted(names):
        if not re.match(r"pie_fast(-[\d.]+\.dist-info)?/", name):
            faults.append(f"installs {name}, which lies outside the package")
        elif NOWHERE.search(name) or NOT_INSTALLED.search(name):
            faults.append(f"must not hold {name}")
        elif name.startswith("pie_fast/") and name not in files and "_native." not in name:
            faults.append(f"holds {name}, which git does not know")
    return faults


def sdist_faults(names: set[str], files: set[str]) -> list[str]:
    """What is wrong with the names in a source distribution, its own folder taken off."""
    faults = missing(names, SDIST_NEEDS, {f"python/{file}" for file in files})
    bad = [name for name in sorted(names) if NOWHERE.search(name) or name.endswith((".so", ".pyd"))]
    return [*faults, *(f"must not hold {name}" for name in bad)]


def wheel_names(wheel: Path) -> set[str]:
    """The files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def sdist_names(sdist: Path) -> set[str]:
    """The files in a source distribution, without its own folder."""
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def main() -> int:
    """The command line: exit code 1 when a distribution is wrong."""
    wheel, sdist = map(Path, sys.argv[1:])
    files = package_files()
    faults = [f"{wheel.name} {fault}" for fault in wheel_faults(wheel_names(wheel), files)]
    faults += [f"{sdist.name} {fault}" for fault in sdist_faults(sdist_names(sdist), files)]
    print("\n".join(faults) or f"{len(files)} files of the package are in both")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
