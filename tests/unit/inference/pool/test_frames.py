"""What is written is what is read, however the bytes are cut on the way."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from nanochat_inference.pool.frames import (
    Cancel,
    Events,
    FrameReader,
    Kind,
    control_frame,
    events_frame,
    read_events,
    read_request,
    request_frame,
    to_worker,
)

EVENTS = [Events(7, 1, 3, False, "data: é\n\n".encode()), Events(2**40, 0, 0, True, b"")]
WRITTEN = control_frame(Cancel(number=3)) + events_frame(EVENTS) + request_frame(9, 1.5, b'{"n": 1}')


@given(st.lists(st.integers(1, len(WRITTEN) - 1), unique=True).map(sorted))
def test_frames_are_read_however_they_are_cut(cuts: list[int]) -> None:
    reader = FrameReader()
    bounds = [0, *cuts, len(WRITTEN)]
    pieces = [WRITTEN[start:end] for start, end in itertools.pairwise(bounds)]
    control, events, request = [frame for piece in pieces for frame in reader.feed(piece)]
    assert (control.kind, to_worker.validate_json(control.body)) == (Kind.CONTROL, Cancel(number=3))
    assert (events.kind, list(read_events(events.body))) == (Kind.EVENTS, EVENTS)
    assert (request.kind, read_request(request.body)) == (Kind.REQUEST, (9, 1.5, b'{"n": 1}'))
