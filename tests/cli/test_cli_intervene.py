"""`pie-fast intervene` on the embedded model."""

from __future__ import annotations

from typing import Any

import pytest

import pie_fast
from pie_fast import FeatureId, times
from pie_fast.replacement_model import ReplacementModel, load_model
from running import run_cli

PROMPT = "Then, Alice and Clara went to the garden. Clara gave a mirror to"
COMMAND: tuple[Any, ...] = (
    "intervene",
    "--model",
    pie_fast.demo_model_path(),
    "--clt",
    pie_fast.demo_clt_path(),
    "--device",
    "cpu",
)


@pytest.fixture(scope="module")
def model() -> ReplacementModel:
    return load_model(pie_fast.demo_model_path(), pie_fast.demo_clt_path(), device="cpu")


def test_it_is_what_python_does(model: ReplacementModel) -> None:
    options = ("--set", "L0:1=0", "--set", "L1:5@2:4=3.5", "--times", "L0:623@-3:=2")
    found = run_cli(
        *COMMAND, "--prompt", PROMPT, *options, "--attention", "freeze", "--generate", 6, "--json"
    ).json
    what: list[Any] = [
        (FeatureId(0, 1), None, 0.0),
        (FeatureId(1, 5), slice(2, 4), 3.5),
        (FeatureId(0, 623), slice(-3, None), times(2)),
    ]
    ours = model.intervene(PROMPT, what, attention="freeze")
    generated = model.generate(PROMPT, what, max_new_tokens=6)
    said = found.pop("generated")
    assert found == ours.to_dict()
    assert said == generated.to_dict() | {"temperature": 0.0, "seed": 0}
    assert said["text"] == generated.text and generated.text.startswith(" ")


def test_it_can_be_read(model: ReplacementModel) -> None:
    done = run_cli(*COMMAND, "--prompt", PROMPT, "--set", "L0:1@-1=9", "--generate", 3, "--top", 2)
    assert done.code == 0
    assert "' Alice'" in done.stdout and "L0:1" in done.stdout and "before: '" in done.stdout
    shown = model.intervene(PROMPT, [(FeatureId(0, 1), -1, 9.0)]).table(2)
    assert done.stdout.startswith(shown)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ((), ("nothing to do", "--set or --times")),
        (("--set", "L0:1"), ("--set 'L0:1'", "L5:42@3=0")),
        (("--set", "0:1=3"), ("--set '0:1=3'", "L5:42@3=0")),
        (("--times", "L0:1@a=3"), ("--times 'L0:1@a=3'",)),
        (("--set", "L0:1@1:2:3=3"), ("--set 'L0:1@1:2:3=3'",)),
        (("--set", "L0:1@3=much"), ("--set 'L0:1@3=much'",)),
        (("--set", "L0:1@3=nan"), ("value is nan, must be finite",)),
        (("--set", "L4:1=0"), ("L4:1 is not in the CLT", "layers 0 to 3")),
        (("--set", "L0:1@0=0"), ("position 0 of L0:1 has no features",)),
        (("--set", "L0:1@99=0"), ("position 99 of L0:1 is outside the prompt: -16 to 15",)),
        (("--set", "L0:1=0", "--generate", "-1"), ("-1 is not valid, must be at least 0",)),
        (("--set", "L0:1=0", "--generate", "500"), ("max_new_tokens is 500, must be 1 to 112",)),
        (("--set", "L0:1=0", "--ignore-positions", "bos"), ("'bos'", "circuit-tracer")),
    ],
)
def test_bad_input(options: tuple[str, ...], parts: tuple[str, ...]) -> None:
    run_cli(*COMMAND, "--prompt", PROMPT, *options).refused(*parts)


def test_ignored_positions_are_an_option() -> None:
    asked = (*COMMAND, "--prompt", PROMPT, "--set", "L0:1@0=2", "--json")
    for choice, n in (("0", 0), ("circuit-tracer", 1)):
        done = run_cli(*asked, "--ignore-positions", choice)
        if n:
            done.refused("the first 1 are ignored")
        else:
            assert done.json["settings"]["ignore_positions"] == 0
