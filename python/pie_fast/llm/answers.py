"""What a language model must answer, as schemas, and how JSON is found in what it says."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from pie_fast.interpretation import one_line

#: a fence opens a line, as Markdown has it
_FENCED = re.compile(r"^```(?:json)?[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE | re.IGNORECASE)


def _one_line(value: object) -> object:
    """Text as one printable line, anything else as it is, for its own validator to refuse."""
    return one_line(value) if isinstance(value, str) else value


def _ascending(layers: str) -> str:
    first, _, last = layers.partition("-")
    if last and int(last) < int(first):
        raise ValueError(f"layers {layers} descend")
    return layers


Line = Annotated[str, BeforeValidator(_one_line), StringConstraints(min_length=1, max_length=100)]
Prose = Annotated[str, BeforeValidator(_one_line), StringConstraints(min_length=1)]
Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
Layers = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{1,4}(-[0-9]{1,4})?$"), AfterValidator(_ascending)
]


class Answer(BaseModel):
    """An answer; fields that nobody asked for are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


A = TypeVar("A", bound=Answer)


class Explanation(Answer):
    """A label of a feature, and why."""

    label: Line
    reason: Prose


class Texts(Answer):
    """Texts that express a concept."""

    texts: tuple[Text, ...] = Field(min_length=1)


class Ratings(Answer):
    """How far each text, by its id, expresses a concept: 0 not, 1 partly, 2 clearly."""

    ratings: dict[str, Literal[0, 1, 2]]


class Verdicts(Answer):
    """Yes (1) or no (0) for each text, by its id."""

    ratings: dict[str, Literal[0, 1]]


class LayerAnswer(Answer):
    """What some neighbouring layers do."""

    layers: Layers
    text: Prose

    @property
    def span(self) -> tuple[int, int]:
        """First and last layer."""
        first, _, last = self.layers.partition("-")
        return int(first), int(last or first)


class Narration(Answer):
    """A circuit by layer, and in short."""

    layers: tuple[LayerAnswer, ...] = Field(min_length=1)
    summary: Prose


class InvalidAnswerError(Exception):
    """An answer is no JSON, or not of its schema."""


def parse(text: str, schema: type[A]) -> A:
    """Read an answer: JSON alone, or in a fenced block (the last one, should there be several).

    What a model thinks aloud before, up to ``</think>``, is no part of it.

    Raises:
        InvalidAnswerError: It is neither, or does not fit the schema; says where.
    """
    said = text if text.lstrip().startswith("{") else text.rpartition("</think>")[2]
    fenced = _FENCED.findall(said)
    try:
        return schema.model_validate_json(fenced[-1] if fenced else said.strip())
    except ValidationError as error:
        told = [
            f"{'.'.join(map(str, part['loc'])) or 'answer'}: {part['msg']}"
            for part in error.errors(include_url=False, include_context=False)
        ]
    raise InvalidAnswerError("; ".join(told[:5]))
