"""What packages must and must not hold; versions; workflows; citation."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT / "packing"))

import contents  # noqa: E402
import version  # noqa: E402

FILES = {"pie_fast/__init__.py", "pie_fast/py.typed", "pie_fast/_native.pyi"}
LICENCES = {f"pie_fast-0.1.0.dist-info/licenses/LICENSE-{name}" for name in ("APACHE", "MIT")}
WHEEL = FILES | LICENCES | {"pie_fast/_native.abi3.so", "pie_fast-0.1.0.dist-info/RECORD"}
SDIST = {f"python/{name}" for name in FILES} | {
    *("PKG-INFO", "pyproject.toml", "Cargo.toml", "Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"),
    *("README.md", "rust/core/src/lib.rs", "rust/py/src/lib.rs"),
}


def test_the_package_has_its_types_and_its_demo() -> None:
    files = contents.package_files()
    assert {"pie_fast/py.typed", "pie_fast/_native.pyi"} <= files
    assert "pie_fast/data/demo/model/model.safetensors" in files
    assert not any(contents.NOT_INSTALLED.search(name) for name in files)


def test_a_whole_wheel_has_no_fault() -> None:
    assert contents.wheel_faults(WHEEL, FILES) == []
    on_windows = WHEEL - {"pie_fast/_native.abi3.so"} | {"pie_fast/_native.pyd"}
    assert contents.wheel_faults(on_windows, FILES) == []


@pytest.mark.parametrize("name", sorted(WHEEL - {"pie_fast-0.1.0.dist-info/RECORD"}))
def test_a_wheel_that_forgets_a_file_is_told(name: str) -> None:
    assert contents.wheel_faults(WHEEL - {name}, FILES)


@pytest.mark.parametrize(
    "name",
    [
        "tests/test_imports.py",
        "pie_fast/tests/test_imports.py",
        "pie_fast/conftest.py",
        "pie_fast/__pycache__/types.cpython-311.pyc",
        "pie_fast/corpus/seed",
        "pie_fast/forgotten.py",
    ],
)
def test_a_wheel_with_something_else_is_told(name: str) -> None:
    (fault,) = contents.wheel_faults(WHEEL | {name}, FILES)
    assert name in fault


def test_a_source_distribution_is_whole_and_clean() -> None:
    assert contents.sdist_faults(SDIST, FILES) == []
    for name in SDIST:
        assert contents.sdist_faults(SDIST - {name}, FILES), name
    for name in ("target/x", "python/pie_fast/_native.abi3.so", ".git/HEAD", "fuzz/corpus/a"):
        assert contents.sdist_faults(SDIST | {name}, FILES) == [f"must not hold {name}"]


def test_names_are_read_from_the_archives(tmp_path: Path) -> None:
    wheel, sdist, file = tmp_path / "a.whl", tmp_path / "a.tar.gz", tmp_path / "x"
    file.touch()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pie_fast/", "")
        archive.writestr("pie_fast/x", "")
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(file, "pie_fast-0.1.0/rust/x")
    assert contents.wheel_names(wheel) == {"pie_fast/x"}
    assert contents.sdist_names(sdist) == {"rust/x"}


def checkout(folder: Path, cargo: str, citation: str, changelog: str) -> Path:
    (folder / "Cargo.toml").write_text(f'[workspace.package]\nversion = "{cargo}"\n')
    (folder / "CITATION.cff").write_text(f"cff-version: 1.2.0\nversion: {citation}\n")
    (folder / "CHANGELOG.md").write_text(f"## [Unreleased]\n\n## [{changelog}] - 2026-01-01\n")
    return folder


def test_a_release_has_one_version(tmp_path: Path) -> None:
    at = checkout(tmp_path, "1.2.3", "1.2.3", "1.2.3")
    assert version.faults("v1.2.3", at) == []
    assert len(version.faults("v1.2.4", at)) == 3
    assert version.faults("1.2.3", at) == ["tag 1.2.3 is not vMAJOR.MINOR.PATCH"]
    at = checkout(tmp_path, "1.2.3", "1.2.2", "1.2.3")
    assert version.faults("v1.2.3", at) == ["CITATION.cff says 1.2.2"]


def test_cargo_and_the_citation_name_one_version() -> None:
    assert version.of_citation() == version.of_cargo()


def check_schema(schema: str, *files: Path) -> None:
    command = ["-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_meet_their_schema_and_call_what_there_is() -> None:
    files = sorted((ROOT / ".github/workflows").glob("*.yml"))
    assert len(files) == 3
    check_schema("github-workflows", *files)
    for file in files:
        workflow = yaml.safe_load(file.read_text("utf-8"))
        assert workflow["permissions"] == {"contents": "read"}, file
    assert "- run: .ci/run" in (ROOT / ".github/workflows/ci.yml").read_text("utf-8")


def test_the_citation_meets_its_schema() -> None:
    check_schema("citation-file-format", ROOT / "CITATION.cff")
