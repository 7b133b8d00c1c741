"""Which inference replicas there are, and whose turn it is.

In containers all replicas stand behind one name, whose addresses change as replicas come and go. A name that is asked
for is connected to one address after another by chance alone; so each address is a replica here, and names are looked
up again every few seconds. How a replica is spoken to is inference_client.py's matter.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from yarl import URL

from nanochat.loopback import is_loopback

log = logging.getLogger(__name__)

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
# However often replicas fail to answer, a name is not looked up more often than this.
_MIN_PAUSE_S = 1.0
# One that refuses has no model yet, is full, or is to end: having nothing open, it would be the first choice again.
_SHUNNED_S = 5.0


class Replica:
    def __init__(self, url: str) -> None:
        self.url = url
        self.num_open = 0  # generations that this gateway has open there
        self.shunned_until = 0.0

    def enter(self) -> None:
        self.num_open += 1

    def leave(self) -> None:
        self.num_open -= 1


async def system_lookup(host: str, port: int) -> list[str]:
    """The addresses of a name, of IPv4 if it has any: one that has both kinds is still one server. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    by_family = {
        family: sorted({str(place[0]) for kind, *_, place in found if kind == family})
        for family in (socket.AF_INET, socket.AF_INET6)
    }
    return by_family[socket.AF_INET] or by_family[socket.AF_INET6]


class Replicas:
    """At least one at any time: a name that has never been found stands for itself, and keeps its last addresses when
    it is not found any more, since a lookup that fails says nothing of the servers."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        interval_s: float,
        lookup: Lookup = system_lookup,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._lookup = lookup
        self._addresses = {url: [url] for url in urls}
        self._names = [url for url in self._addresses if _is_name(url)]
        self._not_found: set[str] = set()  # so that only a change is logged
        self._turns = [Replica(url) for url in self._addresses]
        self._missed = asyncio.Event()

    def __iter__(self) -> Iterator[Replica]:
        return iter(tuple(self._turns))

    def ranked(self) -> list[Replica]:
        """Those with the fewest open generations first, and those that refused lately last; equals take turns."""
        self._turns.append(self._turns.pop(0))
        now = self._clock()
        # sorted() keeps the order of equals.
        return sorted(self._turns, key=lambda replica: (replica.shunned_until > now, replica.num_open))

    def shun(self, replica: Replica) -> None:
        """It cannot begin an answer now: ask it after all others for a while."""
        replica.shunned_until = self._clock() + _SHUNNED_S

    def missed(self) -> None:
        """A replica did not answer: look soon, it may have moved."""
        self._missed.set()

    async def follow(self) -> None:
        """Look names up until cancelled. One lookup at a time, however long the resolver takes."""
        pause_s = min(_MIN_PAUSE_S, self._interval_s)
        while self._names:
            await self.look()
            await asyncio.sleep(pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._missed.wait(), self._interval_s - pause_s)
            self._missed.clear()

    async def look(self) -> None:
        """One round over all names."""
        for name in self._names:
            self._addresses[name] = await self._found(name) or self._addresses[name]
        wanted = dict.fromkeys(address for addresses in self._addresses.values() for address in addresses)
        known = {replica.url: replica for replica in self._turns}
        if wanted.keys() == known.keys():
            return
        # One that stays keeps its count; one that goes is held by whoever still reads from it.
        self._turns = [known.get(address) or Replica(address) for address in wanted]
        log.info("replicas_changed", extra={"replicas": list(wanted)})

    async def _found(self, name: str) -> list[str]:
        url = URL(name)
        try:
            addresses = await self._lookup(url.host or "", url.port or 80)
        except (OSError, UnicodeError) as exc:
            if name not in self._not_found:
                log.warning("replicas_not_found", extra={"host": url.host, "reason": str(exc)})
            self._not_found.add(name)
            return []
        self._not_found.discard(name)
        return [str(url.with_host(address)) for address in addresses]


def _is_name(url: str) -> bool:
    """Whether there is something to look up. A name of this machine is one server, and a certificate is a name's."""
    parts = URL(url)
    host = parts.host or ""
    if parts.scheme != "http" or is_loopback(host):
        return False
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return False
    return True
