"""The client of the REST API: its address, its key, and errors as sentences."""

import os
from pathlib import Path

import pytest

from nanochat.cli.client import DEFAULT_URL, ApiClient
from nanochat.cli.ports import any_free_port
from nanochat.cli.settings import CliSettings
from nanochat.cli.state import ProcessRef, StackState
from nanochat.errors import Conflict, InvalidConfig, InvalidRequest, NanochatError, NotFound, Unauthorized, Unavailable
from tests.unit.cli.conftest import FakeGateway


def envelope(message: str) -> dict[str, object]:
    return {"error": {"message": message, "type": "x", "param": "config.depth", "code": "y"}}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, Unauthorized),
        (404, NotFound),
        (409, Conflict),
        (422, InvalidConfig),
        (503, Unavailable),
        (500, NanochatError),
    ],
)
async def test_an_error_is_raised_as_its_kind_with_the_servers_words(
    gateway: FakeGateway, status: int, kind: type[NanochatError]
) -> None:
    gateway.answers["GET /v1/jobs"] = (status, envelope("depth is 0"))
    async with ApiClient(gateway.url) as api:
        with pytest.raises(kind) as caught:
            await api.get("/v1/jobs")
    assert caught.value.message.startswith("depth is 0")
    assert caught.value.param == "config.depth"


async def test_a_refused_key_says_which_variable_to_set(gateway: FakeGateway) -> None:
    gateway.answers["GET /v1/jobs"] = (401, envelope("no key."))
    async with ApiClient(gateway.url) as api:
        with pytest.raises(Unauthorized, match="NANOCHAT_API_KEY"):
            await api.get("/v1/jobs")


async def test_an_answer_that_is_no_envelope_is_shown(gateway: FakeGateway) -> None:
    gateway.answers["GET /v1/jobs"] = (502, "<html>Bad gateway</html>")
    async with ApiClient(gateway.url) as api:
        with pytest.raises(NanochatError, match=r"502.*Bad gateway"):
            await api.get("/v1/jobs")


async def test_nobody_there_says_how_to_start_one() -> None:
    async with ApiClient(f"http://127.0.0.1:{any_free_port()}") as api:
        with pytest.raises(Unavailable, match="nanochat up"):
            await api.get("/v1/jobs")


async def test_key_and_idempotency_key_are_sent_and_absent_parameters_left_out(gateway: FakeGateway) -> None:
    gateway.answers["POST /v1/jobs"] = (202, {"id": "job_1"})
    gateway.answers["GET /v1/jobs?limit=3"] = (200, {"data": []})
    async with ApiClient(gateway.url, "secret") as api:
        assert await api.post("/v1/jobs", {"kind": "sft"}, idempotency_key="once") == {"id": "job_1"}
        await api.get("/v1/jobs", status=None, limit=3)
    submitted, _ = gateway.asked
    assert submitted.headers["authorization"] == "Bearer secret"
    assert submitted.headers["idempotency-key"] == "once"
    assert submitted.body == {"kind": "sft"}


async def test_a_stream_gives_the_data_of_each_event(gateway: FakeGateway) -> None:
    gateway.answers["POST /v1/x"] = (200, ": comment\n\ndata: one\n\nevent: e\ndata: two\n\n")
    async with ApiClient(gateway.url) as api:
        assert [data async for data in api.stream("/v1/x", {})] == ["one", "two"]


async def test_a_refused_stream_raises(gateway: FakeGateway) -> None:
    gateway.answers["POST /v1/x"] = (503, envelope("no model yet"))
    async with ApiClient(gateway.url) as api:
        with pytest.raises(Unavailable, match="no model yet"):
            [data async for data in api.stream("/v1/x", {})]


def test_the_address_is_the_named_one_then_the_running_stacks_then_the_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NANOCHAT_URL", raising=False)
    assert ApiClient.from_settings(CliSettings.load()).url == DEFAULT_URL
    StackState(stack=ProcessRef.of(os.getpid()), url="http://127.0.0.1:8010").write(home)
    assert ApiClient.from_settings(CliSettings.load()).url == "http://127.0.0.1:8010"
    monkeypatch.setenv("NANOCHAT_URL", "http://elsewhere:1/")
    assert ApiClient.from_settings(CliSettings.load()).url == "http://elsewhere:1"
