"""Labels and ratings by a language model behind any OpenAI-compatible endpoint. No torch.

`client.Chat` is the only way out: it caches every answer by the content of its request, counts
tokens, and records what failed. `explainer`, `raters`, `scores` and `narrator` say what is asked.
The libraries that talk to the endpoint are an extra: ``pip install 'pie-fast[llm]'``.
"""

from __future__ import annotations

from importlib.util import find_spec

from pie_fast.errors import PieFastError

_missing = [name for name in ("openai", "pydantic", "tenacity") if find_spec(name) is None]
if _missing:
    raise PieFastError(f"a language model needs {', '.join(_missing)}: pip install 'pie-fast[llm]'")

from pie_fast.llm.client import Chat  # noqa: E402  (only when its libraries are there)
from pie_fast.llm.explainer import LlmExplainer  # noqa: E402
from pie_fast.llm.narrator import LlmNarrative, LlmNarrator  # noqa: E402
from pie_fast.llm.raters import LlmRater, LlmWriter  # noqa: E402
from pie_fast.llm.request import Sampling  # noqa: E402
from pie_fast.llm.retries import Retries  # noqa: E402
from pie_fast.llm.scores import LlmScorer  # noqa: E402
from pie_fast.llm.spending import Budget, Price, Spent  # noqa: E402

__all__ = [
    "Budget",
    "Chat",
    "LlmExplainer",
    "LlmNarrative",
    "LlmNarrator",
    "LlmRater",
    "LlmScorer",
    "LlmWriter",
    "Price",
    "Retries",
    "Sampling",
    "Spent",
]
