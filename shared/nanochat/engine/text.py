"""Bytes of tokens to text that may be shown: whole characters, nothing that may yet turn out to be a stop string.

Knows nothing of tokens' meaning; sequence.py says what is plain text and what is a tool's.
"""

import codecs


class TextStream:
    """Grows by bytes and releases characters. `text` is all that was released.

    Bytes that are no UTF-8 become U+FFFD. A character still incomplete at the end is left out.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self.text = ""
        self.is_stopped = False
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    @property
    def position(self) -> int:
        """Characters so far, held ones included: where the next whole character will stand."""
        return len(self.text) + len(self._held)

    def push(self, data: bytes, *, may_stop: bool = True) -> None:
        """Add bytes of a token. With may_stop, a stop string ends the text before its first character."""
        assert not self.is_stopped, "text goes on after a stop string"
        characters = self._decoder.decode(data)
        if not may_stop or not self._stop:
            self.text += characters
            return
        self._held += characters
        found = [at for at in map(self._held.find, self._stop) if at >= 0]
        if found:
            self.text += self._held[: min(found)]
            self._held = ""
            self.is_stopped = True
            return
        keep = self._num_to_hold()
        self.text += self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]

    def write(self, text: str) -> None:
        """Add text that no stop string ends."""
        self.flush()
        self.text += text

    def flush(self) -> None:
        """Release what is held, as a stop string can no longer come of it: a tool's text follows.

        An incomplete character becomes U+FFFD, since it never will be complete.
        """
        self.text += self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        self._decoder.reset()

    def finish(self) -> None:
        """The end: release what is held, leave out an incomplete character."""
        self.text += self._held
        self._held = ""

    def _num_to_hold(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = min(max(map(len, self._stop)) - 1, len(self._held))
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0
