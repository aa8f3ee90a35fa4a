"""Dumps at URLs, on a real server that speaks S3."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from making import cut, make_entries, small_dump, write_dump
from s3 import s3_server

import engine_work as work
from pie_fast import open_dump, remote
from pie_fast.engine import LocalEngine
from pie_fast.engine.on_ray import RayEngine
from pie_fast.errors import DumpError, OutputExistsError, StorageError
from pie_fast.remote import staged, upload_dump
from pie_fast.spread import SpreadDump
from running import contents, run_cli, written

SETTINGS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


@dataclass
class Told:
    """A cluster that was started before there was a server, told of it."""

    cluster: RayEngine
    settings: dict[str, str]

    @property
    def n_workers(self) -> int:
        return self.cluster.n_workers

    def workers(self, make: Any) -> AbstractContextManager[Any]:
        return self.cluster.workers(partial(work.with_environment, self.settings, make))

    def close(self) -> None: ...


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An empty bucket of its own, and an empty cache."""
    from s3fs import S3FileSystem

    for name, value in {**SETTINGS, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIE_FAST_CACHE", str(tmp_path / "cache"))
    S3FileSystem.clear_instance_cache()
    s3 = boto3.resource("s3")
    made = s3.create_bucket(Bucket=f"b-{uuid.uuid4()}")
    yield made
    made.objects.all().delete()
    made.delete()
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def columns() -> dict[str, Any]:
    return make_entries(np.random.default_rng(0), 700, density=0.02)


@pytest.fixture(scope="module")
def dump(columns: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """700 prompts in several shards."""
    path = write_dump(tmp_path_factory.mktemp("d") / "d", columns, shard_bytes=30_000)
    assert len(open_dump(path).manifest["shards"]) > 2
    return path


@pytest.fixture
def url(dump: Path, bucket: Any) -> str:
    place = f"s3://{bucket.name}/some/dump"
    upload_dump(dump, place)
    return place


def cached(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}


def test_a_dump_at_a_url_is_the_dump(url: str, dump: Path) -> None:
    there, here = open_dump(url), open_dump(dump)
    assert there.source == url
    assert there.score().tobytes() == here.score().tobytes()
    assert there.prompts.tokens.tolist() == here.prompts.tokens.tolist()
    there.verify()
    copied = {name: data for name, data in contents(there.path).items() if "version" not in name}
    assert copied == contents(dump)


def test_it_is_copied_once(url: str, bucket: Any, tmp_path: Path) -> None:
    first = open_dump(url)
    (shard, *_) = first.manifest["shards"]
    bucket.Object(f"some/dump/{shard['file']}").delete()
    assert open_dump(url).score().tobytes() == first.score().tobytes()


def test_what_has_no_hash_is_copied_again_when_it_changed(url: str, bucket: Any) -> None:
    folder = open_dump(url).path
    assert not (folder / "synergy.safetensors").exists()
    bucket.put_object(Key="some/dump/synergy.safetensors", Body=b"one")
    assert (open_dump(url).path / "synergy.safetensors").read_bytes() == b"one"
    bucket.put_object(Key="some/dump/synergy.safetensors", Body=b"another")
    assert (open_dump(url).path / "synergy.safetensors").read_bytes() == b"another"
    bucket.Object("some/dump/synergy.safetensors").delete()
    assert not (open_dump(url).path / "synergy.safetensors").exists()


def test_workers_copy_what_they_read(url: str, dump: Path, tmp_path: Path) -> None:
    folder = staged(url, prompts=(0, 1), extras=False)
    first = open_dump(dump).manifest["shards"][0]["file"]
    assert sorted(contents(folder)) == ["manifest.json", first]
    with SpreadDump(url, LocalEngine(), scratch=f"{url}/scratch") as spread:
        assert spread.score("abs").tobytes() == open_dump(dump).score("abs").tobytes()


def test_two_processes_over_s3(
    cluster: RayEngine, url: str, dump: Path, server: str, tmp_path: Path
) -> None:
    there = {"AWS_ENDPOINT_URL": server, "PIE_FAST_CACHE": str(tmp_path / "other")}
    told = Told(cluster, {**SETTINGS, **there})
    with SpreadDump(url, told, scratch=f"{url}-scratch") as spread:
        for rank_by in ("mean_abs", "max"):
            assert spread.score(rank_by).tobytes() == open_dump(dump).score(rank_by).tobytes()
    assert not remote.exists(f"{url}-scratch")
    shards = {shard["file"] for shard in open_dump(dump).manifest["shards"]}
    assert shards <= {path.name for path in (tmp_path / "other").rglob("*")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-5], "bytes came, the manifest says"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "has sha256 .*, the manifest says"),
        (None, "no such file or bucket"),
    ],
)
def test_what_is_not_as_the_manifest_says_is_refused(
    url: str, bucket: Any, dump: Path, tmp_path: Path, change: Any, message: str
) -> None:
    name = open_dump(dump).manifest["shards"][1]["file"]
    thing = bucket.Object(f"some/dump/{name}")
    thing.delete() if change is None else thing.put(Body=change((dump / name).read_bytes()))
    for _ in range(2):
        with pytest.raises(StorageError, match=f"{url}/{name}: .*{message}"):
            open_dump(url)
    assert name not in cached(tmp_path)
    thing.put(Body=(dump / name).read_bytes())
    assert open_dump(url).score().tobytes() == open_dump(dump).score().tobytes()


def test_places_that_there_are_not(url: str, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (f"s3://{bucket.name}/nothing", "s3://no-such-bucket/dump"):
        with pytest.raises(StorageError, match=r"manifest\.json: no such file or bucket"):
            open_dump(place)
    with pytest.raises(StorageError, match="Protocol not known: nowhere"):
        open_dump("nowhere://x/y")
    monkeypatch.setenv("PIE_FAST_CACHE_BYTES", "1e9")
    with pytest.raises(StorageError, match="PIE_FAST_CACHE_BYTES is '1e9', must be a number of"):
        open_dump(url)


def test_without_credentials(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match=f"{url}/manifest.json: .*[Cc]redentials"):
        open_dump(url)


def test_a_manifest_that_names_files_elsewhere(bucket: Any, dump: Path, tmp_path: Path) -> None:
    manifest = written(dump / "manifest.json")
    manifest["shards"][0]["file"] = "../../escaped"
    bucket.put_object(Key="bad/manifest.json", Body=json.dumps(manifest).encode())
    with pytest.raises(DumpError, match=f"s3://{bucket.name}/bad/manifest.json: shards.*escaped"):
        open_dump(f"s3://{bucket.name}/bad")


def test_the_cache_is_bounded(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = []
    for seed in range(3):
        path = small_dump(tmp_path / str(seed), seed=seed)
        urls.append(f"s3://{bucket.name}/{seed}")
        upload_dump(path, urls[-1])
    size = sum(map(len, contents(tmp_path / "0").values()))
    monkeypatch.setenv("PIE_FAST_CACHE_BYTES", str(2 * size + size // 2))
    for url in urls[:2]:
        open_dump(url)
        remote._IN_USE.popitem()[1].close()  # as if another process had opened it
    folders = {url: staged(url) for url in urls[1:]}
    assert {folder.name for folder in folders.values()} == {
        path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()
    }
    with pytest.raises(StorageError, match=r"do not fit the cache .* beside what is in use"):
        open_dump(urls[0])


class CutOff(BaseHTTPRequestHandler):
    """Serves a folder, shards only by half."""

    folder: Path

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, *, body: bool = True) -> None:
        data = (self.folder / Path(self.path).name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data[: len(data) // 2] if "shard" in self.path else data)

    def log_message(self, *_: Any) -> None: ...


def test_a_download_that_is_cut_off(
    dump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIE_FAST_CACHE", str(tmp_path / "cache"))
    handler = type("Here", (CutOff,), {"folder": dump})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        with pytest.raises(StorageError, match="shard-00000"):
            open_dump(f"http://127.0.0.1:{web.server_port}/d")
        web.shutdown()
    assert cached(tmp_path) <= {"manifest.json"} | {n for n in cached(tmp_path) if "lock" in n}


def test_the_command_line(url: str, dump: Path, columns: dict[str, Any], tmp_path: Path) -> None:
    for command in ("inspect", "top"):
        there, here = run_cli(command, url, "--json").json, run_cli(command, dump, "--json").json
        assert there == {**here, **({"path": url} if "path" in here else {})}
    chosen = f"{url}/chosen.json"
    run_cli("select", url, "--budget", 5, "--out", chosen, "--json")
    content = json.loads(remote.read_bytes(chosen))
    assert content.pop("command")[1:3] == ["select", url]
    assert content == run_cli("select", dump, "--budget", 5, "--json").json
    run_cli("select", url, "--budget", 5, "--out", chosen).refused(f"{chosen} exists; use --force")
    assert run_cli("select", url, "--budget", 5, "--out", chosen, "--force").code == 0


def test_merging_to_a_url(bucket: Any, columns: dict[str, Any], tmp_path: Path) -> None:
    halves = [write_dump(tmp_path / str(i), cut(columns, 256 * i, 256 * i + 256)) for i in range(2)]
    place = f"s3://{bucket.name}/merged"
    upload_dump(halves[0], f"s3://{bucket.name}/half")
    merged = run_cli("merge", f"s3://{bucket.name}/half", halves[1], place, "--json").json
    assert (merged["path"], merged["n_prompts"]) == (place, 512)
    local = run_cli("merge", *halves, tmp_path / "both", "--json").json
    assert local["n_active"] == merged["n_active"]
    here = open_dump(tmp_path / "both")
    assert open_dump(place).score().tobytes() == here.score().tobytes()
    run_cli("merge", *halves, place).refused(f"{place} exists; use --force")
    assert run_cli("merge", halves[1], place, "--force").code == 0
    with pytest.raises(OutputExistsError):
        upload_dump(halves[0], place)
