"""Text that features are interpreted on, by name or file. Importing it imports no torch."""

from pie_fast.corpora.sources import BUILTIN, open_corpus

__all__ = ["BUILTIN", "open_corpus"]
