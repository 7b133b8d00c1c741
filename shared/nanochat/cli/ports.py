"""Ports on loopback: whether one is free, and which to take instead."""

import socket
from collections.abc import Collection

from nanochat.errors import Conflict

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen there now. A closing connection's TIME_WAIT does not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def any_free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def pick(port: int, *, chosen: bool, variable: str, taken: Collection[int]) -> int:
    """`port` if it is free; else the next free one of the ten times ten above it, unless the user chose `port`.

    Raises Conflict when a chosen port is taken, or when none is free.
    """
    if chosen:
        if port in taken or not is_free(port):
            raise Conflict(f"port {port} is taken. Stop the program that listens there, or choose with {variable}.")
        return port
    # Steps of ten keep the family of ports recognisable: 8000-8003, then 8010-8013.
    for candidate in range(port, min(port + 100, 65536), 10):
        if candidate not in taken and is_free(candidate):
            return candidate
    raise Conflict(f"port {port} and nine more above it are taken. Choose another with {variable}.")
