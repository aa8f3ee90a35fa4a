"""The page on the drop-in functions is true: its toy runs and prints what the page says."""

from __future__ import annotations

import contextlib
import doctest
import inspect
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pie_fast import options, pie, protocols, reference

PAGE = (Path(__file__).parents[1] / "docs" / "dropin.md").read_text()


def test_the_toy_prints_what_the_page_says():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    (expected,) = re.findall(r"```text\n(.*?)```", PAGE, re.S)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        # compiled here, future imports of this file would leak into the example
        exec(compile(code, "docs/dropin.md", "exec", dont_inherit=True), {"__name__": "toy"})
    assert printed.getvalue() == expected


def test_the_toy_of_the_protocols_runs():
    outcome = doctest.testmod(protocols)
    assert outcome.attempted > 5
    assert outcome.failed == 0


@pytest.mark.parametrize("functions", [pie, reference], ids=["fast", "reference"])
def test_functions_have_the_documented_arguments_and_defaults(functions):
    rows = re.findall(r"^\| `(\w+)\(([\w, ]+)\)`", PAGE, re.M)
    assert len(rows) == 8
    for name, arguments in rows:
        parameters = inspect.signature(getattr(functions, name)).parameters.values()
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert positional == arguments.split(", "), name
        for parameter in parameters:
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.name in options.CHOICES:
                default = options.Settings.__dataclass_fields__.get(parameter.name)
                assert parameter.default == options.CHOICES[parameter.name][0] or (
                    default is not None and parameter.default == default.default
                )


def test_the_page_lists_every_value_of_every_option():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| ", PAGE, re.M))
    for name, values in options.CHOICES.items():
        listed = re.findall(r"`(.+?)`", rows[name].replace("\\|", "|"))
        assert sorted(listed) == sorted(values), name
        assert listed[0] == values[0], name


def test_the_drop_in_functions_import_no_torch():
    code = (
        "import sys, pie_fast; "
        "pie_fast.pie_circuit_discovery, pie_fast.Circuit, pie_fast.ModelLike; "
        "import pie_fast.reference; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
