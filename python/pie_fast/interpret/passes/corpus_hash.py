"""Telling corpora apart by what a model reads of them."""

from __future__ import annotations

import hashlib

import numpy as np

from pie_fast.interpret.contexts import Corpus


def corpus_hash(corpus: Corpus) -> str:
    """sha256 (hex) of the sequences and of which positions count; the same on every machine.

    Roles and sources only describe, and are no part of it.
    """
    digest = hashlib.sha256()
    for array in (corpus.ptr, corpus.tokens):
        digest.update(np.ascontiguousarray(array, dtype="<i8").data)
    digest.update(np.packbits(corpus.counted_mask).data)
    return digest.hexdigest()
