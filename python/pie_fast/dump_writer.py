"""Writing feature dumps: shard by shard, resumable, never half."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from pie_fast import _native
from pie_fast.dump_prompts import PromptTable, check_finite
from pie_fast.errors import DumpError, OutputExistsError, PieFastError
from pie_fast.seals import write_sealed
from pie_fast.storage import remove_leftovers, swap_in, to_bf16, write_safetensors
from pie_fast.untrusted import load_json

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray

FORMAT = "pie-fast-dump"
VERSION = 1

#: Prompts are added up in blocks of this many; shards are cut at its multiples.
BLOCK = 256

ActivationDtype = Literal["F32", "F16", "BF16"]

#: Keys that the writer fills in itself.
COUNTED = (
    "format",
    "version",
    "n_prompts",
    "n_prompts_planned",
    "complete",
    "shards",
    "prompts_hash",
    "checksum",
)
#: Keys that a capture records while it runs; the one that resumes it takes them over.
RECORDED = ("batches",)
#: Keys that may differ between a dump and the capture that resumes it.
FREE = ("software", "created", *RECORDED)


class DumpWriter:
    """Writes a feature dump (a context manager).

    A shard is written to a temporary file, synced and renamed, and only then enters the
    manifest, which is replaced as a whole. So after a full disk, Ctrl-C or a kill the folder is
    a valid dump of the prompts whose shards were finished, and ``resume=True`` goes on there.

    With ``force=True`` an existing dump stays as it is until the new one, written to the sibling
    folder ``NAME.partial``, is complete; ``close`` then swaps the two.

    Args:
        path: The folder of the dump.
        prompts: All prompts that the dump is going to have.
        measured: Whether the metrics of ``prompts`` are known. Else each ``append`` brings those
            of its prompts, and those of prompts in no shard yet mean nothing.
        manifest: What the caller knows: ``n_layers`` and ``n_features`` at least; model, clt,
            behavior, metric, baseline and so on as plain JSON. Every key but "software" and
            "created" identifies the dump: a resumed capture must bring the same values.
        resume: Go on with a dump that was interrupted (or begin, if there is none).
        force: Replace an existing dump when the new one is complete.
        activation_dtype: How activations are stored: "F32", "F16" or "BF16".
        shard_bytes: A shard ends at the first multiple of 256 prompts at which its entries take
            at least so many bytes.

    Raises:
        OutputExistsError: The folder exists and neither ``resume`` nor ``force`` was given, or
            it is something else than a dump.
        DumpError: The dump to resume is broken or is not the same capture; names the key.
        PieFastError: A manifest without a needed key, or with a value that JSON cannot hold.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        prompts: PromptTable,
        manifest: dict[str, Any],
        measured: bool = True,
        resume: bool = False,
        force: bool = False,
        activation_dtype: ActivationDtype = "F32",
        shard_bytes: int = 1 << 20,
    ) -> None:
        if activation_dtype not in get_args(ActivationDtype):
            raise PieFastError(f"activation_dtype {activation_dtype!r} is not F32, F16 or BF16")
        self._path = Path(path)
        # A copy where metrics are going to be filled in.
        self._prompts = prompts if measured else prompts.with_metrics(0, *_unknown(prompts))
        self._measured = measured
        self._activation_dtype = activation_dtype
        self._shard_bytes = shard_bytes
        self._given = _checked_manifest(manifest, prompts.n_prompts)
        self._n_ids = int(manifest["n_layers"]) * int(manifest["n_features"])
        self._shards: list[dict[str, Any]] = []
        self._has_attribution: bool | None = None
        self._buffer = _Buffer()
        self._digest = self._prompts.digest(0)
        self._closed = False
        self._folder, resuming = _choose_folder(self._path, resume=resume, force=force)
        remove_leftovers(self._folder)
        if resuming:
            self._resume()
        else:
            self._begin()

    @property
    def next_prompt(self) -> int:
        """The first prompt that is not yet in a whole shard."""
        return sum(int(shard["n_prompts"]) for shard in self._shards)

    @property
    def n_appended(self) -> int:
        """Prompts in whole shards, and those that wait in memory for theirs to be whole."""
        return self.next_prompt + self._buffer.n_prompts

    @property
    def recorded(self) -> dict[str, Any]:
        """What was recorded so far, by this capture and the one that it resumes."""
        return {key: self._given[key] for key in RECORDED if key in self._given}

    def record(self, key: str, value: Any) -> None:
        """Put something that a capture learns while it runs into the manifest, by JSON."""
        if key not in RECORDED:
            raise PieFastError(f"manifest: {key} is not one of {', '.join(RECORDED)}")
        self._given[key] = value

    def check_metrics(
        self, first: int, clean: NDArray[np.float64], baseline: NDArray[np.float64]
    ) -> None:
        """Compare metrics of the prompts from ``first`` on with those of whole shards.

        Raises:
            DumpError: They differ by more than what rounding explains: it is another model.
        """
        end = max(min(self.next_prompt, first + len(clean)), first)
        mine = self._prompts.slice(first, end)
        theirs = mine.with_metrics(0, clean[: end - first], baseline[: end - first])
        self._check_prompts(mine.difference(theirs))

    def append(
        self,
        prompt_ptr: ArrayLike,
        feature: ArrayLike,
        position: ArrayLike,
        activation: ArrayLike,
        attribution: ArrayLike | None = None,
        *,
        metrics: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> None:
        """Add the next prompts.

        Args:
            prompt_ptr: ``[b + 1]`` int64, CSR pointer over the ``b`` prompts.
            feature: ``[nnz]`` uint32 global ids; within a prompt (feature, position) ascends.
            position: ``[nnz]`` unsigned positions.
            activation: ``[nnz]`` float32.
            attribution: ``[nnz]`` float32, or None in a dump without attributions.
            metrics: ``[b]`` float64 each, of the model and of the baseline; where they were not
                known before.

        Raises:
            PieFastError: Entries out of order, out of range or not finite; more prompts than
                the dump is going to have. Nothing of the call is kept then.
            OSError: A shard could not be written. The shards before it are whole.
        """
        if self._closed:
            raise PieFastError(f"{self._path}: the writer is closed")
        batch = _Batch(prompt_ptr, feature, position, activation, attribution)
        first = self.n_appended
        if first + batch.n_prompts > self._prompts.n_prompts:
            raise PieFastError(
                f"prompts up to {first + batch.n_prompts} were appended, "
                f"the dump is going to have {self._prompts.n_prompts}"
            )
        lengths = np.diff(self._prompts.prompt_ptr[first : first + batch.n_prompts + 1])
        batch.check(self._n_ids, lengths, first, self._activation_dtype)
        if self._has_attribution not in (None, batch.attribution is not None):
            raise PieFastError("attribution was given for some prompts and not for others")
        if (metrics is None) != self._measured:
            raise PieFastError("metrics belong to append where they are not known before, only")
        if metrics is not None:
            rows = slice(first, first + batch.n_prompts)
            found = _metrics(metrics, batch, first)
            self._prompts.metric_clean[rows], self._prompts.metric_baseline[rows] = found
        self._has_attribution = batch.attribution is not None
        self._buffer.add(batch)
        self._write_whole_blocks()

    def close(self) -> None:
        """Write what waits in memory and mark the dump complete; with ``force``, swap it in.

        Raises:
            PieFastError: Prompts are missing. Whole shards stay, and ``resume`` goes on there.
            OSError: The last shard could not be written.
        """
        if self._closed:
            return
        if self.n_appended != self._prompts.n_prompts:
            raise PieFastError(
                f"{self._path}: {self.n_appended} of {self._prompts.n_prompts} prompts were "
                "appended; resume to append the others"
            )
        if self._buffer.n_prompts:
            self._write_shard(self._buffer.n_prompts)
        if self._folder != self._path:
            swap_in(self._folder, self._path)
        self._closed = True

    def discard(self) -> None:
        """Remove what was written; what ``force`` was going to replace stays."""
        self._closed = True
        shutil.rmtree(self._folder)

    def __enter__(self) -> DumpWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        self._closed = True

    def _begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._prompts.save(self._folder / "prompts.safetensors")
        self._write_manifest()

    def _resume(self) -> None:
        # Opening checks the manifest and every shard in it.
        has_attribution = _native.Dump(self._folder).has_attribution
        path = self._folder / "manifest.json"
        stored = json.loads(path.read_text())
        self._has_attribution = has_attribution if stored["shards"] else None
        mine = self._manifest()
        for key in sorted({*stored, *mine} - {*COUNTED, *FREE}):
            _check_same(path, key, stored.get(key), mine.get(key))
        n_known = sum(int(shard["n_prompts"]) for shard in stored["shards"])
        prompts = PromptTable.load(self._folder / "prompts.safetensors")
        digest = prompts.digest(n_known)
        if stored.get("prompts_hash", digest.hex) != digest.hex:
            path = self._folder / "prompts.safetensors"
            raise DumpError(f"{path}: is not what the manifest has the hash of (prompts_hash)")
        if not self._measured:
            known = (prompts.metric_clean, prompts.metric_baseline)
            if prompts.n_prompts == self._prompts.n_prompts:
                self._prompts = self._prompts.with_metrics(0, *known)
        self._check_prompts(prompts.difference(self._prompts))
        self._shards = stored["shards"]
        self._digest = self._prompts.digest(n_known)
        self._given |= {key: stored[key] for key in RECORDED if key in stored}

    def _check_prompts(self, different: str | None) -> None:
        if different is not None:
            path = self._folder / "prompts.safetensors"
            raise DumpError(f"{path}: {different}: differs from the capture that resumes it")

    def _write_whole_blocks(self) -> None:
        """Cut shards off the buffer, each at the first multiple of 256 that is large enough."""
        while cut := self._buffer.cut(self._shard_bytes):
            self._write_shard(cut)

    def _write_shard(self, n_prompts: int) -> None:
        """Write the first ``n_prompts`` of the buffer as a shard, then the manifest."""
        csr = self._buffer.peek(n_prompts)
        name = f"shard-{len(self._shards):05}.safetensors"
        written = write_safetensors(self._folder / name, _tensors(csr, self._activation_dtype))
        entry: dict[str, Any] = {
            "file": name,
            "first_prompt": self.next_prompt,
            "n_prompts": n_prompts,
            "n_active": len(csr.feature),
            "bytes": written.bytes,
            "hash": written.hash,
            "crc32": written.crc32,
        }
        self._shards.append(entry)
        begin, known = int(entry["first_prompt"]), self._digest.copy()
        self._digest.add(self._prompts, begin, begin + n_prompts)
        try:
            if not self._measured:
                path = self._folder / "prompts.safetensors"
                self._prompts.write_metrics(path, begin, begin + n_prompts)
            self._write_manifest()
        except BaseException:
            self._shards.pop()
            self._digest = known
            raise
        self._buffer.drop(n_prompts)

    def _write_manifest(self) -> None:
        write_sealed(self._folder / "manifest.json", self._manifest())

    def _manifest(self) -> dict[str, Any]:
        n_prompts = self.next_prompt
        attribution = "F32" if self._has_attribution else None
        dtypes = {"activation": self._activation_dtype, "attribution": attribution}
        return {
            "format": FORMAT,
            "version": VERSION,
            "software": {"pie_fast": _native.__version__},
            **self._given,
            "n_prompts": n_prompts,
            "n_prompts_planned": self._prompts.n_prompts,
            "complete": n_prompts == self._prompts.n_prompts,
            "dtypes": {**self._given.get("dtypes", {}), **dtypes},
            "prompts_hash": self._digest.hex,
            "shards": self._shards,
        }


class _Batch:
    """The arrays of one ``append``, with exact dtypes."""

    def __init__(
        self,
        prompt_ptr: ArrayLike,
        feature: ArrayLike,
        position: ArrayLike,
        activation: ArrayLike,
        attribution: ArrayLike | None,
    ) -> None:
        self.ptr: NDArray[np.int64] = _integers("prompt_ptr", prompt_ptr, np.int64)
        self.feature: NDArray[np.uint32] = _integers("feature", feature, np.uint32)
        self.position: NDArray[np.uint32] = _integers("position", position, np.uint32)
        self.activation = np.ascontiguousarray(activation, dtype=np.float32)
        self.attribution = (
            None if attribution is None else np.ascontiguousarray(attribution, dtype=np.float32)
        )

    @property
    def n_prompts(self) -> int:
        return len(self.ptr) - 1

    def check(
        self, n_ids: int, lengths: NDArray[np.int64], first: int, activation_dtype: str
    ) -> None:
        n = len(self.feature)
        ptr = self.ptr
        if ptr.ndim != 1 or not len(ptr) or ptr[0] != 0 or ptr[-1] != n or (np.diff(ptr) < 0).any():
            raise PieFastError(f"prompt_ptr must rise from 0 to the {n} entries of feature")
        for name in ("feature", "position", "activation", "attribution"):
            array = getattr(self, name)
            if array is not None and array.shape != (n,):
                raise PieFastError(f"{name} has shape {array.shape}, must be ({n},)")
        if n == 0:
            return
        if int(self.feature.max()) >= n_ids:
            raise PieFastError(f"feature {self.feature.max()} is outside [0, {n_ids})")
        self._check_order(first)
        longest = np.repeat(np.where(lengths > 0, lengths, 1 << 32), np.diff(ptr))
        self._check_entries(self.position < longest, "position", first, "is beyond the prompt")
        largest = np.finfo(np.float16).max if activation_dtype == "F16" else np.inf
        fits = np.abs(self.activation) < largest
        self._check_entries(fits, "activation", first, f"must be finite, as {activation_dtype} too")
        if self.attribution is not None:
            fits = np.isfinite(self.attribution)
            self._check_entries(fits, "attribution", first, "must be finite")

    def _check_order(self, first: int) -> None:
        key = (self.feature.astype(np.uint64) << np.uint64(32)) | self.position
        rises = key[1:] > key[:-1]
        starts = self.ptr[1:-1]
        rises[starts[(starts > 0) & (starts < len(key))] - 1] = True
        if not rises.all():
            i = int((~rises).argmax())
            a, b = ((int(self.feature[j]), int(self.position[j])) for j in (i, i + 1))
            prompt = first + int(np.searchsorted(self.ptr, i, side="right")) - 1
            raise PieFastError(
                f"(feature, position) {b} of prompt {prompt} follows {a}; must ascend, none twice"
            )

    def _check_entries(self, good: NDArray[np.bool_], name: str, first: int, rule: str) -> None:
        if not good.all():
            i = int((~good).argmax())
            prompt = first + int(np.searchsorted(self.ptr, i, side="right")) - 1
            raise PieFastError(
                f"{name} {getattr(self, name)[i]} of feature {self.feature[i]} "
                f"in prompt {prompt}: {rule}"
            )


class _Csr:
    """Entries of whole prompts."""

    def __init__(self, batches: list[_Batch], n_prompts: int) -> None:
        steps = np.concatenate([np.diff(batch.ptr) for batch in batches])[:n_prompts]
        self.ptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(steps)])
        n = int(self.ptr[-1])
        self.feature = np.concatenate([batch.feature for batch in batches])[:n]
        self.position = np.concatenate([batch.position for batch in batches])[:n]
        self.activation = np.concatenate([batch.activation for batch in batches])[:n]
        attributions = [b.attribution for b in batches if b.attribution is not None]
        self.attribution = np.concatenate(attributions)[:n] if attributions else None


class _Buffer:
    """Prompts that wait for their shard to be whole."""

    def __init__(self) -> None:
        self._batches: list[_Batch] = []
        self.n_prompts = 0
        self._n_entries = 0

    def add(self, batch: _Batch) -> None:
        self._batches.append(batch)
        self.n_prompts += batch.n_prompts
        self._n_entries += len(batch.feature)

    def cut(self, shard_bytes: int) -> int:
        """How many prompts the next shard takes, 0 while they are too few."""
        if self.n_prompts < BLOCK:
            return 0
        entry = 14 if self._batches[0].attribution is not None else 10
        # Looking at all that waits, at every append, would be slow where millions of prompts wait.
        if self._n_entries * entry < shard_bytes:
            return 0
        steps = np.concatenate([np.diff(batch.ptr) for batch in self._batches])
        ends = np.cumsum(steps)[BLOCK - 1 :: BLOCK] * entry
        whole = int(np.searchsorted(ends, shard_bytes)) + 1
        return whole * BLOCK if whole <= len(ends) else 0

    def peek(self, n_prompts: int) -> _Csr:
        return _Csr(self._batches, n_prompts)

    def drop(self, n_prompts: int) -> None:
        rest = _Csr(self._batches, self.n_prompts)
        begin = int(rest.ptr[n_prompts])
        attribution = None if rest.attribution is None else rest.attribution[begin:]
        self._batches = []
        self._n_entries -= begin
        self.n_prompts -= n_prompts
        if self.n_prompts:
            ptr = rest.ptr[n_prompts:] - begin
            columns = (rest.feature[begin:], rest.position[begin:], rest.activation[begin:])
            self._batches = [_Batch(ptr, *columns, attribution)]


def _tensors(csr: _Csr, activation_dtype: str) -> dict[str, Any]:
    narrow = len(csr.position) == 0 or int(csr.position.max()) < 1 << 16
    tensors: dict[str, Any] = {
        "prompt_ptr": csr.ptr,
        "feature": csr.feature,
        "position": csr.position.astype(np.uint16) if narrow else csr.position,
    }
    if activation_dtype == "BF16":
        tensors["activation"] = ("BF16", to_bf16(csr.activation))
    elif activation_dtype == "F16":
        tensors["activation"] = csr.activation.astype(np.float16)
    else:
        tensors["activation"] = csr.activation
    if csr.attribution is not None:
        tensors["attribution"] = csr.attribution
    return tensors


def _unknown(prompts: PromptTable) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What stands in a table for metrics that are not known yet."""
    return np.zeros(prompts.n_prompts), np.zeros(prompts.n_prompts)


def _metrics(
    metrics: tuple[ArrayLike, ArrayLike], batch: _Batch, first: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``[b]`` float64 each."""
    clean, baseline = (np.asarray(values, dtype=np.float64) for values in metrics)
    for name, values in (("metric_clean", clean), ("metric_baseline", baseline)):
        if values.shape != (batch.n_prompts,):
            raise PieFastError(f"{name} has shape {values.shape}, must be ({batch.n_prompts},)")
        check_finite(name, values, first)
    return clean, baseline


def _integers(name: str, values: ArrayLike, dtype: type[np.integer[Any]]) -> NDArray[Any]:
    """``values`` as ``dtype``, if that changes no number."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        if array.size == 0:
            return np.zeros(array.shape, dtype)
        raise PieFastError(f"{name} has dtype {array.dtype}, must be {dtype.__name__}")
    limits = np.iinfo(dtype)
    if array.size and array.dtype != dtype:
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            bad = low if low < limits.min else high
            raise PieFastError(f"{name} has {bad}, outside [{limits.min}, {limits.max}]")
    return np.ascontiguousarray(array, dtype=dtype)


def _checked_manifest(manifest: dict[str, Any], n_prompts: int) -> dict[str, Any]:
    """The caller's part of the manifest, as JSON gives it back."""
    for key in ("n_layers", "n_features"):
        value = manifest.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise PieFastError(f"manifest: {key} is {value!r}, must be a whole number above 0")
    if manifest["n_layers"] * manifest["n_features"] > 1 << 32:
        raise PieFastError("manifest: n_layers * n_features exceeds 2**32, ids are uint32")
    known = {"format": FORMAT, "version": VERSION, "n_prompts": n_prompts}
    for key in COUNTED:
        if key in manifest and (key not in known or manifest[key] != known[key]):
            raise PieFastError(f"manifest: {key} is filled in by the writer")
    if not isinstance(manifest.get("dtypes", {}), dict):
        raise PieFastError(f"manifest: dtypes is {manifest['dtypes']!r}, must be an object")
    try:
        given: dict[str, Any] = json.loads(json.dumps(manifest, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise PieFastError(f"manifest: {error}") from error
    return given


def _choose_folder(path: Path, *, resume: bool, force: bool) -> tuple[Path, bool]:
    """Where to write, and whether to go on with what is there."""
    partial = path.with_name(f"{path.name}.partial")
    if path.exists() and not path.is_dir():
        raise OutputExistsError(f"{path} exists and is not a folder")
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    # What a capture leaves that was stopped before its first manifest.
    begun = all(name == "prompts.safetensors" or name.endswith(".tmp") for name in names)
    if resume:
        if force and (partial / "manifest.json").exists():
            return partial, True
        if "manifest.json" in names:
            return path, True
        if begun:
            return path, False
    if not names:
        return path, False
    if not force:
        raise OutputExistsError(f"{path} exists; use --force to replace it")
    if not begun and not _is_dump(path):
        raise OutputExistsError(f"{path} exists and is not a feature dump: it is not replaced")
    if partial.exists():
        shutil.rmtree(partial)
    return partial, False


def _is_dump(path: Path) -> bool:
    try:
        return bool(load_json((path / "manifest.json").read_bytes())["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_same(path: Path, key: str, stored: object, given: object) -> None:
    if stored != given:
        raise DumpError(f"{path}: {key}: is {stored!r}, the capture that resumes it has {given!r}")
