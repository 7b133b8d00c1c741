"""Decides which rows run in the next step of one model: first come, first served, as many as there are slots.

Counts slots; knows nothing of tensors (runner.py) or of HTTP (routes.py). A row that waits for the calculator keeps its
slot and lets the others go on.
"""

from collections import deque

from nanochat.engine.sequence import Sequence
from nanochat.engine.slots import Row, Slots
from nanochat_inference.batching.request import Request


class Scheduler:
    """For one thread."""

    def __init__(self, num_slots: int) -> None:
        self._slots = Slots(num_slots)
        self._waiting: deque[Sequence] = deque()
        self._requests: dict[Sequence, Request] = {}

    @property
    def num_running(self) -> int:
        return len(self._slots.rows)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_decoding(self) -> int:
        """Rows of the next step that have their prompt computed."""
        return sum(row.num_computed >= len(row.sequence.prompt_ids) for row in self.runnable())

    @property
    def num_cached_tokens(self) -> int:
        """Tokens of all rows in a slot, pending ones included."""
        return sum(row.sequence.num_tokens for row in self._slots.rows)

    @property
    def can_run(self) -> bool:
        """Is there anything for a step to do? Rows that wait for the calculator are not."""
        has_room = self.num_running < self._slots.num_slots
        return bool(self._waiting and has_room) or any(row.sequence.expression is None for row in self._slots.rows)

    @property
    def requests(self) -> list[Request]:
        """All that are open, in order of arrival."""
        return list(dict.fromkeys(self._requests.values()))

    def add(self, request: Request) -> None:
        for sequence in request.sequences:
            self._requests[sequence] = request
            self._waiting.append(sequence)

    def admit(self) -> list[Row]:
        """Give free slots to those who have waited longest; returns the new rows."""
        return self._slots.admit(self._waiting)

    def runnable(self) -> list[Row]:
        """The rows of the next step."""
        return [row for row in self._slots.rows if row.sequence.expression is None]

    def request_of(self, row: Row) -> Request:
        return self._requests[row.sequence]

    def has(self, row: Row) -> bool:
        """Is the row still in its slot?"""
        return row in self._slots.rows

    def release(self, row: Row) -> None:
        """A row's choice has finished: free its slot."""
        self._slots.release(row)
        del self._requests[row.sequence]

    def remove(self, request: Request) -> int:
        """Take a request off, running and waiting choices alike; returns how many those were."""
        open_sequences = [sequence for sequence in request.sequences if self._requests.pop(sequence, None)]
        for row in [row for row in self._slots.rows if row.sequence in open_sequences]:
            self._slots.release(row)
        for sequence in [sequence for sequence in self._waiting if sequence in open_sequences]:
            self._waiting.remove(sequence)
        return len(open_sequences)
