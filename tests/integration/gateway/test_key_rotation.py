"""Keys change without anybody noticing: the new one is listed beside the old, clients change over, the old one goes."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import openai
import pytest

from nanochat.cli.ports import any_free_port
from tests.integration.gateway.fake_inference import FakeInference
from tests.integration.gateway.server import eventually
from tests.integration.gateway.test_process import answers, running


class OneGateway:
    """A gateway on a fixed port, started anew with other keys."""

    def __init__(self, held: ExitStack, inference_url: str) -> None:
        self._held, self._inference_url = held, inference_url
        self.port = any_free_port()
        self._process: subprocess.Popen[str] | None = None

    def start_with(self, *, api_keys: str, admin_keys: str = "admin") -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.communicate(timeout=30)
            assert self._process.returncode == 0
        variables = {
            "NANOCHAT_GATEWAY_PORT": str(self.port),
            "NANOCHAT_GATEWAY_INFERENCE_URLS": self._inference_url,
            "NANOCHAT_API_KEYS": api_keys,
            "NANOCHAT_ADMIN_KEYS": admin_keys,
        }
        self._process = self._held.enter_context(running(**variables))
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False) as client:
            eventually(lambda: answers(client), "the gateway starts", deadline_s=30)

    def client(self, key: str) -> openai.OpenAI:
        """As an application has it: two retries, with a pause before each, are what the SDK does by itself."""
        http = httpx.Client(trust_env=False)
        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key=key, max_retries=8, timeout=10, http_client=http
        )


@pytest.fixture
def gateway(inference: FakeInference, _inference: tuple[FakeInference, str]) -> Iterator[OneGateway]:
    with ExitStack() as held:
        yield OneGateway(held, _inference[1])


def ask(client: openai.OpenAI) -> str:
    answer = client.chat.completions.create(model="nanochat", messages=[{"role": "user", "content": "Hi"}])
    return str(answer.choices[0].message.content)


def test_a_key_is_replaced_while_clients_chat(gateway: OneGateway) -> None:
    gateway.start_with(api_keys="old")
    keys, is_over, said = ["old"], threading.Event(), []

    def chat() -> None:
        clients = {key: gateway.client(key) for key in ("old", "new")}
        while not is_over.is_set():
            try:
                said.append(ask(clients[keys[-1]]))
            except openai.OpenAIError as exc:
                said.append(repr(exc))
        for client in clients.values():
            client.close()

    client = threading.Thread(target=chat)
    client.start()
    try:
        for api_keys in ("old,new", "new"):
            eventually(lambda: len(said) > 20, "it answers")
            gateway.start_with(api_keys=api_keys)
            keys.append("new")
            said_before = len(said)
            eventually(lambda: len(said) > said_before + 20, "it answers again", deadline_s=30)  # noqa: B023
    finally:
        is_over.set()
        client.join(60)
    assert set(said) == {"Hello, world"}


def test_a_key_that_was_taken_back_opens_nothing(gateway: OneGateway) -> None:
    gateway.start_with(api_keys="old,new", admin_keys="root1,root2")
    for key in ("old", "new", "root1", "root2"):
        with gateway.client(key) as client:
            assert ask(client) == "Hello, world"
    gateway.start_with(api_keys="new", admin_keys="root2")
    for key in ("old", "root1"):
        with gateway.client(key) as client, pytest.raises(openai.AuthenticationError):
            ask(client)
