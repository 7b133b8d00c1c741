"""A request on its way: its choices as sequences, and what takes its events from the engine's thread to its client.

Torch-free. Once submitted, everything here but `events` belongs to the engine's thread.
"""

import time
from collections.abc import Sequence as Seq
from typing import Protocol

from nanochat.engine.sequence import Sequence
from nanochat.protocol.generate import GenerateEvent, TokenLogprob


class TakesEvents(Protocol):
    """In a worker, pool/outbox.py."""

    def put(self, events: Seq[GenerateEvent]) -> None:
        """On the engine's thread: returns at once. Never an empty list; Done or GenerateError comes last."""

    def give_back(self) -> None:
        """In place of all events: a step failed before there was any, and somebody else is to try this request."""


class Request:
    """Times are of time.monotonic(). Equal only to itself."""

    def __init__(self, sequences: list[Sequence], events: TakesEvents, *, wants_prompt_logprobs: bool = False) -> None:
        self.sequences = sequences
        self.events = events
        self.wants_prompt_logprobs = wants_prompt_logprobs
        self.arrived_at = time.monotonic()
        self.outbox: list[GenerateEvent] = []
        self.has_started = False  # its first token is there
        self.has_spoken = False  # something was handed over, which cannot be taken back
        self.num_cached = 0  # tokens of the prompt that were found computed
        self.prompt_logprobs: list[TokenLogprob | None] | None = None
        self.is_closed = False  # ended, in whatever way

    @property
    def prompt_ids(self) -> list[int]:
        """Shared by all choices."""
        return self.sequences[0].prompt_ids

    @property
    def is_finished(self) -> bool:
        return all(sequence.is_finished for sequence in self.sequences)

    @property
    def num_sampled(self) -> int:
        return sum(sequence.num_sampled for sequence in self.sequences)

    def send(self) -> None:
        """Hand over what is in the outbox."""
        if self.outbox:
            self.has_spoken = True
            self.events.put(self.outbox)
            self.outbox = []
