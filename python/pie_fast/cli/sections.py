"""The commands by what they are for, and what `pie-fast` alone says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.core import TyperGroup

from pie_fast.suggestions import did_you_mean

#: title -> its commands, in the order in which they are met
SECTIONS = {
    "find a circuit": ("demo", "discover", "resume", "shared", "plan"),
    "look at it": ("report", "interpret", "compare", "intervene"),
    "step by step": ("capture", "synergy", "select", "evaluate"),
    "saved activations": ("inspect", "top", "redundancy", "merge"),
    "exchange": ("convert", "export"),
}

#: command -> how it is typed first, and what that gives
_LIKELY = {
    "demo": ("demo", "all of it on an embedded model: a minute, offline"),
    "discover": (
        "discover -m MODEL -c CLT -b ioi -k 50 -o runs/ioi",
        "the circuit of a behaviour of your model",
    ),
    "report": ("report runs/ioi -o report.html", "a run as one page to look at"),
}


class Sectioned(TyperGroup):
    """A group whose help lists the commands by section, and which knows what was meant."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """A list for each section."""
        for title, names in self.sections():
            with formatter.section(title.capitalize()):
                limit = formatter.width - 6 - max(map(len, self.commands))
                rows = [(name, self.commands[name].get_short_help_str(limit)) for name in names]
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command, or an error with its likeliest names and where they are listed."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            near = did_you_mean(args[0], self.commands)
            ctx.fail(f"no such command {args[0]!r}{near or '; pie-fast --help lists them'}")
        return super().resolve_command(ctx, args)

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """Title and names of each section that has any command; what is in none comes last."""
        placed = set[str]()
        for title, names in SECTIONS.items():
            present = [name for name in names if name in self.commands]
            placed.update(present)
            if present:
                yield title, present
        if rest := [name for name in self.commands if name not in placed]:
            yield "other", rest

    def overview(self) -> str:
        """What there is, in a screenful."""
        likely = [said for name, said in _LIKELY.items() if name in self.commands]
        sections = list(self.sections())
        width = max(len(title) for title, _ in sections)
        return "\n".join(
            [
                f"{self.help}",
                "",
                *(f"  pie-fast {typed}\n      {gives}" for typed, gives in likely),
                "",
                *(f"  {title:<{width}}  {', '.join(names)}" for title, names in sections),
                "",
                "pie-fast --help says what each does, pie-fast COMMAND --help its options,",
                "pie-fast --install-completion completes them in your shell.",
            ]
        )
