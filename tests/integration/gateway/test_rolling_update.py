"""Two gateways behind a balancer are replaced one after the other while clients chat: no request fails."""

import json
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from nanochat.cli.ports import any_free_port
from tests.integration.gateway.balancer import Balancer, balancing
from tests.integration.gateway.server import eventually
from tests.integration.gateway.test_process import running
from tests.integration.inference.conftest import make_home, one_thread, serve  # noqa: F401  # fixtures
from tests.integration.inference.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

NUM_CLIENTS = 8
REPLACEMENTS = 1  # of each gateway


@dataclass
class Told:
    """What became of all requests: `ended`, or the words of what went wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1


class Gateways:
    """Two processes on fixed ports, replaced one by one as an orchestrator does: stop, start, wait until ready."""

    def __init__(self, held: ExitStack, variables: dict[str, str]) -> None:
        self._held = held
        self._variables = variables
        self.ports = [any_free_port(), any_free_port()]
        self._processes: dict[int, subprocess.Popen[str]] = {}

    def start(self, port: int) -> None:
        self._processes[port] = self._held.enter_context(running(NANOCHAT_GATEWAY_PORT=str(port), **self._variables))
        eventually(lambda: is_ready(port), "the gateway is ready", deadline_s=60)

    def stop(self, port: int) -> int:
        process = self._processes[port]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        return process.returncode


def is_ready(port: int) -> bool:
    with httpx.Client(verify=False, trust_env=False) as client:  # reading certificates takes longer than the answer
        try:
            return client.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
        except httpx.TransportError:
            return False


def chat(url: str, told: Told, is_over: threading.Event) -> None:
    """Ask again and again over connections that are kept, as SDKs and proxies keep them; never twice the same."""
    body = {"model": "nanochat", "prompt": "a", "max_tokens": 60, "temperature": 0, "stream": True}
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        while not is_over.is_set():
            told.add(asked_once(client, body))


def asked_once(client: httpx.Client, body: dict[str, object]) -> str:
    try:
        with client.stream("POST", "/v1/completions", json=body) as response:
            lines = [line for line in response.iter_lines() if line]
    except httpx.HTTPError as exc:
        return type(exc).__name__
    if response.status_code != 200:
        return f"{response.status_code} {''.join(lines)[:200]}"
    if lines[-1] != "data: [DONE]":
        return f"ended with {lines[-1][:200]}"
    texts = [json.loads(line[6:])["choices"] for line in lines[:-1]]
    text = "".join(choices[0].get("text", "") for choices in texts if choices)
    return "ended" if text == "ba" * 30 else f"said {text!r}"


@contextmanager
def clients(url: str, told: Told) -> Iterator[None]:
    is_over = threading.Event()
    threads = [threading.Thread(target=chat, args=(url, told, is_over)) for _ in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_no_request_fails_while_each_gateway_is_replaced(serve: Callable[..., Server]) -> None:  # noqa: F811
    inference, told = serve(max_running=NUM_CLIENTS), Told()
    with ExitStack() as held:
        gateways = Gateways(
            held, {"NANOCHAT_GATEWAY_INFERENCE_URLS": inference.url, "NANOCHAT_GATEWAY_DRAIN_DELAY_S": "1"}
        )
        for port in gateways.ports:
            gateways.start(port)
        balancer: Balancer = held.enter_context(balancing(gateways.ports))
        with clients(f"http://127.0.0.1:{balancer.port}", told):
            for port in gateways.ports * REPLACEMENTS:
                before = told.counts["ended"]
                eventually(lambda: told.counts["ended"] > before + 50, "clients are answered", deadline_s=60)  # noqa: B023
                assert gateways.stop(port) == 0
                gateways.start(port)
                eventually(lambda: balancer.is_ready(port), "the balancer knows", deadline_s=10)  # noqa: B023
    num_failed = told.counts.total() - told.counts["ended"]
    print(f"{told.counts.total()} requests while gateways were replaced {2 * REPLACEMENTS} times, {num_failed} failed")
    assert dict(told.counts) == {"ended": told.counts["ended"]}
