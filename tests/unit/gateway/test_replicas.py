"""Names that become addresses, and addresses that take turns."""

import asyncio
import logging
import socket
from collections.abc import Sequence

import pytest

from nanochat_gateway.replicas import Replicas, system_lookup


class Resolver:
    """Answers what the test has written down, and remembers how often it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] | OSError = addresses
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        if isinstance(self.addresses, OSError):
            raise self.addresses
        return self.addresses


def replicas_of(*urls: str, resolver: Resolver, interval_s: float = 5.0) -> Replicas:
    return Replicas(urls, interval_s=interval_s, lookup=resolver)


def urls(replicas: Replicas) -> list[str]:
    return [replica.url for replica in replicas]


async def test_every_address_of_a_name_is_a_replica() -> None:
    resolver = Resolver("10.0.0.2", "10.0.0.3", "fd00::4")
    replicas = replicas_of("http://inference:8002", resolver=resolver)
    assert urls(replicas) == ["http://inference:8002"]
    await replicas.look()
    assert urls(replicas) == ["http://10.0.0.2:8002", "http://10.0.0.3:8002", "http://[fd00::4]:8002"]
    assert resolver.asked == [("inference", 8002)]


async def test_a_name_on_the_usual_port_is_found_too() -> None:
    replicas = replicas_of("http://inference:80/base", resolver=Resolver("10.0.0.2"))
    await replicas.look()
    assert urls(replicas) == ["http://10.0.0.2/base"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8002", "http://[::1]:8002", "http://localhost:8002", "http://10.0.0.9:1", "https://a.b"]
)
async def test_an_address_and_a_name_that_a_certificate_is_for_are_never_looked_up(url: str) -> None:
    resolver = Resolver("10.0.0.2")
    replicas = replicas_of(url, resolver=resolver)
    await replicas.look()
    await asyncio.wait_for(replicas.follow(), 1.0)
    assert (urls(replicas), resolver.asked) == ([url], [])


async def test_one_that_stays_keeps_its_open_generations_and_one_that_goes_gets_no_new_ones() -> None:
    resolver = Resolver("10.0.0.2", "10.0.0.3")
    replicas = replicas_of("http://inference:8002", resolver=resolver)
    await replicas.look()
    gone, stays = replicas
    gone.enter()
    stays.enter()
    resolver.addresses = ("10.0.0.3", "10.0.0.4")
    await replicas.look()
    assert [(replica.url, replica.num_open) for replica in replicas] == [
        ("http://10.0.0.3:8002", 1),
        ("http://10.0.0.4:8002", 0),
    ]
    gone.leave()  # its last generation ends; nobody minds


@pytest.mark.parametrize("failure", [socket.gaierror(-2, "Name or service not known"), ()])
async def test_a_lookup_that_finds_nothing_changes_nothing(failure: OSError | tuple[str, ...]) -> None:
    resolver = Resolver("10.0.0.2")
    replicas = replicas_of("http://inference:8002", resolver=resolver)
    await replicas.look()
    resolver.addresses = failure
    await replicas.look()
    assert urls(replicas) == ["http://10.0.0.2:8002"]


async def test_a_name_that_is_not_found_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    resolver = Resolver()
    resolver.addresses = socket.gaierror(-2, "Name or service not known")
    replicas = replicas_of("http://inference:8002", resolver=resolver)
    with caplog.at_level(logging.WARNING):
        await replicas.look()
        await replicas.look()
    assert [(record.message, record.__dict__["host"]) for record in caplog.records] == [
        ("replicas_not_found", "inference")
    ]
    assert urls(replicas) == ["http://inference:8002"]


async def test_two_names_of_one_address_are_one_replica() -> None:
    replicas = replicas_of("http://a:8002", "http://b:8002", resolver=Resolver("10.0.0.2"))
    await replicas.look()
    assert urls(replicas) == ["http://10.0.0.2:8002"]


async def test_a_missed_replica_is_looked_for_before_the_interval_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat_gateway.replicas._MIN_PAUSE_S", 0.01)
    resolver = Resolver("10.0.0.2")
    replicas = replicas_of("http://inference:8002", resolver=resolver, interval_s=60.0)
    following = asyncio.create_task(replicas.follow())
    try:
        await _until(lambda: len(resolver.asked) == 1)
        replicas.missed()
        await _until(lambda: len(resolver.asked) == 2)
    finally:
        following.cancel()


async def test_many_missed_replicas_make_one_lookup() -> None:
    resolver = Resolver("10.0.0.2")
    replicas = replicas_of("http://inference:8002", resolver=resolver, interval_s=60.0)
    following = asyncio.create_task(replicas.follow())
    try:
        for _ in range(50):
            replicas.missed()
            await asyncio.sleep(0)
        assert len(resolver.asked) == 1
    finally:
        following.cancel()


def test_those_with_the_fewest_open_generations_come_first_and_equals_take_turns() -> None:
    replicas = Replicas(["http://a", "http://b", "http://c"], interval_s=5.0)
    first = [replicas.ranked()[0].url for _ in range(3)]
    assert sorted(first) == ["http://a", "http://b", "http://c"]
    busy = next(iter(replicas))
    busy.enter()
    assert all(replicas.ranked()[-1] is busy for _ in range(3))


def test_one_that_refused_comes_last_for_a_while_however_little_it_has_open() -> None:
    now = [100.0]
    replicas = Replicas(["http://a", "http://b"], interval_s=5.0, clock=lambda: now[0])
    refused, busy = replicas
    busy.enter()
    assert replicas.ranked()[0] is refused
    replicas.shun(refused)
    now[0] = 104.9
    assert [replicas.ranked()[0] for _ in range(2)] == [busy, busy]
    now[0] = 105.0
    assert replicas.ranked()[0] is refused


async def test_the_system_finds_one_server_behind_a_name_of_two_kinds_of_address() -> None:
    assert await system_lookup("localhost", 8002) == ["127.0.0.1"]


async def test_the_system_says_what_it_does_not_find() -> None:
    with pytest.raises(OSError):
        await system_lookup("no-such-host.invalid", 8002)


async def _until(is_so: object) -> None:
    assert callable(is_so)
    async with asyncio.timeout(5.0):
        while not is_so():
            await asyncio.sleep(0.005)
