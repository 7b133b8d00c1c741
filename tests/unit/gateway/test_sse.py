import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Gauge

from nanochat.errors import Unavailable
from nanochat_gateway import sse


async def cut(data: bytes, size: int) -> AsyncIterator[bytes]:
    for i in range(0, len(data), size):
        yield data[i : i + size]


async def read(data: bytes, size: int = 1) -> list[bytes]:
    return [event async for event in sse.read_events(cut(data, size))]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_events_are_whole_however_they_arrive(size: int) -> None:
    data = 'data: {"a":"é日👩"}\n\n: comment\r\n\r\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\n'.encode()
    assert await read(data, size) == ['{"a":"é日👩"}'.encode(), b"two\nlines"]


async def test_unicode_line_breaks_do_not_end_an_event() -> None:
    assert await read("data: a\u2028b\u2029c\x85d\x0be\n\n".encode()) == ["a\u2028b\u2029c\x85d\x0be".encode()]


async def test_an_event_cut_off_at_the_end_is_none() -> None:
    assert await read(b"data: one\n\ndata: tw") == [b"one"]


async def test_an_event_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_MAX_EVENT_BYTES", 100)
    with pytest.raises(Unavailable):
        await read(b"data: " + b"x" * 200, 10)


@given(st.text())
def test_a_frame_is_one_event_to_readers_that_split_at_unicode_line_breaks(text: str) -> None:
    frame = sse.frame(json.dumps(text, ensure_ascii=False))
    response = httpx.Response(200, content=frame)
    [line, blank] = response.iter_lines()
    assert blank == ""
    assert json.loads(line.removeprefix("data: ")) == text


async def never_ends() -> dict[str, Any]:
    return await asyncio.Future()


async def no_close() -> None:
    pass


def stream(frames: AsyncGenerator[bytes, None], keep_alive_s: float) -> sse.EventStream:
    active = Gauge("active", "Streams.", registry=None)
    return sse.EventStream(frames, close=no_close, active=active, keep_alive_s=keep_alive_s)


async def test_a_silence_is_filled_with_comments_and_frames_come_in_order() -> None:
    sent: list[bytes] = []

    async def frames() -> AsyncGenerator[bytes, None]:
        yield b"1"
        await asyncio.sleep(0.3)
        yield b"2"
        yield b"3"

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    await stream(frames(), 0.05)({"type": "http"}, never_ends, send)
    start, first, *comments, second, third, end = sent
    assert [start, first, second, third, end] == [b"", b"1", b"2", b"3", b""]
    assert len(comments) >= 3 and set(comments) == {sse.KEEP_ALIVE}


async def test_a_client_that_reads_slowly_gets_no_comments_on_top() -> None:
    sent: list[bytes] = []

    async def frames() -> AsyncGenerator[bytes, None]:
        yield b"1"

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))
        if message.get("body") == b"1":
            await asyncio.sleep(0.2)

    await stream(frames(), 0.05)({"type": "http"}, never_ends, send)
    assert sent == [b"", b"1", b""]


async def test_an_end_is_noticed_although_the_client_takes_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_LAST_SEND_S", 0.05)
    sent: list[bytes] = []
    is_stalled = asyncio.Event()

    async def frames() -> AsyncGenerator[bytes, None]:
        yield b"1"
        await asyncio.Future()

    async def send(message: Any) -> None:
        if message.get("body") == sse.KEEP_ALIVE:
            is_stalled.set()
        if is_stalled.is_set():
            await asyncio.Future()
        sent.append(message.get("body", b""))

    async def until() -> None:
        await is_stalled.wait()

    active = Gauge("active", "Streams.", registry=None)
    answer = sse.EventStream(frames(), close=no_close, active=active, keep_alive_s=0.01, until=until)
    async with asyncio.timeout(5):
        await answer({"type": "http"}, never_ends, send)
    assert sent == [b"", b"1"]


async def test_frames_that_break_break_the_stream() -> None:
    async def frames() -> AsyncGenerator[bytes, None]:
        yield b"1"
        raise Unavailable("gone")

    async def send(message: Any) -> None:
        pass

    with pytest.raises(Unavailable, match="gone"):
        await stream(frames(), 5.0)({"type": "http"}, never_ends, send)


async def test_what_a_stream_is_made_from_is_freed_although_the_client_is_gone_at_once() -> None:
    sent: list[Any] = []
    freed: list[bool] = []

    async def frames() -> AsyncGenerator[bytes, None]:
        yield b"data: 1\n\n"

    async def free() -> None:
        freed.append(True)

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    active = Gauge("active", "Streams.", registry=None)
    await sse.EventStream(frames(), close=free, active=active, keep_alive_s=5.0)({"type": "http"}, receive, send)
    assert freed == [True]
    assert active._value.get() == 0
    assert not any(message.get("body") for message in sent)
