"""How labels are printed."""

from __future__ import annotations

from pie_fast.cli.interpretation_tables import with_visible_spaces


def test_spaces_of_tokens_are_seen_and_those_of_words_are_not() -> None:
    label = 'fires on " Alice" or "\\"" after " the end"; raises " a"'
    assert with_visible_spaces(label) == 'fires on "·Alice" or "\\"" after "·the·end"; raises "·a"'
