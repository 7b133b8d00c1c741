"""What a worker holds of a model is gone after a swap: the kernels' objects, weights, caches, kept prefixes."""

import socket
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from nanochat.native.library import Library
from nanochat.protocol.generate import GenerateRequest
from nanochat_inference.loaded_model import LoadedModel
from nanochat_inference.pool.frames import (
    Configure,
    Drop,
    Events,
    Frame,
    FrameReader,
    FromWorker,
    Kind,
    Load,
    Loaded,
    ToWorker,
    Use,
    control_frame,
    from_worker,
    read_events,
    request_frame,
)
from nanochat_inference.pool.worker_process import Worker
from nanochat_inference.settings import InferenceSettings
from tests.integration.inference.server import until

M = TypeVar("M", bound=FromWorker | Events)


class Replica:
    """The other end of a worker that runs on threads of this process."""

    def __init__(self, settings: InferenceSettings) -> None:
        self._channel, self._theirs = socket.socketpair()
        self._channel.settimeout(30)
        self._from_worker, self._to_worker = FrameReader(), FrameReader()
        self._heard: list[FromWorker | Events] = []
        self.worker = Worker(self._theirs, Configure(worker=0, settings=settings, capacity=8, beat_interval_s=0.05))
        self.worker.start()

    def stop(self) -> None:
        self.worker.stop()
        self._channel.close()  # first: what writes to it may wait for somebody to read
        self.worker._outbox.close()
        self._theirs.close()

    def say(self, message: ToWorker) -> None:
        self._give(control_frame(message))

    def ask(self, number: int, max_tokens: int) -> None:
        asked = GenerateRequest(model="nanochat", prompt="a", temperature=0, max_tokens=max_tokens)
        self._give(request_frame(number, 0.0, asked.model_dump_json().encode()))

    def hear(self, kind: type[M], is_it: Callable[[M], bool] = lambda message: True) -> M:
        """Wait for such a message; those before it are passed over."""
        while True:
            while self._heard:
                message = self._heard.pop(0)
                if isinstance(message, kind) and is_it(message):
                    return message
            for frame in self._from_worker.feed(self._channel.recv(2**16)):
                self._heard += _messages(frame)

    def load(self, folder: Path) -> LoadedModel:
        """Beside what is in use."""
        self.say(Load(reference=folder.name, folder=folder))
        self.hear(Loaded)
        assert self.worker._loaded is not None
        return self.worker._loaded[1]

    def _give(self, data: bytes) -> None:
        for frame in self._to_worker.feed(data):
            self.worker.take(frame)


def _messages(frame: Frame) -> list[Any]:
    return [*read_events(frame.body)] if frame.kind is Kind.EVENTS else [from_worker.validate_json(frame.body)]


@pytest.fixture(params=["fp32", "bf16"])
def replica(request: pytest.FixtureRequest) -> Iterator[Replica]:
    """On the kernels, and on torch."""
    if request.param == "fp32":
        request.getfixturevalue("kernels")
    replica = Replica(InferenceSettings(device="cpu", precision=request.param, max_running=2, num_threads=1))
    yield replica
    replica.stop()


@pytest.fixture
def freed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels' objects that have been destroyed."""
    names: list[str] = []
    call = Library.call

    def noting(library: Library, name: str, *arguments: object) -> int:
        if name.endswith("_free"):
            names.append(name)
        return call(library, name, *arguments)

    monkeypatch.setattr(Library, "call", noting)
    return names


def parts(loaded: LoadedModel) -> dict[str, "weakref.ref[Any]"]:
    """What takes memory, without holding it."""
    backend, store = loaded.backend, loaded.prefixes._store
    found = {"loaded": loaded, "backend": backend, "store": store}
    found |= {f"backend.{name}": part for name, part in vars(backend).items()}
    found |= {f"store.{name}": part for name, part in vars(store).items()}
    return {name: weakref.ref(part) for name, part in found.items() if type(part).__weakrefoffset__}


def left(found: dict[str, "weakref.ref[Any]"]) -> list[str]:
    return [name for name, part in found.items() if part() is not None]


def test_of_a_swapped_out_model_nothing_is_left_once_its_last_request_has_ended(
    replica: Replica, make_home: Callable[[], Path], freed: list[str]
) -> None:
    folders = [make_home() / "checkpoints" / "nano" / "sft" / f"step_00000{step}" for step in (1, 2)]
    old = parts(replica.load(folders[0]))
    replica.say(Use(reference=folders[0].name))
    assert left(old) == [*old] and len(old) >= 6
    replica.ask(1, max_tokens=150)
    replica.hear(Events)
    new = parts(replica.load(folders[1]))
    replica.say(Use(reference=folders[1].name))
    replica.ask(2, max_tokens=4)
    assert b'"x"' in replica.hear(Events, lambda events: events.number == 2).text
    until(lambda: not left(old), "the old model is gone")
    assert left(new) == [*new]
    uses_kernels = "backend._native" in old
    assert sorted(freed) == (["cache_free", "model_free"] if uses_kernels else [])


def test_of_a_model_that_was_loaded_and_dropped_nothing_is_left(
    replica: Replica, make_home: Callable[[], Path], freed: list[str]
) -> None:
    """As when another worker refuses it."""
    loaded = parts(replica.load(make_home() / "checkpoints" / "nano" / "sft" / "step_000001"))
    assert left(loaded) == [*loaded]
    replica.say(Drop())
    until(lambda: not left(loaded), "it is gone")
    assert sorted(freed) == (["cache_free", "model_free"] if "backend._native" in loaded else [])
