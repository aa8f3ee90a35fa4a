"""Corpora by name, as a command line gives them: what features are interpreted on.

    builtin                     every built-in behaviour that the tokenizer can read
    ioi, docstring, ...         one of them
    FILE.jsonl[#FIELD]          one object a line, FIELD text or a list of token ids
    hf:NAME[:CONFIG][@SPLIT][#COLUMN], FOLDER[@SPLIT][#COLUMN], FILE.parquet[#COLUMN]
                                a HuggingFace dataset, see `pie_fast.corpora.dataset_rows`
    any other file              text, its documents between blank lines

Prompts stay whole. Texts and lists of ids are cut into windows, see `pie_fast.corpora.windows`. A
sequence that was there already is left out: it would stand on both sides of a train and test split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr
from typing import Any

from pie_fast.behaviors import TASKS, Behavior, load_behavior
from pie_fast.corpora.dataset_rows import FILES, HUB, dataset_rows
from pie_fast.corpora.documents import documents, records
from pie_fast.corpora.windows import Tokens, Windows
from pie_fast.errors import BehaviorError, CorpusError
from pie_fast.interpret.contexts import Corpus

BUILTIN = "builtin"

#: fields looked for, in this order, where none is named
FIELDS = ("text", "tokens", "prompt")

#: called with what is to be told
Note = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """One sequence of a corpus.

    Attributes:
        tokens: ``[n]`` token ids.
        roles: ``[n]`` the part that each plays in its template, or None.
        source: Where it is from: a behaviour, a file, a dataset.
    """

    tokens: Tokens
    roles: tuple[str | None, ...] | None
    source: str


def open_corpus(
    specs: Sequence[str],
    tokenizer: Any,
    *,
    behavior: Behavior | None = None,
    window: int = 128,
    max_tokens: int = 1_000_000,
    note: Note | None = None,
) -> Corpus:
    """Read a corpus.

    Args:
        specs: What it is made of, see the module; ``builtin`` where there is neither a spec nor a
            behaviour.
        tokenizer: HuggingFace tokenizer of the model; None where everything is token ids.
        behavior: Its prompts, of both splits, come first, whatever `specs` says.
        window: Tokens that a text or list of ids is cut into, the BOS included.
        max_tokens: Reading ends before the sequence that would exceed it.
        note: Called with what is to be told: behaviours that were skipped, repeated sequences, a
            corpus that was cut.

    Returns:
        The corpus, with `sources`.

    Raises:
        CorpusError: A spec that means nothing, a file or dataset that is missing, broken or empty,
            or limits that are not valid.
        BehaviorError: A behaviour that is named does not fit the tokenizer.
    """
    tell = note or (lambda _: None)
    windows = Windows(tokenizer, window)
    kept: list[Found] = []
    seen: set[Tokens] = set()
    n_tokens = n_repeated = 0
    for one in _all(specs, tokenizer, behavior, windows, tell):
        if one.tokens in seen:
            n_repeated += 1
            continue
        if n_tokens + len(one.tokens) > max_tokens:
            tell(f"corpus cut in {one.source}: the next sequence would exceed {max_tokens} tokens")
            break
        seen.add(one.tokens)
        kept.append(one)
        n_tokens += len(one.tokens)
    if n_repeated:
        tell(f"{n_repeated} sequences were in the corpus already and are left out")
    if not kept:
        raise CorpusError(f"the corpus is empty within max_tokens {max_tokens}")
    return replace(Corpus.of(kept), sources=tuple(one.source for one in kept))


def _all(
    specs: Sequence[str], tokenizer: Any, behavior: Behavior | None, windows: Windows, tell: Note
) -> Iterator[Found]:
    """The sequences of the behaviour and of every spec."""
    if behavior is not None:
        yield from _prompts(behavior)
    for spec in specs or (() if behavior is not None else (BUILTIN,)):
        if spec == BUILTIN:
            first = None if behavior is None else behavior.name
            yield from _builtin(tokenizer, first, tell)
        elif spec in TASKS:
            yield from _prompts(load_behavior(spec, tokenizer=tokenizer))
        else:
            yield from _of_data(spec, windows, tell)


def _builtin(tokenizer: Any, first: str | None, tell: Note) -> Iterator[Found]:
    """Every built-in behaviour but the one that was first; those that do not fit are told of."""
    n_read = 0
    for name in TASKS:
        if name == first:
            continue
        try:
            behavior = load_behavior(name, tokenizer=tokenizer)
        except BehaviorError as error:
            tell(f"behaviour {name!r} is not in the corpus: {error}")
            continue
        n_read += 1
        yield from _prompts(behavior)
    if n_read == 0 and first is None:
        raise CorpusError(
            "the tokenizer can read no built-in behaviour; name a text file, JSON Lines or dataset"
        )


def _prompts(behavior: Behavior) -> Iterator[Found]:
    for prompt in (*behavior.selection, *behavior.held_out):
        yield Found(prompt.tokens, prompt.roles, behavior.name)


def _of_data(spec: str, windows: Windows, tell: Note) -> Iterator[Found]:
    """The windows of a file or dataset.

    Raises:
        CorpusError: It gives no sequence.
    """
    name, split, field = _parsed(spec)
    path = Path(name)
    whole = name.startswith(HUB) or path.is_dir() or path.suffix in FILES
    source = name if name.startswith(HUB) else path.name
    if whole:
        found = _of_rows(dataset_rows(name, split), field, windows, tell)
    elif path.suffix == ".jsonl":
        found = _of_rows(records(path), field, windows, None)
    elif path.suffix == "" and not path.exists():
        known = ", ".join((BUILTIN, *TASKS))
        raise CorpusError(f"unknown corpus {spec!r}; known: {known}, {HUB}NAME or a file")
    elif field is not None:
        raise CorpusError(f"{spec}: {name} is read as text, which has no field {field!r}")
    else:
        found = (w for where, text in documents(path) for w in windows.of_text(where, text))
    empty = True
    for tokens in found:
        empty = False
        yield Found(tokens, None, source)
    if empty:
        raise CorpusError(f"{spec} is empty; a corpus needs at least one sequence")


def _parsed(spec: str) -> tuple[str, str | None, str | None]:
    """Name, split and field of a spec; what is a path as it stands is only a name."""
    if Path(spec).exists():
        return spec, None, None
    name, _, field = spec.partition("#")
    if not Path(name).exists():
        found, at, split = name.rpartition("@")
        if at and (found.startswith(HUB) or Path(found).is_dir()):
            return found, split, field or None
    return name, None, field or None


def _of_rows(
    rows: Iterator[tuple[str, dict[str, Any]]],
    field: str | None,
    windows: Windows,
    skipped: Note | None,
) -> Iterator[Tokens]:
    """The windows of one field of each row; rows without text are told of where `skipped` is."""
    n_skipped = 0
    for where, row in rows:
        name = field or next((name for name in FIELDS if name in row), FIELDS[0])
        if name not in row:
            wanted = repr(field) if field else " or ".join(map(repr, FIELDS))
            raise CorpusError(f"{where}: field {wanted} is missing; found: {', '.join(row)}")
        value, place = row[name], f"{where}: field {name!r}"
        if skipped is not None and _nothing(value):
            n_skipped += 1
        elif isinstance(value, str):
            yield from windows.of_text(place, value)
        elif isinstance(value, list):
            yield from windows.of_ids(place, value)
        else:
            raise CorpusError(f"{place} is {repr(value)}; must be text or a list of token ids")
    if n_skipped and skipped is not None:
        skipped(f"{n_skipped} rows have nothing in their field and are left out")


def _nothing(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())
