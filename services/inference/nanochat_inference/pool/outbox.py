"""What a worker has to say: collected while a step is told, then written by a thread of its own, a frame a step.

So the engine's thread never waits for the replica's process, nor for its own words to become JSON.
"""

import socket
import threading
from collections.abc import Callable
from collections.abc import Sequence as Seq

from pydantic import BaseModel

from nanochat.protocol.generate import Delta, Done, Finished, GenerateError, GenerateEvent, Started
from nanochat_inference.pool.frames import Events, Rejected, Returned, control_frame, events_frame


class Outbox:
    """post() and say() from any thread. What was said leaves with the next flush(); what was posted, at once."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._wake = threading.Condition()
        self._waiting: list[BaseModel | tuple[int, Seq[GenerateEvent]]] = []
        self._may_leave = False
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def post(self, message: BaseModel) -> None:
        with self._wake:
            self._waiting.append(message)
            self._may_leave = True
            self._wake.notify()

    def say(self, number: int, events: Seq[GenerateEvent]) -> None:
        with self._wake:
            self._waiting.append((number, events))

    def flush(self) -> None:
        """Between two steps: all that was said may leave."""
        with self._wake:
            if self._waiting:
                self._may_leave = True
                self._wake.notify()

    def close(self) -> None:
        """Write what is there, and end the thread."""
        with self._wake:
            self._is_closing = self._may_leave = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._may_leave)
                waiting, self._waiting = self._waiting, []
                self._may_leave = False
                is_closing = self._is_closing
            try:
                self._channel.sendall(b"".join(_frames(waiting)))
            except OSError:  # the replica's process has gone, and with it everybody who waits
                return
            if is_closing:
                return


def _frames(waiting: Seq[BaseModel | tuple[int, Seq[GenerateEvent]]]) -> list[bytes]:
    """In order; neighbouring events share a frame."""
    frames: list[bytes] = []
    together: list[Events] = []
    for entry in waiting:
        if isinstance(entry, BaseModel):
            if together:
                frames.append(events_frame(together))
                together = []
            frames.append(control_frame(entry))
        else:
            together.append(_events(*entry))
    if together:
        frames.append(events_frame(together))
    return frames


def _events(number: int, events: Seq[GenerateEvent]) -> Events:
    num_ended = num_tokens = 0
    for event in events:
        if isinstance(event, Delta):
            num_tokens += event.num_tokens
        elif isinstance(event, Finished):
            num_ended += 1
    return Events(
        number=number,
        num_ended=num_ended,
        num_tokens=num_tokens,
        is_last=isinstance(events[-1], Done | GenerateError),
        text=b"".join([b"data: " + event.model_dump_json().encode() + b"\n\n" for event in events]),
    )


class Outlet:
    """The events of one request, as batching/request.py hands them over."""

    def __init__(self, outbox: Outbox, number: int, worker: int, on_end: Callable[[int], None]) -> None:
        self._outbox = outbox
        self._number = number
        self._worker = worker
        self._on_end = on_end
        self._has_spoken = False

    def put(self, events: Seq[GenerateEvent]) -> None:
        first, last = events[0], events[-1]
        if isinstance(first, Started):
            first.worker = self._worker
        if isinstance(last, Done | GenerateError):
            self._on_end(self._number)
        if isinstance(first, GenerateError) and not self._has_spoken:
            self._outbox.post(Rejected(number=self._number, code=first.code, message=first.message, retry_after_s=1.0))
        else:
            self._outbox.say(self._number, events)
        self._has_spoken = True

    def give_back(self) -> None:
        self._on_end(self._number)
        self._outbox.post(Returned(number=self._number))
