"""What the replica's process and a worker say to each other, over a pair of sockets that nobody else has.

A frame is its length, its kind and a body. Requests go as the bytes that the client sent, answers as the bytes that
the client gets: neither is parsed on the way. All else is control: JSON of the models below. Nothing is pickled.
"""

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from nanochat.protocol.generate import ServedModel
from nanochat_inference.settings import InferenceSettings

# Length of the body, kind.
_HEADER = struct.Struct("!IB")
# A request's number, and when it arrived by the machine's monotonic clock.
_REQUEST = struct.Struct("!Qd")
# A request's number, choices that end here, tokens sampled, whether it is the last, length of the text.
_EVENTS = struct.Struct("!QHI?I")
# The largest is a prompt scored token by token: megabytes. Beyond this something else is writing.
MAX_BODY_BYTES = 2**28


class Kind(IntEnum):
    CONTROL = 0
    REQUEST = 1
    EVENTS = 2


class Frame(NamedTuple):
    kind: Kind
    body: bytes


class Events(NamedTuple):
    """What one step says to one client: server-sent events, ready to be sent."""

    number: int
    num_ended: int
    num_tokens: int
    is_last: bool
    text: bytes


class _Control(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Configure(_Control):
    """The first word to a worker."""

    type: Literal["configure"] = "configure"
    worker: int
    settings: InferenceSettings
    capacity: int = Field(description="Choices that it may be given at once.")
    beat_interval_s: float


class Load(_Control):
    """Load a checkpoint beside what is there."""

    type: Literal["load"] = "load"
    reference: str
    folder: Path


class Use(_Control):
    """From the next request on."""

    type: Literal["use"] = "use"
    reference: str


class Drop(_Control):
    """What was loaded and is not used will not be."""

    type: Literal["drop"] = "drop"


class Cancel(_Control):
    type: Literal["cancel"] = "cancel"
    number: int


class Measure(_Control):
    """Beat now."""

    type: Literal["measure"] = "measure"


class Hello(_Control):
    """A worker has its device and can load a checkpoint."""

    type: Literal["hello"] = "hello"
    device: str


class Loaded(_Control):
    type: Literal["loaded"] = "loaded"
    reference: str
    served: ServedModel


class NotLoaded(_Control):
    type: Literal["not_loaded"] = "not_loaded"
    reference: str
    code: str
    message: str


class Accepted(_Control):
    """A request is tokenized and queued."""

    type: Literal["accepted"] = "accepted"
    number: int
    prompt_tokens: int


class Rejected(_Control):
    """A request ends before its first event."""

    type: Literal["rejected"] = "rejected"
    number: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None


class Returned(_Control):
    """A step failed before a request's first event: another worker may have more luck with it."""

    type: Literal["returned"] = "returned"
    number: int


class Sample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: float


class Family(_Control):
    """A metric with its series, as prometheus_client has them."""

    name: str
    documentation: str
    type: str
    samples: list[Sample]


class Beat(_Control):
    """A worker lives. `progress` grows with every step, and with a beat without anything to compute; where it does not,
    the engine hangs. `load_progress` grows while a checkpoint is loaded; where it does not, that hangs."""

    type: Literal["beat"] = "beat"
    progress: int
    load_progress: int = 0
    metrics: list[Family]


ToWorker = Annotated[Configure | Load | Use | Drop | Cancel | Measure, Field(discriminator="type")]
FromWorker = Annotated[Hello | Loaded | NotLoaded | Accepted | Rejected | Returned | Beat, Field(discriminator="type")]
to_worker: TypeAdapter[ToWorker] = TypeAdapter(ToWorker)
from_worker: TypeAdapter[FromWorker] = TypeAdapter(FromWorker)


def frame(kind: Kind, body: bytes) -> bytes:
    return _HEADER.pack(len(body), kind) + body


def control_frame(message: BaseModel) -> bytes:
    return frame(Kind.CONTROL, message.model_dump_json().encode())


def request_frame(number: int, arrived_at: float, body: bytes) -> bytes:
    return frame(Kind.REQUEST, _REQUEST.pack(number, arrived_at) + body)


def read_request(body: bytes) -> tuple[int, float, bytes]:
    number, arrived_at = _REQUEST.unpack_from(body)
    return number, arrived_at, body[_REQUEST.size :]


def events_frame(all_events: Iterable[Events]) -> bytes:
    """One frame for all that a step has to say."""
    parts = [
        _EVENTS.pack(events.number, events.num_ended, events.num_tokens, events.is_last, len(events.text)) + events.text
        for events in all_events
    ]
    return frame(Kind.EVENTS, b"".join(parts))


def read_events(body: bytes) -> Iterator[Events]:
    offset = 0
    while offset < len(body):
        number, num_ended, num_tokens, is_last, length = _EVENTS.unpack_from(body, offset)
        offset += _EVENTS.size
        yield Events(number, num_ended, num_tokens, is_last, body[offset : offset + length])
        offset += length


class FrameReader:
    """Cuts what comes over a socket into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole by now. Read all of them before the next feed."""
        self._buffer += data
        offset = 0
        while len(self._buffer) - offset >= _HEADER.size:
            length, kind = _HEADER.unpack_from(self._buffer, offset)
            assert length <= MAX_BODY_BYTES, f"a frame of {length} bytes"
            end = offset + _HEADER.size + length
            if len(self._buffer) < end:
                break
            yield Frame(Kind(kind), bytes(self._buffer[offset + _HEADER.size : end]))
            offset = end
        del self._buffer[:offset]
