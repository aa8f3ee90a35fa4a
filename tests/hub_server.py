"""A hub of the kind that `huggingface_hub` downloads from, serving a folder of this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(
    folder: Path, repo: str, *, kind: str = "models", cut: str | None = None
) -> Iterator[str]:
    """The address of a hub that has `folder` as the repository `repo`.

    Args:
        folder: What is in it.
        repo: `org/name`.
        kind: `models` or `datasets`.
        cut: A file whose download breaks off half-way.
    """

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._file(with_body=False)

        def do_GET(self) -> None:
            if self.path.startswith(f"/api/{kind}/{repo}"):
                self._listing()
            else:
                self._file(with_body=True)

        def _listing(self) -> None:
            below = self.path.partition("?")[0].partition("/tree/")[2].partition("/")[2]
            files = sorted(p for p in (folder / below).rglob("*") if p.is_file())
            if not files:
                self._missing()
                return
            names = [p.relative_to(folder).as_posix() for p in files]
            if "/tree/" in self.path:
                rows: object = [
                    {"type": "file", "path": n, "size": p.stat().st_size, "oid": _etag(p)}
                    for n, p in zip(names, files, strict=True)
                ]
            else:
                siblings = [{"rfilename": name} for name in names]
                rows = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings}
            body = json.dumps(rows).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _file(self, *, with_body: bool) -> None:
            inside = self.path.partition("?")[0].partition("/resolve/")[2].partition("/")[2]
            path = folder / inside
            if not inside or not path.is_file():
                self._missing()
                return
            body = path.read_bytes()
            self.send_response(200)
            self.send_header("ETag", f'"{_etag(path)}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body[: len(body) // 2] if inside == cut else body)
                if inside == cut:
                    self.close_connection = True

        def _missing(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
