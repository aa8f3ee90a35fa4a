"""Files and dumps at a URL that fsspec knows: ``s3://``, ``gs://``, ``https://``, ...

Scans read by pread, so what they read is copied to a cache of this machine first, shard by shard,
and only when its length and sha256 are those of the manifest. A dump appears at a URL when its
manifest does, which is written last.

The cache is ``$PIE_FAST_CACHE`` (``~/.cache/pie_fast/dumps``) and holds at most
``$PIE_FAST_CACHE_BYTES`` (64 GiB): dumps that were not used for longest go first, those that a
process has open never.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pie_fast import _native
from pie_fast.errors import OutputExistsError, PieFastError, StorageError
from pie_fast.storage import replacing

#: bytes copied at once
_CHUNK = 1 << 22

#: files of a dump that its manifest has no hash of; the second is there or not
_EXTRAS = ("prompts.safetensors", "synergy.safetensors")

#: locks on cached dumps that this process uses, until it ends
_IN_USE: dict[Path, IO[bytes]] = {}


def is_url(place: str | Path) -> bool:
    """Whether `place` is a URL and not a path."""
    return isinstance(place, str) and "://" in place


def join(place: str, name: str) -> str:
    """What is called `name` in a folder or below a URL."""
    return f"{place.rstrip('/')}/{name}" if is_url(place) else str(Path(place) / name)


def read_bytes(place: str) -> bytes:
    """A whole file, by path or URL.

    Raises:
        StorageError: Nothing is there, or it cannot be read; with the reason.
        OSError: The same of a path.
    """
    if not is_url(place):
        return Path(place).read_bytes()
    with _told(place):
        files, path = _at(place)
        data: bytes = files.cat_file(path)
        return data


def write_bytes(place: str, data: bytes) -> None:
    """Write a file, whole or not at all, by path or URL.

    Raises:
        StorageError: It cannot be written, with the reason.
        OSError: The same of a path.
    """
    if not is_url(place):
        with replacing(Path(place)) as file:
            file.write(data)
        return
    with _told(place):
        files, path = _at(place)
        files.pipe_file(path, data)


def exists(place: str) -> bool:
    """Whether there is something, by path or URL."""
    if not is_url(place):
        return Path(place).exists()
    with _told(place):
        files, path = _at(place)
        return bool(files.exists(path))


def remove(place: str) -> None:
    """Remove a folder, by path or URL, if it is there."""
    if not is_url(place):
        shutil.rmtree(place, ignore_errors=True)
        return
    with _told(place), suppress(FileNotFoundError):
        files, path = _at(place)
        files.rm(path, recursive=True)


def check_no_dump(url: str, *, force: bool) -> None:
    """Refuse to write where a dump is, unless it is to be replaced.

    Raises:
        OutputExistsError: Naming the URL.
    """
    if not force and exists(join(url, "manifest.json")):
        raise OutputExistsError(f"{url} exists; use --force to replace it")


def upload_dump(folder: Path, url: str, *, force: bool = False) -> None:
    """Copy a dump to a URL; it is a dump there when all of it is.

    Raises:
        OutputExistsError: A dump is there and `force` was not given.
        StorageError: It cannot be written, with the reason.
    """
    check_no_dump(url, force=force)
    marker = join(url, "manifest.json")
    if exists(marker):
        with _told(marker):
            files, path = _at(marker)
            files.rm(path)
    names = [
        shard["file"] for shard in json.loads((folder / "manifest.json").read_text())["shards"]
    ]
    for name in (*names, *(name for name in _EXTRAS if (folder / name).exists()), "manifest.json"):
        place = join(url, name)
        with _told(place):
            files, path = _at(place)
            files.put_file(str(folder / name), path)


def staged(url: str, *, prompts: tuple[int, int] | None = None, extras: bool = True) -> Path:
    """Copy a dump, or what is needed of it, to the cache of this machine.

    Args:
        url: Of its folder.
        prompts: (first, end): only shards that hold some of these. All by default.
        extras: Whether the prompts and the synergies are copied too.

    Returns:
        The folder of the copy.

    Raises:
        StorageError: It cannot be read, is not what its manifest says, changes meanwhile, or
            exceeds the cache.
        DumpError: Its manifest is not what the format promises.
    """
    text = read_bytes(join(url, "manifest.json"))
    name = hashlib.sha256(url.encode() + b"\0" + text).hexdigest()[:32]
    cache = _cache()
    folder = cache / name
    _use(folder)
    with replacing(folder / "manifest.json") as file:
        file.write(text)
    with naming(folder, url):
        _native.Dump(folder, prompts=(0, 0))  # checks the manifest: names of files, hashes, ...
    missing = [
        shard
        for shard in json.loads(text)["shards"]
        if _holds(shard, prompts) and not (folder / shard["file"]).exists()
    ]
    _make_room(cache, folder, sum(shard["bytes"] for shard in missing), url)
    for shard in missing:
        _fetch(join(url, shard["file"]), folder / shard["file"], shard["bytes"], shard["hash"])
    if extras:
        for name in _EXTRAS:
            _fetch_unhashed(join(url, name), folder / name, needed=name == _EXTRAS[0])
    return folder


@contextmanager
def naming(folder: Path, url: str) -> Iterator[None]:
    """Errors of a copied dump name where it was copied from."""
    try:
        yield
    except PieFastError as error:
        raise type(error)(str(error).replace(str(folder), url.rstrip("/"))) from error


def _holds(shard: dict[str, Any], prompts: tuple[int, int] | None) -> bool:
    if prompts is None:
        return True
    first, n = shard["first_prompt"], shard["n_prompts"]
    return bool(max(first, prompts[0]) < min(first + n, prompts[1]))


def _at(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there."""
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    files, path = url_to_fs(url, use_listings_cache=False)
    return files, path


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Each library behind fsspec has errors of its own: they become one that names the URL."""
    try:
        yield
    except PieFastError:
        raise
    except FileNotFoundError as error:
        raise StorageError(f"{url}: no such file or bucket") from error
    except ImportError as error:
        message = f"{url}: {error}: pip install 'pie-fast[storage]' has what s3:// needs"
        raise StorageError(message) from error
    except Exception as error:
        raise StorageError(f"{url}: {type(error).__name__}: {error}") from error


def _chunks(url: str) -> Iterator[bytes]:
    with _told(url):
        files, path = _at(url)
        with files.open(path, "rb", cache_type="none") as source:
            while chunk := source.read(_CHUNK):
                yield chunk


def _fetch(url: str, target: Path, n_bytes: int, sha256: str) -> None:
    digest, n = hashlib.sha256(), 0
    with replacing(target) as file:
        for chunk in _chunks(url):
            digest.update(chunk)
            n += file.write(chunk)
        if n != n_bytes:
            raise StorageError(f"{url}: {n} bytes came, the manifest says {n_bytes}")
        if digest.hexdigest() != sha256.lower():
            got = digest.hexdigest()
            raise StorageError(f"{url}: has sha256 {got}, the manifest says {sha256}")


def _fetch_unhashed(url: str, target: Path, *, needed: bool) -> None:
    """Copy a file again if its URL tells of another version than the copy's."""
    noted = target.with_name(f"{target.name}.version")
    with _told(url):
        files, path = _at(url)
        if not needed and not files.exists(path):
            target.unlink(missing_ok=True)
            return
        version = str(files.ukey(path))
    if target.exists() and noted.exists() and noted.read_text() == version:
        return
    with replacing(target) as file:
        for chunk in _chunks(url):
            file.write(chunk)
        with _told(url):
            if str(files.ukey(path)) != version:
                raise StorageError(f"{url}: changed while it was read; try again")
    with replacing(noted) as file:
        file.write(version.encode())


def _cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PIE_FAST_CACHE") or home / "pie_fast" / "dumps")


def _limit() -> int:
    text = os.environ.get("PIE_FAST_CACHE_BYTES", str(1 << 36))
    if not text.isdecimal():
        raise StorageError(f"PIE_FAST_CACHE_BYTES is {text!r}, must be a number of bytes")
    return int(text)


def _use(folder: Path) -> None:
    """Make a cached dump's folder, which nobody removes while this process lives."""
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{folder.name}.lock")
    if folder not in _IN_USE:
        _IN_USE[folder] = lock.open("wb")
        fcntl.flock(_IN_USE[folder], fcntl.LOCK_SH)
    os.utime(lock)
    folder.mkdir(exist_ok=True)


def _make_room(cache: Path, keep: Path, needed: int, url: str) -> None:
    """Remove dumps that nobody uses, oldest use first, until `needed` bytes more fit."""
    import fcntl

    limit = _limit()
    sizes = {
        folder: sum(file.stat().st_size for file in folder.iterdir())
        for folder in cache.iterdir()
        if folder.is_dir()
    }

    def last_use(folder: Path) -> float:
        return folder.with_name(f"{folder.name}.lock").stat().st_mtime

    for folder in sorted(set(sizes) - {keep}, key=last_use):
        if needed == 0 or sum(sizes.values()) + needed <= limit:
            return
        with folder.with_name(f"{folder.name}.lock").open("ab") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
            del sizes[folder]
    if needed and sum(sizes.values()) + needed > limit:
        raise StorageError(
            f"{url}: {needed} bytes more do not fit the cache {cache} beside what is in use; "
            f"PIE_FAST_CACHE_BYTES is {limit}"
        )
