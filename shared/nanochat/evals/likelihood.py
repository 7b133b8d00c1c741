"""How likely a model finds given texts: what CORE, letters to choose among and lm-evaluation-harness ask of it.

Passages of a group are computed together up to where they part, several groups side by side, and the head is multiplied
out for judged tokens alone. On a CPU's own kernels a passage gets the same bits in any company. Nothing is generated
here (engine/generate.py), and what the numbers mean is the callers'.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor

from nanochat.engine.backend import Backend, Chunk, make_backend
from nanochat.model.gpt import GPT
from nanochat.sizes import LOGITS_AT_ONCE

_MAX_SLOTS = 32
# Keys and values of all slots, in numbers: 2 GiB in float32.
_CACHE_AT_ONCE = 2**29


class Passage(NamedTuple):
    """Token ids, BOS first, of which those from `start` on are judged; 1 at least: nothing is before the first."""

    token_ids: list[int]
    start: int


class Likelihood(NamedTuple):
    """Of a passage's judged tokens: the sum of -ln p, their number, and whether each was the model's first choice."""

    nats: float
    num_tokens: int
    is_greedy: bool

    @property
    def mean_nats(self) -> float:
        return self.nats / self.num_tokens if self.num_tokens else math.nan


class Scorer:
    """A backend whose slots are used for scoring alone. Passages have max_len tokens at most. One thread at a time."""

    def __init__(self, backend: Backend, vocab_size: int) -> None:
        self._backend = backend
        self.max_len = backend.max_len
        self._num_judged = max(1, LOGITS_AT_ONCE // vocab_size)  # of a step

    @classmethod
    def of(cls, model: GPT, max_len: int | None = None) -> Self:
        """For a model, which may go on being trained between two calls. max_len: its context where it is None."""
        config = model.config
        length = min(max_len or config.sequence_len, config.sequence_len)
        per_slot = 2 * config.n_layer * length * config.n_kv_head * config.head_dim
        num_slots = min(_MAX_SLOTS, max(1, _CACHE_AT_ONCE // per_slot))
        return cls(make_backend(model, num_slots=num_slots, max_len=length), config.vocab_size)

    @torch.inference_mode()
    def score(
        self, groups: Sequence[Sequence[Passage]], on_progress: Callable[[int], None] = lambda num_done: None
    ) -> list[list[Likelihood]]:
        """Of each passage of each group, in their order. `on_progress` gets the number of groups done, now and then.

        The longest come first, those of like length together.
        """
        found: list[list[Likelihood]] = [[] for _ in groups]
        order = sorted(range(len(groups)), key=lambda i: -sum(len(p.token_ids) for p in groups[i]))
        num_slots = self._backend.num_slots
        for first in range(0, len(order), num_slots):
            wave = order[first : first + num_slots]
            scored = self._score_side_by_side([groups[i] for i in wave])
            for i, likelihoods in zip(wave, scored, strict=True):
                found[i] = likelihoods
            on_progress(first + len(wave))
        return found

    def _score_side_by_side(self, groups: Sequence[Sequence[Passage]]) -> list[list[Likelihood]]:
        """A group a slot: first what its passages begin with, then what follows in one after the other."""
        readers = [[_Reader(passage.token_ids[passage.start :]) for passage in group] for group in groups]
        trees = [
            _parts(slot, group, own, self._backend.max_chunk)
            for slot, (group, own) in enumerate(zip(groups, readers, strict=True))
        ]
        for parts in itertools.zip_longest(*trees):
            self._run([part for part in parts if part is not None])
        return [[reader.likelihood() for reader in own] for own in readers]

    def _run(self, parts: Sequence["_Part"]) -> None:
        """Compute parts in distinct slots, in as many steps as it takes."""
        while waiting := [part for part in parts if part.token_ids]:
            room, judged_room = self._backend.step_tokens, self._num_judged
            taken: list[tuple[_Part, Chunk, int]] = []
            for part in waiting:
                if room and judged_room:
                    chunk, num_judged = part.take(min(room, self._backend.max_chunk), judged_room)
                    taken.append((part, chunk, num_judged))
                    room -= len(chunk.token_ids)
                    judged_room -= num_judged
            logits = self._backend.forward_ends([chunk for _, chunk, _ in taken], [count for _, _, count in taken])
            _read(logits, [(part, count) for part, _, count in taken])


@dataclass(eq=False)
class _Reader:
    """One passage's judged tokens, and what has been found of them so far."""

    targets: list[int]
    nats: float = 0.0
    num_read: int = 0
    is_greedy: bool = True

    def likelihood(self) -> Likelihood:
        assert self.num_read == len(self.targets), "every judged token is read once"
        return Likelihood(self.nats, self.num_read, self.is_greedy)


@dataclass(eq=False)
class _Part:
    """Tokens still to be computed in a slot, from `start` on. The last num_judged are followed by judged ones."""

    slot: int
    start: int
    token_ids: list[int]
    previous_id: int
    num_judged: int = 0
    readers: list[_Reader] = field(default_factory=list)

    def take(self, room: int, judged_room: int) -> tuple[Chunk, int]:
        """The next tokens, at most `room`, and how many of them, at most judged_room, have logits that are judged."""
        num_before = len(self.token_ids) - self.num_judged  # not judged
        count = min(len(self.token_ids), room, num_before + judged_room)
        chunk = Chunk(self.slot, self.start, self.token_ids[:count], self.previous_id)
        num_judged = max(0, count - num_before)
        self.start += count
        self.previous_id = self.token_ids[count - 1]
        self.token_ids = self.token_ids[count:]
        self.num_judged -= num_judged
        return chunk, num_judged


def _parts(slot: int, group: Sequence[Passage], readers: Sequence[_Reader], max_chunk: int) -> list[_Part]:
    """What a slot computes, in order: the shared beginning, then each different rest, from the same place on.

    The last token of a passage is read and never computed. A slot may not go back by more than max_chunk tokens: with
    longer rests nothing is shared.
    """
    judged = [(passage, reader) for passage, reader in zip(group, readers, strict=True) if reader.targets]
    rests: dict[tuple[tuple[int, ...], int], list[_Reader]] = {}
    for passage, reader in judged:
        rests.setdefault((tuple(passage.token_ids[:-1]), len(reader.targets)), []).append(reader)
    num_shared = 0
    if len(rests) > 1:
        num_shared = common_length([list(ids) for ids, _ in rests])
        num_shared = min(num_shared, *(len(ids) - num_judged for ids, num_judged in rests))
        if max(len(ids) for ids, _ in rests) - num_shared > max_chunk:
            num_shared = 0
    parts: list[_Part] = []
    for ids, num_judged in rests:
        if num_shared and not parts:
            parts.append(_Part(slot, 0, list(ids[:num_shared]), -1))
        previous_id = ids[num_shared - 1] if num_shared else -1
        own = rests[ids, num_judged]
        parts.append(_Part(slot, num_shared, list(ids[num_shared:]), previous_id, num_judged, own))
    return parts


def common_length(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    count = 0
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count


def _read(logits: Tensor, taken: Sequence[tuple[_Part, int]]) -> None:
    """Tell readers of the logits (sum of counts, V), which are overwritten: each part's are the next `count`."""
    places: list[int] = []
    targets: list[int] = []
    owners: list[_Reader] = []
    first = 0
    for part, count in taken:
        for reader in part.readers:
            places += range(first, first + count)
            targets += reader.targets[reader.num_read : reader.num_read + count]
            owners += [reader] * count
            reader.num_read += count
        first += count
    if not owners:
        return
    best = logits.argmax(dim=-1).tolist()
    at_target = logits[places, targets].cpu().double()
    largest = logits.amax(dim=-1, keepdim=True)
    total = logits.sub_(largest).exp_().sum(dim=-1).cpu().double()
    # In float64, as passages are compared by small differences of numbers near ln V.
    nats = ((largest[:, 0].cpu().double() + total.log())[places] - at_target).tolist()
    for reader, place, target, value in zip(owners, places, targets, nats, strict=True):
        reader.nats += value
        reader.is_greedy &= best[place] == target
