"""Names of the files of a run's folder, where more than one module needs them."""

from __future__ import annotations

#: what was found; the file that tells a run from any other folder
RESULT = "result.json"

#: the options of the command that made it
RUN_FILE = "run.toml"

#: what happened, line by line
JOURNAL = "journal.jsonl"

#: behind the folder's name until the run is complete
PARTIAL = ".partial"
