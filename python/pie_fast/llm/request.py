"""One question to a language model, and the hash that is its name in the cache."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Generic

from pie_fast.llm.answers import A
from pie_fast.llm.prompts import Message


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the endpoint draws its answers; what is None is not sent.

    Attributes:
        temperature: 0 for the most likely answer.
        max_tokens: At most so many tokens an answer.
        seed: For endpoints that draw by one.
        json_object: Ask for ``response_format`` ``json_object``, which many servers lack.
    """

    temperature: float | None = 0.0
    max_tokens: int | None = None
    seed: int | None = None
    json_object: bool = False

    def parameters(self) -> dict[str, Any]:
        """The fields of a request."""
        sent = {k: v for k, v in asdict(self).items() if v is not None and k != "json_object"}
        return sent | ({"response_format": {"type": "json_object"}} if self.json_object else {})


@dataclass(frozen=True, slots=True)
class Request(Generic[A]):
    """A question.

    Attributes:
        template: Name and version of the prompt, as ``explain.v1``.
        about: What it is about, for people: a feature, a description.
        messages: What is sent.
        schema: What the answer must be.
        answer_tokens: Tokens that an answer usually takes, to estimate its cost.
    """

    template: str
    about: str
    messages: tuple[Message, ...]
    schema: type[A]
    answer_tokens: int

    def content(self, model: str, sampling: Sampling) -> dict[str, Any]:
        """All that its answer depends on; neither a key nor an address is part of it."""
        return {
            "model": model,
            "template": self.template,
            "sampling": sampling.parameters(),
            "messages": [dict(message) for message in self.messages],
        }


def content_hash(content: dict[str, Any]) -> str:
    """sha256 in hex over a request's content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
