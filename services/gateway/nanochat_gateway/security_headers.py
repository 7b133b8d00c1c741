"""Headers on every answer that tell a browser what it must not do with it. Plain ASGI.

Scripts and styles come from this server alone, none inline, so that text made by a model cannot become code even where
sanitising fails; no other site may frame the pages, and no address leaks to another one. An answer with a policy of its
own keeps it: a report (the trainer's /v1/reports), which is stricter and brings its style sheet along.
"""

from nanochat.observability.request_id import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_POLICY = b"content-security-policy"
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class SecurityHeadersMiddleware:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                if not any(name.lower() == _POLICY for name, _ in headers):
                    headers.append((_POLICY, CONTENT_SECURITY_POLICY.encode()))
                message = {**message, "headers": [*headers, *_HEADERS]}
            await send(message)

        await self._app(scope, receive, send_with_headers)
