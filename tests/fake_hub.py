"""A small Hugging Face hub on loopback, over real HTTP: commits, hashes, a store behind redirects, ranges, faults."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
IN_GIT = 4096  # a file of fewer bytes is kept in git, the others in the store


@dataclass
class FakeHub:
    """Repositories by name, each a table of files; the faults are one list each, used up from its start.

    `seen` lists what was asked: (method, path, Range, whether a log-in came along).
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    seen: list[tuple[str, str, str | None, bool]] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)  # bytes of an answer, after which the connection is cut
    busy: list[int] = field(default_factory=list)  # statuses to answer with instead
    corrupt: bool = False  # one byte of every answer of the store is another
    knows_ranges: bool = True
    tells_size: bool = True  # of small files, before they are downloaded
    claims: dict[str, str] = field(default_factory=dict)  # header -> value that is sent instead of the true one
    stall_at: int | None = None  # the store sends so many bytes of an answer, then waits for `go_on`
    go_on: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def ranges(self) -> list[str | None]:
        """The Range of every download from the store, in order."""
        return [asked for method, path, asked, _ in self.seen if method == "GET" and path.startswith("/store/")]


@contextmanager
def running(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve the hub on a free port of loopback; `hub.address` is what HF_ENDPOINT is to be."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, self.is_small = unquote(urlsplit(self.path).path), False
        if path.startswith("/api/"):  # huggingface_hub asks for things of its own at times
            return self._send(404, {})
        self.hub.seen.append((self.command, path, self.headers.get("Range"), "Authorization" in self.headers))
        if self.hub.busy:
            return self._send(self.hub.busy.pop(0), {"Retry-After": "0"})
        if path.startswith("/store/"):
            return self._from_store(path.removeprefix("/store/"))
        match = re.fullmatch(r"(?:/small)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not match:
            return self._send(404, {})
        repo, revision, name = match.groups()
        if repo in self.hub.gated:
            return self._send(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        if repo not in self.hub.repos:
            return self._send(404, {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", COMMIT):
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        if name not in self.hub.repos[repo]:
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = self.hub.repos[repo][name]
        if len(content) < IN_GIT and not path.startswith("/small/"):  # on the same host, yet elsewhere
            return self._send(307, {"Location": f"/small{path}", "X-Repo-Commit": COMMIT})
        if len(content) < IN_GIT:
            self.is_small = True
            git_sha1 = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            return self._send(200, {"X-Repo-Commit": COMMIT, "ETag": f'"{git_sha1}"', **self.hub.claims}, content)
        sha256 = hashlib.sha256(content).hexdigest()
        store = self.hub.address.replace("127.0.0.1", "localhost")  # another host, as the hub's store is
        return self._send(
            302,
            {
                "Location": f"{store}/store/{sha256}",
                "X-Repo-Commit": COMMIT,
                "X-Linked-ETag": f'"{sha256}"',
                "X-Linked-Size": str(len(content)),
                **self.hub.claims,
            },
        )

    def _from_store(self, sha256: str) -> None:
        files = [content for repo in self.hub.repos.values() for content in repo.values()]
        content = next((c for c in files if hashlib.sha256(c).hexdigest() == sha256 or sha256 == "any"), None)
        if content is None:
            return self._send(404, {})
        if self.hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if self.hub.knows_ranges else None
        if not asked:
            return self._send(200, {}, content)
        start = int(asked[1])
        if start >= len(content):
            return self._send(416, {"Content-Range": f"bytes */{len(content)}"})
        ends = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._send(206, {"Content-Range": ends}, content[start:])

    def _send(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/octet-stream", **headers}.items():
            self.send_header(name, value)
        if self.command == "GET" or self.hub.tells_size or not self.is_small:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        sent_all = True
        if self.hub.cut_after and self.path.startswith("/store/"):
            content, sent_all = content[: self.hub.cut_after.pop(0)], False
        if self.hub.stall_at is not None and self.path.startswith("/store/"):
            self.wfile.write(content[: self.hub.stall_at])
            self.wfile.flush()
            self.hub.go_on.wait(60)
            content = content[self.hub.stall_at :]
        try:
            self.wfile.write(content)
        except OSError:
            sent_all = False  # whoever asked is gone
        if not sent_all:
            self.close_connection = True
