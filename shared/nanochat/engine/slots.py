"""Which sequence sits in which slot of the cache, torch-free.

When rows run is decided by generate.py offline, and by the inference service's scheduler there.
"""

from collections import deque
from dataclasses import dataclass

from nanochat.engine.sequence import Sequence


@dataclass(eq=False)
class Row:
    """A sequence in a slot. What runs it (step.py) clears `is_fresh`, and `fork_of` with it.

    `is_fresh`: the slot still holds what another sequence left. `fork_of`: a row with the same prompt that begins in
    the same step; its computed prompt is copied.
    """

    sequence: Sequence
    slot: int
    is_fresh: bool = True
    fork_of: "Row | None" = None


class Slots:
    """The rows of one cache. Lowest slots first, as rows side by side are cheapest to read."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.rows: list[Row] = []
        self._free = set(range(num_slots))

    def admit(self, waiting: deque[Sequence]) -> list[Row]:
        """Seat as many of the waiting as there is room for, in order. Choices of one prompt share what it costs."""
        seated: list[Row] = []
        while waiting and self._free:
            row = Row(waiting.popleft(), min(self._free))
            self._free.remove(row.slot)
            first = next((other for other in seated if other.sequence.prompt_ids is row.sequence.prompt_ids), None)
            row.fork_of = first
            seated.append(row)
        self.rows += seated
        return seated

    def release(self, row: Row) -> None:
        """Free a row's slot; at once for the next admit()."""
        self.rows.remove(row)
        self._free.add(row.slot)
