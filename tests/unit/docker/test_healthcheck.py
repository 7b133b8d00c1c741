"""docker/healthcheck.py as the engine runs it: a process, its exit status, one line."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from tests.unit.docker.dockerfile import ROOT


@contextmanager
def serving(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/health/ready"
        finally:
            server.shutdown()
            thread.join()


def check(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(ROOT / "docker/healthcheck.py"), url]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_a_service_that_answers_is_healthy() -> None:
    with serving(200, b'{"status": "ok"}') as url:
        assert check(url).returncode == 0


def test_a_service_that_is_not_ready_says_why() -> None:
    with serving(503, b'{"reasons": ["no database"]}') as url:
        done = check(url)
    assert done.returncode == 1
    assert "no database" in done.stdout


def test_a_service_that_is_gone_is_named() -> None:
    with serving(200, b"") as url:
        pass
    done = check(url)
    assert done.returncode == 1
    assert f"{url} does not answer" in done.stdout
