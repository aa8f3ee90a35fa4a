"""Which language model, and what it is asked. Needs no extra until something is asked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pie_fast.progress import Reporter

if TYPE_CHECKING:
    from pie_fast.llm import Chat


@dataclass(frozen=True)
class LlmChoices:
    """Which language model, and what it is asked.

    Attributes:
        model: Its name at the endpoint.
        cache: Folder of its answers.
        base_url: Of the endpoint; None as `pie_fast.llm.Chat` has it.
        key_variable: The environment variable that holds the key.
        concurrency: Requests at a time.
        price: Of a million tokens in and out; None tells tokens only.
        dry_run: Send nothing, tell what would be asked.
        explain: Whether it writes the labels; else it judges those of the rules.
        fade: Whether it rates texts, for FADE.
        n_rated: Texts of the corpus that it rates of a feature; FADE: 500.
        n_written: Texts that it writes for a feature, for Clarity; FADE: 150. Fewer than 10 that
            were had give none.
        n_steered: Prompts that are continued under steering, for Faithfulness; None: as many as
            were steered for the rules.
        n_scored: Contexts of each kind for detection and fuzzing.
    """

    model: str
    cache: Path
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    price: tuple[float, float] | None = None
    dry_run: bool = False
    explain: bool = True
    fade: bool = False
    n_rated: int = 100
    n_written: int = 30
    n_steered: int | None = None
    n_scored: int = 10

    def chat(self, reporter: Reporter, *, dry_run: bool) -> Chat:
        """A way to it.

        Raises:
            PieFastError: As `check`.
        """
        from pie_fast.llm import Chat  # an extra: rules do without it

        return Chat(cache=self.cache, dry_run=dry_run, note=reporter.note, **self.options())

    def options(self) -> dict[str, Any]:
        """Of a `pie_fast.llm.Chat`, wherever it is made; the key is not among them."""
        from pie_fast.llm import Price

        return {
            "model": self.model,
            "base_url": self.base_url or os.environ.get("OPENAI_BASE_URL"),
            "key_variable": self.key_variable,
            "concurrency": self.concurrency,
            "price": None if self.price is None else Price(*self.price),
        }

    def check(self) -> None:
        """Refuse before any work what no request could be sent with; sends nothing.

        Raises:
            PieFastError: The extra is not installed, an address or a number is out of range, or
                there is no key; a dry run needs neither address nor key.
        """
        self.chat(Reporter(), dry_run=self.dry_run).close()
