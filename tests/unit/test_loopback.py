"""An internal service answers programs and refuses web pages, whichever way they come."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from nanochat.loopback import LoopbackGuard, host_name
from nanochat.observability.request_id import Message, Receive, Scope, Send


async def _ok(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def post(bound_to: str, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(LoopbackGuard(_ok, bound_to=bound_to))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8001") as client:
            return await client.post("/v1/jobs", headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize("host", ["127.0.0.1:8001", "localhost:8001", "localhost", "[::1]:8001", "127.0.0.2"])
def test_programs_of_this_machine_are_let_in(host: str) -> None:
    assert post("127.0.0.1", host=host).text == "ok"


@pytest.mark.parametrize("bound_to", ["127.0.0.1", "localhost", "::1"])
@pytest.mark.parametrize(
    "host", ["evil.example:8001", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", "[::1", "a@b", ""]
)
def test_a_foreign_name_for_this_machine_is_refused(bound_to: str, host: str) -> None:
    refused = post(bound_to, host=host)
    assert refused.status_code == 403
    error = refused.json()["error"]
    assert (error["code"], error["type"], error["param"]) == ("insufficient_scope", "permission_error", None)
    assert repr(host) in error["message"]


@pytest.mark.parametrize("bound_to", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:8000", ""])
def test_a_web_page_is_refused_wherever_the_service_listens(bound_to: str, origin: str) -> None:
    refused = post(bound_to, origin=origin)
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/json")
    assert "gateway" in refused.json()["error"]["message"]


@pytest.mark.parametrize("bound_to", ["0.0.0.0", "::", "10.0.0.7", ""])
def test_beyond_this_machine_peers_use_names_of_their_own(bound_to: str) -> None:
    assert post(bound_to, host="trainer:8001").text == "ok"


@pytest.mark.parametrize("hosts", [[], [b"127.0.0.1", b"evil.example"]])
def test_a_request_without_one_clear_host_is_refused(hosts: list[bytes]) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "headers": [(b"host", host) for host in hosts]}
    asyncio.run(LoopbackGuard(_ok, bound_to="127.0.0.1")(scope, _nothing, send))
    assert sent[0]["status"] == 403
    assert "error" in json.loads(sent[1]["body"])


def test_what_is_no_request_passes() -> None:
    passed: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["type"])

    async def send(_: Message) -> None:
        raise AssertionError

    asyncio.run(LoopbackGuard(app, bound_to="127.0.0.1")({"type": "lifespan"}, _nothing, send))
    assert passed == ["lifespan"]


@pytest.mark.parametrize(
    ("address", "name"),
    [("http://a.example:1/x", "a.example"), ("//[::1]:8001", "::1"), ("null", ""), ("//[::1", ""), ("", "")],
)
def test_the_host_is_read_off_an_address(address: str, name: str) -> None:
    assert host_name(address) == name


async def _nothing() -> Message:
    raise AssertionError
