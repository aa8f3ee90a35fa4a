"""A run's options as a TOML file: `--config` reads it, `discover` leaves one in its folder.

Keys are the long names of options, without the dashes. What the command line says wins over the
file, and the file over the defaults; values are checked as if they had been typed.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from pie_fast.errors import PieFastError
from pie_fast.run_files import RUN_FILE
from pie_fast.suggestions import did_you_mean
from pie_fast.untrusted import shown

#: options that say how a run is made here and now, not what it finds
_NOT_KEPT = {"config", "out", "force", "resume", "ignore-estimate", "json", "quiet", "verbose"} | {
    "engine",
    "address",
    "workers",
    "timeout",
}

#: kind of option -> what its values are in a TOML file
_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
}


def _read(context: typer.Context, file: Path | None) -> Path | None:
    """The callback of `--config`: what the file says becomes the defaults of the command."""
    if file is not None and not context.resilient_parsing:
        context.default_map = {**(context.default_map or {}), **read_config(context, file)}
    return file


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=_read,
        is_eager=True,
        help=f"Options from a TOML file, such as the {RUN_FILE} of a run; those given here win.",
    ),
]


def read_config(context: typer.Context, file: Path) -> dict[str, Any]:
    """Parameter -> value, for the command that is being parsed.

    Raises:
        PieFastError: The file is no TOML, or has an unknown key, a value of the wrong type or out
            of range; the message names file, key, value and what is valid.
        OSError: The file cannot be read.
    """
    import tomllib

    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, deep lists
        raise PieFastError(f"{file}: not valid TOML: {error}") from error
    options = _options(context)
    found = {}
    for key, value in content.items():
        if key not in options:
            near = did_you_mean(key, options) or f"; there are {', '.join(sorted(options))}"
            raise PieFastError(f"{file}: unknown key {key!r}{near}")
        option = options[key]
        try:
            found[option.name] = _checked(context, option, value)
        except (typer.BadParameter, PieFastError) as error:
            said = getattr(error, "message", str(error))
            raise PieFastError(f"{file}: {key} = {shown(value)}: {said}") from error
    return found


def written(context: typer.Context) -> str:
    """All options that a command runs with, as `--config` reads them, each with what it is."""
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment(f"pie-fast {context.info_name} --config {RUN_FILE} --out FOLDER"))
    document.add(tomlkit.comment("Paths are as they were given, from the folder of that time."))
    for key, option in _options(context).items():
        value = context.params.get(option.name)
        if key in _NOT_KEPT or value is None or value == ():
            continue
        document.add(tomlkit.nl())
        document.add(tomlkit.comment(option.help))
        number = _word_or_number(option) and str(value).isdecimal()
        document.add(key, int(value) if number else _plain(value))
    return tomlkit.dumps(document).rstrip() + "\n"


def asked(context: typer.Context) -> dict[str, Any]:
    """What `pie-fast resume` needs to ask for this command again: its options, and where it ran."""
    values = {
        option.name: _plain(context.params[option.name])
        for key, option in _options(context).items()
        if key not in _NOT_KEPT and context.params.get(option.name) not in (None, ())
    }
    return {
        "name": context.info_name,
        "options": values,
        "force": bool(context.params.get("force")),
        "folder": str(Path.cwd()),
    }


def _options(context: typer.Context) -> dict[str, Any]:
    """Key -> option of the command."""
    longest = {max(one.opts, key=len): one for one in context.command.params}
    named = {name.removeprefix("--"): one for name, one in longest.items() if name[:2] == "--"}
    return {key: one for key, one in named.items() if key not in ("config", "help")}


def _checked(context: typer.Context, option: Any, value: Any) -> Any:
    """The value if it is what the option takes."""
    if option.multiple and not isinstance(value, list):
        raise PieFastError("must be a list")
    types = _KINDS.get(_kind(option), (str,))
    if _word_or_number(option):
        types = (str, int)
    for one in value if option.multiple else [value]:
        if not isinstance(one, types) or (isinstance(one, bool) and bool not in types):
            words = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
            raise PieFastError(f"must be {' or '.join(words[kind] for kind in types)}")
        if isinstance(one, int) and abs(one) >= 1 << 63:
            raise PieFastError("must be an integer of 64 bits, as TOML has them")
    if _word_or_number(option):
        value = str(value)
    option.process_value(context, value)
    return value


def _kind(option: Any) -> str:
    """`int`, `float`, `bool`, or another word; old versions of typer write the first in full."""
    name: str = option.type.name
    return {"integer": "int", "boolean": "bool"}.get(name, name)


def _word_or_number(option: Any) -> bool:
    """Whether a number may stand in the place of a word, as in `--budget K|auto|knee`."""
    return bool({"K", "N"} & set((option.metavar or "").split("|")))


def _plain(value: Any) -> Any:
    """As TOML has it."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value
