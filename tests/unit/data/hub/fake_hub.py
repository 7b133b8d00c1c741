"""A hub on a real socket: lists, redirects and serves bytes, and misbehaves as it is told to.

`hub.faults[NAME]` is a list of what becomes of the next requests for that file, one each; then it behaves again.
`hub.served` has what reached clients: (file, first byte, bytes sent).
"""

import hashlib
import json
import socket
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


def parquet_like(size: int, seed: int = 0) -> bytes:
    """Bytes that pass for parquet as far as a download looks, each place telling where it is."""
    body = b"".join(hashlib.sha256(f"{seed}:{index}".encode()).digest() for index in range(size // 32 + 1))
    return b"PAR1" + body[: size - 8] + b"PAR1"


@dataclass
class Fault:
    """What is done instead. `cut_after`, `stall_after`: bytes of the body that are sent before that."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    stall_after: int | None = None
    body: bytes | None = None  # in place of the content, with its length
    ignore_range: bool = False
    wrong_range: bool = False
    redirect: str | None = None


@dataclass
class Served:
    name: str
    first: int
    sent: int = 0
    headers: dict[str, str] = field(default_factory=dict)


class FakeHub:
    """`files` by path in the repository acme/text. `has_checksums`: whether LFS's SHA-256 is told."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.has_checksums = True
        self.has_sizes = True
        self.has_etags = True
        self.cdn: str | None = None  # where to redirect to for bytes
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.api_faults: list[Fault] = []
        self.served: list[Served] = []
        self.api_calls: list[tuple[str, dict[str, str]]] = []
        self.page_size = 1000
        self.released = threading.Event()  # ends every stall
        self._lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            fake = hub

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def etag(self, path: str) -> str:
        return self.etags.get(path) or '"' + hashlib.sha256(self.files[path]).hexdigest()[:20] + '"'

    def next_fault(self, name: str) -> Fault:
        with self._lock:
            return self.faults[name].pop(0) if self.faults[name] else Fault()

    def next_api_fault(self) -> Fault | None:
        with self._lock:
            return self.api_faults.pop(0) if self.api_faults else None

    def bytes_sent(self, name: str) -> int:
        return sum(served.sent for served in self.served if served.name == name)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: Any) -> None:
        """A client that has gone is what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        parts = [unquote(part) for part in address.path.split("/")[1:]]
        if parts[:2] == ["api", "datasets"]:
            self.fake.api_calls.append((self.path, dict(self.headers)))
            fault = self.fake.next_api_fault()
            if fault is not None:
                return self._answer(fault.status or 200, fault.headers, fault.body or b"[]")
            if parts[2:4] != ["acme", "text"]:
                return self._answer(404, {}, b"{}")
            if parts[4] == "revision":
                return self._answer(200, {}, json.dumps({"sha": COMMIT, "id": "acme/text"}).encode())
            return self._tree("/".join(parts[6:]), parse_qs(address.query))
        assert parts[:4] in (["datasets", "acme", "text", "resolve"], ["cdn", "acme", "text", "resolve"]), self.path
        return self._file("/".join(parts[5:]), is_cdn=parts[0] == "cdn")

    def _tree(self, folder: str, query: dict[str, list[str]]) -> None:
        paths = sorted(path for path in self.fake.files if not folder or path.startswith(f"{folder}/"))
        start = int(query.get("cursor", ["0"])[0])
        entries: list[dict[str, Any]] = [{"type": "directory", "path": "data", "size": 0, "oid": "x"}]
        for path in paths[start : start + self.fake.page_size]:
            content = self.fake.files[path]
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
            if self.fake.has_checksums:
                entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        headers = {}
        if start + self.fake.page_size < len(paths):
            address = self.path.split("?")[0]
            headers["link"] = f'<{self.fake.url}{address}?cursor={start + self.fake.page_size}>; rel="next"'
        self._answer(200, headers, json.dumps(entries).encode())

    def _file(self, path: str, *, is_cdn: bool) -> None:
        fake = self.fake
        if path not in fake.files:
            return self._answer(404, {}, b"")
        if fake.cdn and not is_cdn:
            headers = {"location": f"{fake.cdn}/cdn/acme/text/resolve/{COMMIT}/{path}?signature=secret"}
            return self._answer(302, {**headers, **self._linked(path)}, b"")
        fault = fake.next_fault(path)
        served = Served(path, 0, headers=dict(self.headers))
        fake.served.append(served)
        if fault.redirect is not None:
            return self._answer(302, {"location": fault.redirect}, b"")
        if fault.status is not None:
            return self._answer(fault.status, fault.headers, b"no")
        return self._content(path, fault, served)

    def _content(self, path: str, fault: Fault, served: Served) -> None:
        content = fault.body if fault.body is not None else self.fake.files[path]
        etag = self.fake.etag(path)
        wanted = self.headers.get("range")
        is_same = self.headers.get("if-range") in (None, etag)
        first, status, headers = 0, 200, {}
        if wanted and is_same and not fault.ignore_range:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if first >= len(content):
                self._answer(416, {"content-range": f"bytes */{len(content)}"}, b"")
                return
            first += fault.wrong_range
            status, headers = 206, {"content-range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
        served.first = first
        if self.fake.has_etags:
            headers["etag"] = etag
        self.send_response(status)
        for name, value in {**headers, **self._linked(path), "content-length": str(len(content) - first)}.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(content[first:], fault, served)

    def _send(self, body: bytes, fault: Fault, served: Served) -> None:
        end = min(value for value in (fault.cut_after, fault.stall_after, len(body)) if value is not None)
        try:
            for start in range(0, end, 4096):
                chunk = body[start : min(start + 4096, end)]
                self.wfile.write(chunk)
                served.sent += len(chunk)
            if fault.stall_after is not None:
                self.wfile.flush()
                self.fake.released.wait(30)
            if end < len(body):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # the client has gone
            self.close_connection = True

    def _linked(self, path: str) -> dict[str, str]:
        if not self.fake.has_checksums or not self.fake.cdn:
            return {}
        content = self.fake.files[path]
        return {"x-linked-etag": f'"{hashlib.sha256(content).hexdigest()}"', "x-linked-size": str(len(content))}

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
