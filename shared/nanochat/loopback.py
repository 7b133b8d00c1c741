"""What may reach a service that listens on this machine alone: programs of this machine, and no web page.

A browser carries any page's requests to a port on loopback. It names the page in Origin when it sends them across sites
(a POST of another site), and names the page's own host in Host where that resolves to this machine (DNS rebinding).
The guard is for internal services, which no page ever calls; the gateway has pages, and its own check (auth.py).
"""

import ipaddress
import json
from urllib.parse import urlsplit

from nanochat.errors import Forbidden
from nanochat.observability.request_id import ASGIApp, Receive, Scope, Send


def is_loopback(host: str) -> bool:
    """Whether a host name or address, brackets of IPv6 allowed, means this machine alone."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_name(address: str) -> str:
    """The host of `scheme://host:port`, or of `//host:port`; empty where there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


class LoopbackGuard:
    """Answers requests that come from a web page with 403, in the shape of every error. Plain ASGI.

    `bound_to` is the address that the service listens on. Where that is more than loopback, as in containers, peers
    know the service by names of their own, so Host is not looked at; Origin is.
    """

    def __init__(self, app: ASGIApp, *, bound_to: str) -> None:
        self._app = app
        self._checks_host = is_loopback(bound_to)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope["headers"]) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await _answer(refusal, send)

    def _refusal(self, headers: list[tuple[bytes, bytes]]) -> Forbidden | None:
        origin = next((value.decode("latin-1") for name, value in headers if name == b"origin"), None)
        if origin is not None:
            return Forbidden(f"a page of {origin} may not use this internal service; go through the gateway.")
        if not self._checks_host:
            return None
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if hosts and all(is_loopback(host_name(f"//{host}")) for host in hosts):
            return None
        return Forbidden(f"the host {', '.join(hosts)!r} is not this machine; use 127.0.0.1.")


async def _answer(refusal: Forbidden, send: Send) -> None:
    error = {"message": refusal.message, "type": "permission_error", "param": None, "code": refusal.code}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
