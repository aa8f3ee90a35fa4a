"""Start-up by instructions: import and commands beside a bare interpreter, against the record.

    python benches/start_instructions.py            # fails when one needs 5% more than recorded
    python benches/start_instructions.py --update   # record
    python benches/start_instructions.py --spread 3 # count so often and tell how far apart

What is gated is `instructions / those of a bare interpreter`, so that another Python moves both. It
moves with the versions of numpy and typer too: then look at what was imported, and record again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from counting import RECORD, instructions, judge, tell
from making_dumps import zipf_dump

#: Two runs were 0.1% apart, two patch versions of a library may be more.
MORE = 1.05


def starts(dump: Path) -> dict[str, list[str]]:
    """Arguments of the interpreter by what is started."""
    return {
        "import pie_fast": ["-c", "import pie_fast"],
        "import pie_fast.dump": ["-c", "import pie_fast.dump"],
        "pie-fast --help": ["-m", "pie_fast.cli", "--help"],
        "pie-fast inspect": ["-m", "pie_fast.cli", "inspect", str(dump)],
    }


def count(arguments: list[str]) -> int:
    """Instructions of an interpreter; hashes of text, and so the order of sets, are fixed."""
    return instructions([sys.executable, *arguments], PYTHONHASHSEED="0", COLUMNS="80")[0]


def ratios(dump: Path) -> dict[str, float]:
    """Beside a bare interpreter."""
    bare = count(["-c", ""])
    return {name: round(count(arguments) / bare, 3) for name, arguments in starts(dump).items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--update", action="store_true", help="record the ratios")
    parser.add_argument("--spread", type=int, default=1, help="count so often")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        dump = zipf_dump(Path(name) / "dump", 10_000, 2600)
        runs = [ratios(dump) for _ in range(options.spread)]
    for name in runs[0] if options.spread > 1 else ():
        found = [run[name] for run in runs]
        print(f"{name}: {min(found)} .. {max(found)}, {max(found) / min(found) - 1:.2%} apart")
    recorded = json.loads(RECORD.read_text())
    here = sys.version.split()[0]
    if options.update:
        recorded |= {"python": here, "start": runs[0]}
        RECORD.write_text(json.dumps(recorded, indent=1) + "\n")
    other = f"Python {recorded['python']}" if recorded["python"] != here else ""
    judged = judge("start", runs[0], recorded["start"], MORE, "bare interpreters", other)
    tell(judged, options.json)


if __name__ == "__main__":
    main()
