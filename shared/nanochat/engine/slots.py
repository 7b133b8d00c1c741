"""Which sequence sits in which slot of the cache, torch-free.

When rows run is decided by generate.py offline, and by the inference service's scheduler there.
"""

from collections import deque
from dataclasses import dataclass, field

from nanochat.engine.sequence import Sequence
from nanochat.protocol.generate import TokenLogprob


@dataclass(eq=False)
class Row:
    """A sequence in a slot, which holds num_computed of its tokens; those still to come are the sequence's `pending`.

    `fork_of`: a row with the same prompt that began in the same step; once it is computed it is copied. `kept_blocks`
    are the prefix cache's ids of what the slot holds. `scores`: a list where log probabilities of the prompt are
    wanted, [None] at first, as nothing stands before the first token; it grows as they are computed.
    """

    sequence: Sequence
    slot: int
    num_computed: int = 0
    fork_of: "Row | None" = None
    kept_blocks: list[int] = field(default_factory=list)
    scores: list[TokenLogprob | None] | None = None

    @property
    def num_pending(self) -> int:
        return len(self.sequence.pending)


class Slots:
    """The rows of one cache. Lowest slots first, as rows side by side are cheapest to read."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.rows: list[Row] = []
        self._free = set(range(num_slots))

    @property
    def num_free(self) -> int:
        return len(self._free)

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
        """Free a row's slot; at once for the next admit(). Rows that were to be copied from it begin by themselves."""
        self.rows.remove(row)
        self._free.add(row.slot)
        for other in self.rows:
            if other.fork_of is row:
                other.fork_of = None
