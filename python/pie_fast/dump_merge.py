"""Several dumps of one capture, each of other prompts, as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from pie_fast.dump import FeatureDump, Progress, PromptTable, open_dump
from pie_fast.dump_writer import BLOCK, COUNTED, FREE, ActivationDtype, DumpWriter
from pie_fast.errors import DumpError, PieFastError
from pie_fast.remote import check_no_dump, is_url, upload_dump


def merge_dumps(
    sources: Sequence[str | Path],
    target: str | Path,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> FeatureDump:
    """Write the prompts of ``sources``, in that order, as one dump.

    A capture whose prompts were shared out over machines gives the same bytes as on one machine,
    if each batch of prompts stayed together.

    Args:
        sources: Dumps that differ in their prompts only; folders or URLs.
        target: The folder or the URL of the new dump.
        force: Replace what is there when the new dump is complete.
        progress: Told how many of how many entries are written.

    Returns:
        The new dump, opened.

    Raises:
        DumpError: A dump is incomplete, or differs from the first in a setting; names it.
        OutputExistsError: The folder exists and ``force`` was not given.
    """
    if not sources:
        raise PieFastError("merge needs at least one dump")
    if is_url(target):
        return _merge_to_url(sources, str(target), force, progress)
    dumps = [open_dump(source) for source in sources]
    for dump in dumps:
        if not dump.complete:
            planned = dump.manifest["n_prompts_planned"]
            raise DumpError(f"{dump.path}: has {dump.n_prompts} of {planned} prompts: resume it")
    manifest = _settings(dumps[0])
    for dump in dumps[1:]:
        _check_same(dumps[0], dump)
    dtype = cast("ActivationDtype", manifest.get("dtypes", {}).get("activation", "F32"))
    writer = DumpWriter(
        target,
        prompts=PromptTable.concatenate([dump.prompts for dump in dumps]),
        manifest=_given(manifest),
        force=force,
        activation_dtype=dtype,
    )
    try:
        _copy(dumps, writer, progress)
        writer.close()
    except BaseException:
        writer.discard()
        raise
    return open_dump(target)


def _merge_to_url(
    sources: Sequence[str | Path], url: str, force: bool, progress: Progress | None
) -> FeatureDump:
    check_no_dump(url, force=force)
    with TemporaryDirectory() as folder:
        merged = merge_dumps(sources, Path(folder) / "dump", progress=progress)
        upload_dump(merged.path, url, force=force)
    return open_dump(url)


def _copy(dumps: list[FeatureDump], writer: DumpWriter, progress: Progress | None) -> None:
    done, total = 0, sum(dump.n_active for dump in dumps)
    for dump in dumps:
        for first in range(0, dump.n_prompts, BLOCK):
            entries = dump.entries(first, min(BLOCK, dump.n_prompts - first))
            writer.append(*entries)
            done += len(entries.feature)
            if progress is not None:
                progress(done, total)


def _settings(dump: FeatureDump) -> dict[str, Any]:
    """The manifest without what the writer counts itself."""
    return {key: value for key, value in dump.manifest.items() if key not in COUNTED}


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """What a capture hands to its writer: settings without what the writer adds to them."""
    given = {key: value for key, value in settings.items() if key not in FREE}
    added = ("activation", "attribution")
    dtypes = {key: value for key, value in given.pop("dtypes", {}).items() if key not in added}
    return {**given, **({"dtypes": dtypes} if dtypes else {})}


def _check_same(first: FeatureDump, other: FeatureDump) -> None:
    mine, theirs = _settings(first), _settings(other)
    for key in sorted({*mine, *theirs} - set(FREE)):
        # A dump without prompts does not know whether it has attributions.
        if key == "dtypes" and 0 in (first.n_prompts, other.n_prompts):
            continue
        if mine.get(key) != theirs.get(key):
            raise DumpError(
                f"{other.path / 'manifest.json'}: {key}: is {theirs.get(key)!r}, "
                f"{first.path} has {mine.get(key)!r}"
            )
