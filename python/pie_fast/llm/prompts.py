"""Prompts are files, ``templates/NAME.vN.jinja``; a changed wording is a new version.

A template has a block ``system`` and a block ``user``. What comes from a corpus, a model or
another answer enters through the filter ``data`` only: as JSON between two tags, in which no text
can spell the closing tag.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

#: role and content, as an endpoint takes it
Message = dict[str, str]

ROLES = ("system", "user")


def data(value: object) -> str:
    """JSON between ``<data>`` tags; ``</`` is written ``<\\/``, which is the same in JSON."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False).replace("</", "<\\/")
    text = text.encode(errors="replace").decode()  # half of a surrogate pair is no text
    return f"<data>\n{text}\n</data>"


def render(template: str, **values: Any) -> tuple[Message, ...]:
    """The messages of a template.

    Args:
        template: Its name with version, as ``explain.v1``.
        values: What it asks for; one that is missing is an error of jinja2.
    """
    loaded = _ENVIRONMENT.get_template(f"{template}.jinja")
    context = loaded.new_context(values)
    return tuple(
        {"role": role, "content": "".join(loaded.blocks[role](context)).strip()}
        for role in ROLES
        if role in loaded.blocks
    )


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    autoescape=False,  # the prompts are no HTML; `data` escapes what is not ours
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["data"] = data
