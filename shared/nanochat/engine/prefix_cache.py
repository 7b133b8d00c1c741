"""Finds the longest beginning of a prompt that was computed before, in whatever sequence; keeps what is computed now.

Kept are blocks of 16 tokens, each under its tokens and the block before it, so that a block is found only behind the
very same tokens: a chat's next turn finds its last one, and chats with one system prompt share it. The block used
longest ago goes first; a block is never older than those behind it, so what remains can always be reached. Of a
sequence longer than the whole store the beginning stays.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from nanochat.engine.backend import BLOCK_TOKENS, Backend
from nanochat.engine.slots import Row

_Key = tuple[int, tuple[int, ...]]  # the block before, and the tokens
_ROOT = 0
_NOT_KEPT = -1  # in a row's chain, from the first block on that found no room or lost the one before it


class _Kept(NamedTuple):
    key: _Key
    place: int  # in the store


class PrefixCache:
    """At most size_bytes, and no block of it where that is too little for one. For one thread."""

    def __init__(self, backend: Backend, size_bytes: int) -> None:
        self._num_blocks = max(0, size_bytes // backend.block_bytes())
        self._store = backend.new_block_store(self._num_blocks)
        self._ids: dict[_Key, int] = {}
        self._kept: OrderedDict[int, _Kept] = OrderedDict()  # by id, the one used longest ago first
        self._free = list(range(self._num_blocks))
        self._last_id = _ROOT

    @property
    def usage_ratio(self) -> float:
        return len(self._kept) / self._num_blocks if self._num_blocks else 0.0

    def restore(self, row: Row) -> None:
        """Fill a fresh row's slot with the longest kept beginning of its prompt; its last token is always computed."""
        ids = row.sequence.prompt_ids
        chain: list[int] = []
        for block in range((len(ids) - 1) // BLOCK_TOKENS):
            found = self._ids.get((chain[-1] if chain else _ROOT, _tokens(ids, block)))
            if found is None:
                break
            chain.append(found)
        if chain:
            self._store.restore(row.slot, {block: self._kept[found].place for block, found in enumerate(chain)})
        self._touch(chain)
        row.kept_blocks = chain
        row.num_computed = row.sequence.num_cached = len(chain) * BLOCK_TOKENS
        row.sequence.pending = ids[row.num_computed :]

    def keep(self, rows: Iterable[Row]) -> None:
        """Keep the blocks that rows have completed since the last call: before their next step, which may take from a
        layer with a window what it no longer needs, and before their slots are given to others."""
        for row in rows:
            self._keep(row)

    def _keep(self, row: Row) -> None:
        chain = row.kept_blocks
        if (len(chain) + 1) * BLOCK_TOKENS > row.num_computed or not self._num_blocks:
            return
        ids = row.sequence.prompt_ids + row.sequence.generated_ids
        self._touch(chain)  # the new blocks shall not take the places of those they lie behind
        last_id = self._last_id
        new: dict[int, int] = {}
        try:
            while (len(chain) + 1) * BLOCK_TOKENS <= row.num_computed:
                chain.append(self._keep_block(chain, ids, new))
            self._touch(chain)
            if new:
                self._store.save(row.slot, new)
        except BaseException:
            self._forget_since(last_id)
            raise

    def _keep_block(self, chain: list[int], ids: list[int], new: dict[int, int]) -> int:
        """The id of a chain's next block; once one is not kept, none behind it is. A new one has to be saved."""
        block, before = len(chain), chain[-1] if chain else _ROOT
        if block >= self._num_blocks or (chain and before not in self._kept):
            return _NOT_KEPT
        key = (before, _tokens(ids, block))
        found = self._ids.get(key)
        if found is None:
            found = self._add(key)
            new[block] = self._kept[found].place
        self._kept.move_to_end(found)
        return found

    def _add(self, key: _Key) -> int:
        if not self._free:
            _, oldest = self._kept.popitem(last=False)
            del self._ids[oldest.key]
            self._free.append(oldest.place)
        # Never used twice, so that no block is found behind another than the one it was computed behind.
        self._last_id += 1
        self._ids[key] = self._last_id
        self._kept[self._last_id] = _Kept(key, self._free.pop())
        return self._last_id

    def _forget_since(self, last_id: int) -> None:
        """Whatever was added after that one."""
        for block_id in [each for each in self._kept if each > last_id]:
            forgotten = self._kept.pop(block_id)
            del self._ids[forgotten.key]
            self._free.append(forgotten.place)

    def _touch(self, chain: list[int]) -> None:
        """From the last to the first: what others lie behind goes last."""
        for block_id in reversed(chain):
            if block_id in self._kept:
                self._kept.move_to_end(block_id)


def _tokens(ids: list[int], block: int) -> tuple[int, ...]:
    return tuple(ids[block * BLOCK_TOKENS : (block + 1) * BLOCK_TOKENS])
