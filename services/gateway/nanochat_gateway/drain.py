"""Says that the process was told to stop: readiness turns to 503 and streams without an end are closed.

Answers being generated go on until they are done or the server's time for draining is over (server.py).
"""

import asyncio


class Drain:
    def __init__(self) -> None:
        self._begun = asyncio.Event()

    @property
    def is_draining(self) -> bool:
        return self._begun.is_set()

    def begin(self) -> None:
        self._begun.set()

    async def begun(self) -> None:
        await self._begun.wait()
