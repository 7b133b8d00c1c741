"""SmolTalk: a million conversations made for small models (arXiv 2502.02737, Apache-2.0); smol-smoltalk is its half
for the smallest. To train on alone: there is no right answer to compare with.
"""

import json
from collections.abc import Iterable

from nanochat.tasks.base import Conversation, Row, Split, Task
from nanochat.tasks.benchmark import Benchmark
from nanochat.tasks.custom_json import conversation_of


class SmolTalk(Benchmark):
    """Held in memory as JSON, a tenth of what the messages take as objects."""

    def __init__(self, split: Split, rows: Iterable[Row]) -> None:
        self._packed = [self._pack(row) for row in rows]
        Task.__init__(self, split, len(self._packed))

    def example(self, index: int) -> Conversation:
        return conversation_of(json.loads(self._packed[index]), f"conversation {index}")

    def conversation(self, row: Row) -> Conversation:
        return conversation_of(row.values, row.place)

    def _pack(self, row: Row) -> bytes:
        messages = self.conversation(row).messages
        return json.dumps([message.model_dump() for message in messages], ensure_ascii=False).encode()
