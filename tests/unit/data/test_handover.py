"""Conversations that go on with more or fewer loaders: each of a pass is trained on once, whoever held it."""

import itertools
import json
import logging
from collections import Counter
from typing import Any

import pytest

from nanochat.data import handover
from nanochat.data.handover import deal_out
from nanochat.data.loader import Loader, conversation_loader
from nanochat.errors import DataError

BOS = 100_000
NUM = 2500  # more than waits for a row at one loader, or at two


def render(index: int) -> tuple[list[int], list[int]]:
    """Conversation i says i, more or less often."""
    length = 1 + index * 7 % 30
    return [BOS, *[index] * length], [0, *[1] * length]


def open_loader(rank: int, world_size: int, state: dict[str, Any] | None = None) -> Loader:
    return conversation_loader(
        NUM, render, batch_size=2, sequence_len=64, rank=rank, world_size=world_size, num_epochs=1, state=state
    )


def take(loader: Loader, num_batches: int | None = None) -> Counter[int]:
    """How often each conversation comes in the next batches, or in all that are left."""
    found: Counter[int] = Counter()
    for batch in itertools.islice(loader, num_batches):
        for row in batch.targets.tolist():
            found.update(index for index, _ in itertools.groupby(row) if index >= 0)
    return found


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3), (3, 2)])
def test_every_conversation_comes_once_though_ranks_change_in_the_middle_of_a_pass(before: int, after: int) -> None:
    """Ranks that are not equally far, too."""
    found: Counter[int] = Counter()
    states = []
    for rank in range(before):
        with open_loader(rank, before) as loader:
            found += take(loader, 5 + 3 * rank)
            states.append(json.loads(json.dumps(loader.state())))
    shares = []
    for rank in range(after):
        state = deal_out(states, NUM, rank=rank, world_size=after)
        with open_loader(rank, after, state) as loader:
            shares.append(take(loader))
            found += shares[-1]
    assert found == Counter(range(NUM))
    assert max(map(len, shares)) - min(map(len, shares)) <= 2  # of what waited, and of what comes after it


def test_who_stands_behind_the_foremost_leaves_what_it_has_not_read(caplog: pytest.LogCaptureFixture) -> None:
    def state(rank: int, position: int, waiting: list[list[int]]) -> dict[str, Any]:
        cursor = {"epoch": 0, "position": position}
        return {"fingerprint": "5", "rank": rank, "world_size": 2, "cursor": cursor, "waiting": waiting, "counts": {}}

    with caplog.at_level(logging.INFO, logger=handover.__name__):
        dealt = [deal_out([state(0, 7, [[0]]), state(1, 12, [[1], [4]])], 5, rank=r, world_size=3) for r in range(3)]
    # Rank 0 had not come to the places 8 and 10 of all passes, which are conversations 3 and 0.
    assert [one["waiting"] for one in dealt] == [[[0], [3]], [[1], [0]], [[4]]]
    assert [one["cursor"] for one in dealt] == [{"epoch": 2, "position": 12}] * 3
    assert [(one["rank"], one["world_size"]) for one in dealt] == [(0, 3), (1, 3), (2, 3)]
    assert caplog.records[0].__dict__["num_waiting"] == 3 and caplog.records[0].__dict__["num_unread"] == 2


def test_conversations_that_have_changed_are_refused_as_ever() -> None:
    with open_loader(0, 1) as loader:
        state = deal_out([loader.state()], NUM, rank=0, world_size=2)
    with pytest.raises(DataError, match="not what the checkpoint was trained on"):
        conversation_loader(NUM + 1, render, batch_size=2, sequence_len=64, rank=0, world_size=2, state=state)
