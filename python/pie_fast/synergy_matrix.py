"""Bookkeeping of pair synergies: filled piece by piece, saved, resumed, merged, looked up.

The synergy of a pair is ``I({f, g}) - I(f) - I(g)`` (:func:`pie_fast.pair_synergy`), measured per
prompt from signed effects and averaged afterwards. What its sign means depends on the direction::

                positive                                      negative
    denoising   complements (AND): only together they work    redundant (OR, duplicates)
    noising     backups (OR): removing one shows nothing      complements (AND)

Redundancy from decoder rows is a matrix of its own and never mixed into synergy.

The file ``synergy.safetensors``: ``pool`` U32 [M] ascending, ``values`` F32 [M, M] or CSR
(``indptr`` I64, ``indices`` I32, ``values`` F32), ``done`` U8 [M] (1: every pair of the row is
known), optional ``redundancy`` F32 [M, M], optional ``known`` U8 (a bit per pair, where pairs of
rows that are not done are known); metadata ``direction``, ``estimator``, ``form``, ``n_prompts``,
and ``per_row`` where rows keep their strongest pairs only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from pie_fast import _native, csr
from pie_fast.errors import PieFastError
from pie_fast.packed import PackedPairs, places
from pie_fast.seals import check_safetensors
from pie_fast.storage import write_safetensors
from pie_fast.synergy_given import pairs_as_kept, per_row_in_file, row_as_kept
from pie_fast.synergy_stats import (
    SynergyStats,
    checked_pool,
    checked_square,
    groups,
    one_of,
    synergy_stats,
)
from pie_fast.whole import whole_numbers

if TYPE_CHECKING:
    from os import PathLike
    from typing import Self

    from numpy.typing import ArrayLike, NDArray

    Direction: TypeAlias = Literal["noising", "denoising"]
    Form: TypeAlias = Literal["signed", "clipped"]

#: what two matrices must agree on to be merged
_IDENTITY = ("direction", "estimator", "form", "n_prompts")


class SynergyMatrix:
    """The synergies of a pool, dense (packed while it is filled) or sparse.

    Attributes:
        pool: ``[M]`` int64 global feature ids, ascending.
        direction: ``"noising"`` or ``"denoising"``.
        estimator: How the values were made, e.g. ``"exact"`` or ``"gradient-rows"``.
        form: ``"signed"`` or ``"clipped"`` (negative values are 0).
        n_prompts: How many prompts were averaged.
        redundancy: ``[M, M]`` float32 from decoder rows, or None.

    Raises:
        PieFastError: A pool that does not ascend or is not of 32-bit ids; another word.
    """

    def __init__(
        self,
        pool: ArrayLike,
        *,
        direction: Direction,
        estimator: str,
        form: Form,
        n_prompts: int,
        redundancy: NDArray[np.float32] | None = None,
    ) -> None:
        """An empty dense matrix; :meth:`from_dense` and :meth:`from_csr` make full ones."""
        self.pool = checked_pool(pool)
        self.direction = one_of("direction", direction, "noising", "denoising")
        self.form = one_of("form", form, "signed", "clipped")
        self.estimator = str(estimator)
        self.n_prompts = int(n_prompts)
        if self.n_prompts < 1:
            raise PieFastError(f"n_prompts is {n_prompts}, must be at least 1")
        self.redundancy = (
            None if redundancy is None else checked_square("redundancy", redundancy, len(self.pool))
        )
        self._pairs = PackedPairs(len(self.pool))
        #: how many pairs a row of a sparse matrix keeps; None: those that it was made with
        self.per_row: int | None = None
        self._csr: csr.Csr | None = None
        self._rows_done: NDArray[np.bool_] | None = None
        self._full: NDArray[np.float32] | None = None

    @classmethod
    def from_dense(cls, pool: ArrayLike, values: NDArray[np.float32], **identity: Any) -> Self:
        """A matrix all of whose pairs are known, from ``values`` ``[M, M]`` float32, symmetric.

        Args:
            pool: ``[M]`` ids, ascending.
            values: The synergies; the diagonal is ignored.
            **identity: direction, estimator, form, n_prompts, redundancy.

        Raises:
            PieFastError: Not symmetric, not finite, of another size; negative though clipped.
        """
        matrix = cls(pool, **identity)
        matrix._pairs.fill_all(checked_square("values", values, len(matrix)))
        matrix._check_sign(matrix._pairs.values)
        return matrix

    @classmethod
    def from_csr(cls, pool: ArrayLike, rows: csr.Csr, **identity: Any) -> Self:
        """A sparse matrix; pairs that are not stored count as 0 and all rows as done.

        Args:
            pool: ``[M]`` ids, ascending.
            rows: ``(indptr, indices, values)`` int64, int32, float32, symmetric.
            **identity: direction, estimator, form, n_prompts, redundancy.

        Raises:
            PieFastError: As :func:`pie_fast.greedy_select` on a broken CSR.
        """
        matrix = cls(pool, **identity)
        _native.check_synergy(rows)
        if len(rows[0]) != len(matrix) + 1:
            raise PieFastError(f"indptr has length {len(rows[0])}, must be {len(matrix) + 1}")
        matrix._check_sign(rows[2])
        matrix._make_sparse(rows, np.ones(len(matrix), dtype=np.bool_))
        return matrix

    def __len__(self) -> int:
        return len(self.pool)

    @property
    def is_sparse(self) -> bool:
        """Whether the values are CSR."""
        return self._csr is not None

    @property
    def values(self) -> NDArray[np.float32] | csr.Csr:
        """What selection takes: ``[M, M]`` float32, read-only, or CSR. Unknown pairs are 0."""
        if self._csr is not None:
            return self._csr
        if self._full is None:
            self._full = self._pairs.full()
            self._full.flags.writeable = False
        return self._full

    @property
    def done(self) -> NDArray[np.bool_]:
        """``[M]``: whether all pairs of a row are known."""
        if self._rows_done is not None:
            return self._rows_done.copy()
        return self._pairs.done()

    def positions(self, ids: ArrayLike) -> NDArray[np.int64]:
        """Where in the pool the global ids are.

        Raises:
            PieFastError: An id that the pool does not have.
        """
        wanted = whole_numbers("ids", ids)
        at = np.searchsorted(self.pool, wanted).astype(np.int64)
        found = at < len(self.pool)
        found[found] = self.pool[at[found]] == wanted[found]
        if not found.all():
            missing = wanted[~found][0]
            raise PieFastError(f"feature {missing} is not in the pool of {len(self.pool)}")
        return at

    def for_pool(self, ids: ArrayLike) -> NDArray[np.float32] | csr.Csr:
        """The synergies among some features, in their order: what goes with scores of these.

        Args:
            ids: ``[n]`` distinct global ids of the pool.

        Returns:
            ``[n, n]`` float32, or CSR of n rows where this matrix is sparse.

        Raises:
            PieFastError: An id that is not in the pool or is there twice; a pair among them whose
                synergy is not known; in a sparse matrix, a row that is not done.
        """
        at = self.positions(ids)
        if len(np.unique(at)) != len(at):
            raise PieFastError("a feature is there twice, features must be distinct")
        if self._csr is not None:
            self._check_done(at)
            return csr.sub_rows(self._csr, at)
        first, second = np.triu_indices(len(at), 1)
        known = self._pairs.known[places(len(self), at[first], at[second])]
        if not known.all():
            a, b = (self.pool[at[side[~known]]][0] for side in (first, second))
            raise PieFastError(
                f"the synergy of features {a} and {b} is not known, "
                f"{int(self.done.sum())} of {len(self)} rows are done"
            )
        values = np.asarray(self.values, dtype=np.float32)
        if len(at) == len(self) and np.array_equal(at, np.arange(len(at))):
            return values
        return values[np.ix_(at, at)]

    def _check_done(self, at: NDArray[np.int64]) -> None:
        missing = self.pool[np.sort(at[~self.done[at]])]
        if missing.size:
            more = f" and {missing.size - 5} more" if missing.size > 5 else ""
            raise PieFastError(
                f"the rows of features {', '.join(map(str, missing[:5]))}{more} are not done, "
                f"{int(self.done.sum())} of {len(self)} are"
            )

    def fill_row(self, feature: int, synergy: ArrayLike) -> None:
        """All pairs of one feature.

        Args:
            feature: A global id.
            synergy: ``[M]``, signed; its own place is ignored. A clipped matrix clips it.

        Raises:
            PieFastError: A feature that is not in the pool, another length, a number that is not
                finite, or a pair that is known with another value.
        """
        self._fill(*row_as_kept(self, feature, synergy))

    def fill_pairs(self, pairs: ArrayLike, synergy: ArrayLike) -> None:
        """Some pairs.

        Args:
            pairs: ``[n, 2]`` global ids, in any order.
            synergy: ``[n]``, signed. Clipped matrices clip it.

        Raises:
            PieFastError: As :meth:`fill_row`; a pair of a feature with itself.
        """
        self._fill(*pairs_as_kept(self, pairs, synergy))

    def _fill(
        self, first: NDArray[np.int64], second: NDArray[np.int64], new: NDArray[np.float32]
    ) -> None:
        if self._csr is not None:
            raise PieFastError("the matrix is sparse, fill_sparse_rows or SparsePairs fill it")
        clash = self._pairs.fill(first, second, new)
        if clash is not None:
            pair = " and ".join(map(str, self.pool[sorted((first[clash], second[clash]))]))
            raise PieFastError(f"synergy of features {pair} is known, {new[clash]} differs")
        self._full = None

    def merge(self, *others: SynergyMatrix) -> SynergyMatrix:
        """A new matrix that knows what any of these knows.

        Raises:
            PieFastError: Another pool, direction, estimator, form or number of prompts; a dense
                and a sparse one; a pair with two values; two redundancies.
        """
        out = self._copy()
        for other in others:
            out._absorb(other)
        return out

    def _absorb(self, other: SynergyMatrix) -> None:
        for name in _IDENTITY:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise PieFastError(f"{name} {theirs!r} cannot be merged with {mine!r}")
        if not np.array_equal(self.pool, other.pool):
            raise PieFastError("matrices of different pools cannot be merged")
        if self.is_sparse != other.is_sparse:
            raise PieFastError("a sparse matrix cannot be merged with a dense one")
        if self.redundancy is None:
            self.redundancy = other.redundancy
        elif other.redundancy is not None and not np.array_equal(self.redundancy, other.redundancy):
            raise PieFastError("the redundancies of two matrices differ, they must be equal")
        if self._csr is not None and other._csr is not None:
            rows = csr.union(self._csr, other._csr, self.pool)
            kept = self.per_row if self.per_row == other.per_row else None
            self._make_sparse(rows, self.done | other.done, kept)
            return
        self._fill(*other._pairs.pairs_known())

    def sparsified(self, per_row: int) -> SynergyMatrix:
        """The strongest pairs of each row (of either row of a pair), as a sparse matrix.

        Raises:
            PieFastError: Rows that are not done; a matrix that is sparse already.
        """
        if self._csr is not None:
            raise PieFastError("the matrix is sparse already")
        if not self._pairs.known.all():
            raise PieFastError(f"{self.done.sum()} of {len(self)} rows are done, all must be")
        # Packed synergies are joint importances of features with no importance of their own.
        rows = _native.top_synergies(
            self._pairs.values, np.zeros(len(self)), per_row, False, True, None
        )
        out = self._copy()
        out._make_sparse(rows, np.ones(len(self), dtype=np.bool_), per_row)
        return out

    def stats(self, n_strongest: int = 10) -> SynergyStats:
        """Counts, mean, and the strongest known pairs (magnitude, then ids)."""
        first, second, values = self._triplets()
        return synergy_stats(self.pool[first], self.pool[second], values, len(self), n_strongest)

    def clusters(
        self, threshold: float, *, by: Literal["synergy", "redundancy"] = "synergy"
    ) -> list[list[int]]:
        """Groups of features that chains of pairs of at least ``threshold`` connect.

        Args:
            threshold: Above 0.
            by: ``"synergy"`` or ``"redundancy"``.

        Returns:
            Global ids, each group ascending, larger groups first; features alone are left out.

        Raises:
            PieFastError: No redundancy here; a threshold that is not above 0.
        """
        matrix: Any = self.values
        if one_of("by", by, "synergy", "redundancy") == "redundancy":
            if self.redundancy is None:
                raise PieFastError("the matrix has no redundancy")
            matrix = self.redundancy
        return groups(self.pool, _native.synergy_clusters(matrix, float(threshold)))

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``synergy.safetensors``, whole or not at all; call it after each block of rows."""
        tensors: dict[str, NDArray[Any]] = {
            "pool": self.pool.astype(np.uint32),
            "done": self.done.astype(np.uint8),
        }
        if self._csr is not None:
            tensors |= dict(zip(("indptr", "indices", "values"), self._csr, strict=True))
        else:
            tensors["values"] = np.asarray(self.values)
            bits = self._pairs.bits()
            if bits is not None:
                tensors["known"] = bits
        if self.redundancy is not None:
            tensors["redundancy"] = self.redundancy
        metadata = {name: str(getattr(self, name)) for name in _IDENTITY}
        if self.per_row is not None:
            metadata["per_row"] = str(self.per_row)
        write_safetensors(Path(path), tensors, metadata, seal=True)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read ``synergy.safetensors``; every number is checked.

        Raises:
            DumpError: The file is not what the format promises; file, tensor and value are named.
            OSError: It cannot be read.
        """
        check_safetensors(Path(path))
        file = _native.load_synergy(path)
        texts = file["metadata"]
        matrix = cls(
            file["pool"].astype(np.int64),
            direction=texts["direction"],
            estimator=texts["estimator"],
            form=texts["form"],
            n_prompts=int(texts["n_prompts"]),
        )
        matrix.redundancy = file["redundancy"]
        done = file["done"].astype(np.bool_)
        if isinstance(file["values"], tuple):
            per_row = per_row_in_file(path, texts.get("per_row"))
            matrix._make_sparse(file["values"], done, per_row)
        else:
            matrix._pairs.fill_all(file["values"])
            matrix._pairs.forget_unless(done, file["known"])
        return matrix

    def _triplets(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Every known pair once, ``first < second``, in order."""
        if self._csr is None:
            return self._pairs.pairs_known()
        rows, columns, values = csr.triplets(self._csr)
        upper = columns > rows
        return rows[upper], columns[upper], values[upper]

    def _make_sparse(
        self, rows: csr.Csr, done: NDArray[np.bool_], per_row: int | None = None
    ) -> None:
        self._csr, self._rows_done, self.per_row = rows, done, per_row
        self._pairs, self._full = PackedPairs(0), None

    def _check_sign(self, values: NDArray[np.float32]) -> None:
        if self.form == "clipped" and (values < 0).any():
            raise PieFastError(f"a clipped synergy is {values.min()}, must be at least 0")

    def _copy(self) -> SynergyMatrix:
        out = SynergyMatrix(self.pool, **{name: getattr(self, name) for name in _IDENTITY})
        out.redundancy = self.redundancy
        out._pairs = self._pairs.copy()
        out._csr, out._rows_done, out.per_row = self._csr, self._rows_done, self.per_row
        return out
