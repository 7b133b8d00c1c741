"""A stand-in for a service: answers /health/live and /health/ready on a port.

    python stub_service.py PORT [--deaf] [--grandchild FILE]

`--deaf` ignores SIGTERM; `--grandchild` starts a sleeper in a session of its own and writes its process id to FILE.
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


if __name__ == "__main__":
    port, *options = sys.argv[1:]
    if "--deaf" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--grandchild" in options:
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        Path(options[options.index("--grandchild") + 1]).write_text(str(sleeper.pid))
    if "--fail" in options:
        sys.exit("the reason why it failed")
    HTTPServer(("127.0.0.1", int(port)), Health).serve_forever()
