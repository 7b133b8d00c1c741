"""Where loaders of conversations go on when there are more or fewer of them, so that none is lost or comes twice.

Text has no such place: each rank reads row groups of its own, and others go on from near it (sources.py, loader.py).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nanochat.data.packing import PackingCounts

log = logging.getLogger(__name__)


def deal_out(
    states: Sequence[Mapping[str, Any]], num_conversations: int, *, rank: int, world_size: int
) -> dict[str, Any]:
    """The state of one of `world_size` conversation loaders, given those of all that were there before.

    What waited for a row at any of them is dealt out, and so is what lies behind the place where the foremost stands
    and was not read yet. Counts begin anew.
    """
    foremost = max(state["cursor"]["position"] for state in states)
    waiting = [place for state in states for place in state["waiting"]]
    unread = [
        [position % num_conversations]
        for state in states
        for position in range(state["cursor"]["position"], foremost)
        if position % state["world_size"] == state["rank"]
    ]
    log.info("conversations_dealt_out", extra={"num_waiting": len(waiting), "num_unread": len(unread)})
    return {
        "fingerprint": states[0]["fingerprint"],
        "rank": rank,
        "world_size": world_size,
        "cursor": {"epoch": foremost // num_conversations, "position": foremost},
        "waiting": [*waiting, *unread][rank::world_size],
        "counts": asdict(PackingCounts()),
    }
