"""Blocking calls beside the event loop that are over when they are awaited, cancelled or not.

asyncio.to_thread alone leaves a cancelled call running behind its caller's back: it would write on into a file that
the next download has opened already.
"""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function gives or raises. When cancelled: waits for its end first, and then is."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # nobody else will look at it
        raise
