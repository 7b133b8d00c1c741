"""Slots that go on, go back, are copied and begin with kept blocks, in any order, say what the plain model says."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.engine.backend import BLOCK_TOKENS, Chunk
from nanochat.engine.torch_backend import TorchBackend
from nanochat.model.gpt import GPT
from tests.cuda_stand_ins import record, use_paged_flash_attn

MAX_CHUNK, RING = 32, 48  # the window's 16 positions, and a chunk
CONFIG = GPTConfig(
    sequence_len=240,
    vocab_size=70,
    n_layer=3,
    n_head=4,
    n_kv_head=2,
    n_embd=32,
    window_pattern="SSL",
    short_window_divisor=15,
    short_window_multiple=1,
)
NUM_SLOTS, NUM_BLOCKS, NUM_STEPS = 5, 60, 150
# The same float32 sums in another order.
TOLERANCE = {"rtol": 0.0, "atol": 2e-5}


class SmallChunks(TorchBackend):
    max_chunk = MAX_CHUNK


@pytest.fixture(scope="module")
def model(random_model: Callable[[GPTConfig], GPT]) -> GPT:
    return random_model(CONFIG).requires_grad_(False)


@pytest.fixture(params=["steps", "recordings", "recordings with flash-attn"])
def backend(request: pytest.FixtureRequest, model: GPT, monkeypatch: pytest.MonkeyPatch) -> TorchBackend:
    if request.param == "recordings with flash-attn":
        use_paged_flash_attn(monkeypatch)
    with_record = request.param != "steps"
    return SmallChunks(model, num_slots=NUM_SLOTS, max_len=CONFIG.sequence_len, record=record if with_record else None)


@dataclass
class _Slot:
    """token_ids: what it holds. farthest: where it has been since it began."""

    token_ids: list[int] = field(default_factory=list)
    farthest: int = 0


class _Schedule:
    """Draws steps, and remembers what every slot and every kept block holds."""

    def __init__(self, backend: TorchBackend, seed: int) -> None:
        self._backend = backend
        self._rng = random.Random(seed)
        self._store = backend.new_block_store(NUM_BLOCKS)
        self._kept: dict[tuple[int, ...], int] = {}  # a row up to a block's end, and the block's index
        self.slots = [_Slot() for _ in range(NUM_SLOTS)]
        self.num_gone_back = self.num_restored = 0  # behind more than a ring

    def step(self) -> list[Chunk]:
        """Chunks of some slots, whose tokens they hold from then on."""
        only_decodes = self._rng.random() < 0.5
        chunks = []
        for number in self._rng.sample(range(NUM_SLOTS), self._rng.randint(1, NUM_SLOTS)):
            start = self._start(number)
            room = min(self._backend.max_chunk, CONFIG.sequence_len - start)
            count = 1 if only_decodes else self._rng.randint(1, room)
            slot = self.slots[number]
            before = slot.token_ids[:start]
            token_ids = [self._rng.randrange(CONFIG.vocab_size) for _ in range(count)]
            chunks.append(Chunk(number, start, token_ids, before[-1] if before else -1))
            slot.token_ids = before + token_ids
            slot.farthest = max(slot.farthest if start else 0, len(slot.token_ids))
        return chunks

    def _start(self, number: int) -> int:
        slot, draw = self.slots[number], self._rng.random()
        end = len(slot.token_ids)
        if end == CONFIG.sequence_len or draw < 0.02:
            return 0
        if draw < 0.07:
            return self._restore(number)
        if draw < 0.2:
            start = self._rng.randint(max(0, slot.farthest - self._backend.max_chunk), end)
            self.num_gone_back += RING < start < end
            return start
        return end

    def _restore(self, number: int) -> int:
        """Begin with a kept row, or a part of one."""
        rows = [row for row in self._kept if len(row) < CONFIG.sequence_len]
        if not rows:
            return 0
        row = self._rng.choice(rows)
        num_blocks = len(row) // BLOCK_TOKENS
        self._store.restore(number, {n: self._kept[row[: (n + 1) * BLOCK_TOKENS]] for n in range(num_blocks)})
        self.slots[number] = _Slot(list(row), len(row))
        self.num_restored += len(row) > RING
        return len(row)

    def keep(self, chunks: list[Chunk]) -> None:
        """Blocks that the chunks have completed, behind kept ones."""
        for slot, start, token_ids, _ in chunks:
            new: dict[int, int] = {}
            for end in range(BLOCK_TOKENS, start + len(token_ids) + 1, BLOCK_TOKENS):
                row = tuple(self.slots[slot].token_ids[:end])
                is_new = end > start and row not in self._kept
                has_room = len(self._kept) < NUM_BLOCKS
                if is_new and has_room and (end == BLOCK_TOKENS or row[:-BLOCK_TOKENS] in self._kept):
                    self._kept[row] = len(self._kept)
                    new[end // BLOCK_TOKENS - 1] = self._kept[row]
            if new:
                self._store.save(slot, new)

    def copy(self) -> None:
        source, target = self._rng.sample(range(NUM_SLOTS), 2)
        held = self.slots[source]
        if held.token_ids:
            self._backend.copy_slot(source, target, len(held.token_ids))
            self.slots[target] = _Slot(list(held.token_ids), held.farthest)


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_chunks_says_what_whole_rows_say(model: GPT, backend: TorchBackend, seed: int) -> None:
    assert [keys.size(1) for keys in backend._cache.keys] == [RING, RING, CONFIG.sequence_len]
    schedule = _Schedule(backend, seed)
    num_beyond = 0
    for number in range(NUM_STEPS):
        if number % 10 == 9:
            schedule.copy()
        chunks = schedule.step()
        found = backend.forward(chunks)
        schedule.keep(chunks)
        for row, chunk in zip(found, chunks, strict=True):
            token_ids = schedule.slots[chunk.slot].token_ids
            with torch.inference_mode():
                expected = model(torch.tensor([token_ids]))[0, -1]
            assert torch.allclose(row, expected, **TOLERANCE), f"step {number}, slot {chunk.slot} from {chunk.start} on"
            num_beyond += len(token_ids) > 2 * RING
    assert num_beyond > 100 and schedule.num_gone_back > 10 and schedule.num_restored > 3
