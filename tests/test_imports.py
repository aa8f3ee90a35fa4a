"""`import pie_fast` and the commands over saved activations start fast: no torch."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pie_fast.dump import DumpWriter, PromptTable

#: libraries that take seconds to import
HEAVY = ("torch", "transformers", "transformer_lens", "plotly", "huggingface_hub", "ray", "fsspec")

REPORT = f"""
import sys
from pie_fast.cli import main
try:
    main()
finally:
    heavy = [name for name in {HEAVY} if name in sys.modules]
    print(*heavy, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump of two prompts, one feature."""
    path = tmp_path_factory.mktemp("dump") / "dump"
    two = np.zeros(2, np.int32)
    prompts = PromptTable(
        tokens=two,
        prompt_ptr=np.arange(3, dtype=np.int64),
        answer=two,
        foil=two - 1,
        answer_position=two,
        metric_clean=np.zeros(2),
        metric_baseline=np.zeros(2),
    )
    with DumpWriter(path, prompts=prompts, manifest={"n_layers": 1, "n_features": 4}) as writer:
        one = np.ones(2, np.float32)
        writer.append(np.arange(3), np.ones(2, np.uint32), np.zeros(2, np.uint32), one, one)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run of one feature."""
    path = tmp_path_factory.mktemp("run")
    result = {
        "features": [{"layer": 0, "index": 1, "rank": 0, "score": 1.0}],
        "evaluation": {"kl_divergences": [0.5]},
    }
    (path / "result.json").write_text(json.dumps(result))
    return path


def python(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, args)], capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize(
    "args",
    [
        ("--help",),
        ("discover", "--help"),
        ("inspect", "DUMP"),
        ("inspect", "DUMP", "--json"),
        ("select", "DUMP", "--budget", "1"),
        ("select", "DUMP", "--budget", "1", "--json"),
        ("top", "DUMP", "-k", "1"),
        ("merge", "DUMP", "NEW"),
        ("compare", "RUN", "RUN"),
        ("compare", "RUN", "RUN", "--json"),
        ("export", "RUN", "--to", "csv", "--out", "NEW"),
    ],
)
def test_commands_without_a_model_import_no_torch(
    dump: Path, run: Path, tmp_path: Path, args: tuple[str, ...]
) -> None:
    paths = {"DUMP": dump, "RUN": run, "NEW": tmp_path / "new"}
    done = python("-c", REPORT, *(paths.get(arg, arg) for arg in args))
    assert done.stdout
    assert done.stderr.split() == []


def test_the_package_imports_next_to_nothing() -> None:
    done = python(
        "-c", f"import sys, pie_fast; print({{*{(*HEAVY, 'numpy', 'rich')}}} & {{*sys.modules}})"
    )
    assert done.stdout == "set()\n"
    done = python(
        "-c",
        f"import sys, pie_fast.cli; print({{*{(*HEAVY, 'numpy', 'rich')}}} & {{*sys.modules}})",
    )
    assert done.stdout == "set()\n"


def test_public_names_that_need_no_torch_import_none() -> None:
    names = ["FeatureDump", "greedy_select", "load_behavior", "open_dump", "SynergyMatrix", "top_k"]
    done = python(
        "-c",
        f"import sys, pie_fast\nfor n in {names}: getattr(pie_fast, n)\n"
        f"print({{*{HEAVY}}} & {{*sys.modules}})",
    )
    assert done.stdout == "set()\n"


def fastest(*args: object) -> float:
    """CPU seconds, the least of 5: what a core of its own would take, whatever else is running."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        python(*args)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(times)


@pytest.mark.parametrize("args", [("--help",), ("inspect", "DUMP")])
def test_answers_at_once(dump: Path, args: tuple[str, ...]) -> None:
    spent = fastest("-m", "pie_fast.cli", *(dump if arg == "DUMP" else arg for arg in args))
    # Where a core is slow or shared, the time of `import numpy` is the measure.
    assert spent <= 0.4 or spent <= 5 * fastest("-c", "import numpy")
