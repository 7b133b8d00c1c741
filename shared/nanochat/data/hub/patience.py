"""When to try again: pauses that grow, with chance in them so that many clients do not come back at once, and never
sooner than the server asked for."""

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from nanochat.errors import Unavailable


class TryAgain(Exception):
    """An attempt failed in a way that another one may not. Never leaves this package."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class Patience:
    max_attempts: int = 6  # in a row without getting further
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    # The hub counts requests over five minutes; who asks for much longer will not have us back today.
    longest_retry_after_s: float = 900.0

    def pause_s(self, failures: int, retry_after_s: float | None, chance: float) -> float:
        """Before the next attempt after so many failures in a row; `chance` is from 0 to 1.

        Raises Unavailable when the server asks for longer than anyone would wait.
        """
        if retry_after_s is not None and retry_after_s > self.longest_retry_after_s:
            raise Unavailable(
                f"the hub asks to wait for {retry_after_s:.0f} s; start the download again then, it goes on.",
                retry_after_s=retry_after_s,
            )
        pause = min(self.longest_pause_s, self.first_pause_s * 2.0 ** (failures - 1))
        return float((retry_after_s or 0.0) + pause * (0.5 + 0.5 * chance))


class Throttle:
    """One for all who speak to a server: what it asked of one of them holds for all."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._random = random.Random()
        self._not_before = 0.0

    async def pause(self, failures: int, retry_after_s: float | None) -> None:
        """After a failed attempt. Raises Unavailable as pause_s does."""
        seconds = self.patience.pause_s(failures, retry_after_s, self._random.random())
        if retry_after_s is not None:
            self._not_before = max(self._not_before, time.monotonic() + retry_after_s)
        await asyncio.sleep(seconds)

    async def turn(self) -> None:
        """Before each attempt."""
        while (left_s := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(left_s)


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds from a Retry-After header, which has a number or a date; None where it has neither."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
