"""Who may call a route, as FastAPI dependencies: `Depends(chat_key)` and `Depends(admin_key)`.

Pages, static files, health and metrics ask for no key: a browser must get the page before it can ask for one, and
probes have none. Without any key configured everybody on this machine is let in, but no web page of another site: a
browser would otherwise carry a stranger's request to a port on loopback.
"""

from collections.abc import Awaitable, Callable

from fastapi import Depends, Request

from nanochat.errors import Forbidden, Unauthorized
from nanochat.loopback import host_name, is_loopback
from nanochat_gateway.keys import Scope
from nanochat_gateway.state import GatewayState, state_of


def _requires(scope: Scope) -> Callable[[Request], Awaitable[None]]:
    async def check(request: Request) -> None:
        state = state_of(request)
        if state.keys.is_empty:
            _refuse_foreign_pages(request, state)
        else:
            _check_key(request, state, scope)

    return check


chat_key = Depends(_requires(Scope.CHAT))
admin_key = Depends(_requires(Scope.ADMIN))


def _check_key(request: Request, state: GatewayState, needed: Scope) -> None:
    header = request.headers.get("authorization", "")
    scheme, _, key = header.partition(" ")
    if not header:
        raise Unauthorized("No key was sent; add the header 'Authorization: Bearer <key>'.")
    if scheme.lower() != "bearer":
        raise Unauthorized("The Authorization header is not of the form 'Bearer <key>'; correct it.")
    # Headers arrive as latin-1; the key was configured as UTF-8.
    scope = state.keys.scope_of(key.strip().encode("latin-1"))
    if scope is None:
        raise Unauthorized("This key is not known; check it against NANOCHAT_API_KEYS and NANOCHAT_ADMIN_KEYS.")
    if scope < needed:
        raise Forbidden("This key may chat but neither train nor change models; use one of NANOCHAT_ADMIN_KEYS.")


def _refuse_foreign_pages(request: Request, state: GatewayState) -> None:
    """Raises Forbidden for another site's page, and for a foreign name that resolves to this machine (rebinding)."""
    if state.settings.access.allow_anonymous:
        return  # whoever runs it has said that anybody may
    host = request.headers.get("host", "")
    if not is_loopback(host_name(f"//{host}")):
        raise Forbidden(f"The host {host!r} is not this machine; use http://127.0.0.1:{state.settings.port}.")
    origin = request.headers.get("origin")
    # A page served by another port of this machine, such as a development server, is the user's own.
    if origin is not None and not is_loopback(host_name(origin)):
        raise Forbidden(f"A page of {origin} may not use this server; set keys to let other sites in.")
