"""A pool without processes: workers that say what a test has them say, and what they were sent."""

from pathlib import Path

import pytest

from nanochat.protocol.generate import GenerateRequest, ServedModel
from nanochat_inference.pool.flight import Flight
from nanochat_inference.pool.frames import (
    Events,
    Frame,
    FrameReader,
    FromWorker,
    Hello,
    Kind,
    control_frame,
    events_frame,
    read_request,
    to_worker,
)
from nanochat_inference.pool.pool import Chosen, Pool
from nanochat_inference.pool.totals import Totals
from nanochat_inference.pool.worker import Worker
from nanochat_inference.settings import InferenceSettings

SERVED = ServedModel(
    model="nanochat", checkpoint="a/sft/step_000001", context_length=64, vocab_size=265, num_parameters=1, created=0
)


class Wire:
    """Stands in for a worker's channel: keeps what is written to it."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self._reader = FrameReader()

    def write(self, data: bytes) -> None:
        self.frames += self._reader.feed(data)

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """Nothing is held."""

    @property
    def requests(self) -> list[int]:
        """Numbers of those that were given."""
        return [read_request(frame.body)[0] for frame in self.frames if frame.kind is Kind.REQUEST]

    @property
    def control(self) -> list[object]:
        return [to_worker.validate_json(frame.body) for frame in self.frames if frame.kind is Kind.CONTROL]


class Stage:
    """A pool, and the strings of its workers."""

    def __init__(self, settings: InferenceSettings, num_workers: int) -> None:
        self.totals = Totals()
        self.pool = Pool([settings] * num_workers, self.totals)
        self.workers: list[Worker] = self.pool._workers
        self.wires = [Wire() for _ in self.workers]
        self.pool._chosen = Chosen("a", Path("a"), SERVED)
        for index in range(num_workers):
            self.revive(index)

    def revive(self, index: int) -> None:
        """It lives again, with the model in service."""
        worker = self.workers[index]
        worker._reset()
        self.wires[index] = Wire()
        worker._transport = self.wires[index]  # type: ignore[assignment]
        self.says(index, Hello(device="cpu"))
        worker.reference, worker.served = "a", SERVED

    def ask(self, prompt: str = "hi", n: int = 1) -> Flight:
        asked = GenerateRequest(model="nanochat", prompt=prompt, n=n)
        return self.pool.submit(asked, asked.model_dump_json().encode())

    def says(self, index: int, message: FromWorker) -> None:
        self._hears(index, control_frame(message))

    def tells(self, index: int, *events: Events) -> None:
        self._hears(index, events_frame(events))

    def dies(self, index: int) -> None:
        self.workers[index].lose()
        self.pool.lost(self.workers[index])

    def _hears(self, index: int, data: bytes) -> None:
        for frame in FrameReader().feed(data):
            self.workers[index].take(frame)


@pytest.fixture
async def stage() -> Stage:
    """Two workers of two slots each, with room for three choices more."""
    return Stage(InferenceSettings(max_running=2, max_waiting=3, max_waiting_tokens=0), num_workers=2)
