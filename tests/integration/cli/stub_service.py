"""A stand-in for a service: answers every GET on a port, and writes its name to a file when it is told to stop.

    python stub_service.py NAME PORT STOPPED_FILE [--deaf] [--fail] [--grandchild FILE]

`--deaf` ignores SIGTERM; `--fail` ends at once; `--grandchild` starts a sleeper in a session of its own and writes its
process id to FILE.
"""

import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def stop_on_sigterm(name: str, stopped_file: str) -> None:
    def stop(number: int, frame: object) -> None:
        with Path(stopped_file).open("a") as file:
            file.write(f"{name}\n")
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)


if __name__ == "__main__":
    name, port, stopped_file, *options = sys.argv[1:]
    if "--fail" in options:
        sys.exit("the reason why it failed")
    stop_on_sigterm(name, stopped_file)
    if "--deaf" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--grandchild" in options:
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        Path(options[options.index("--grandchild") + 1]).write_text(str(sleeper.pid))
    HTTPServer(("127.0.0.1", int(port)), Health).serve_forever()
