"""Lets a worker end by itself: after so many jobs, or so long without one.

For workers that something else starts when there is work, as Kubernetes does with Jobs: nobody has to choose which of
them may go, so no run is ever interrupted because there is less to do. The end is that of SIGTERM.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_POLL_S = 0.5


def terminate() -> None:
    """As if somebody had sent SIGTERM, to the thread that acts upon it."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGTERM)


class Retirement:
    """Counts jobs, in any thread. 0 for either bound: never for that reason."""

    def __init__(
        self,
        *,
        max_jobs: int,
        idle_timeout_s: float,
        end: Callable[[], None] = terminate,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_jobs = max_jobs
        self._idle_timeout_s = idle_timeout_s
        self._end = end
        self._clock = clock
        self._lock = threading.Lock()
        self._num_taken = 0  # jobs begun, those that run included
        self._num_running = 0
        self._idle_since = clock()
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether the worker ends of its own accord."""
        return self._is_over

    def start(self) -> None:
        """From now on messages are taken, and without them time passes."""
        self._idle_since = self._clock()
        if self._idle_timeout_s:
            threading.Thread(target=self._watch, name="retirement", daemon=True).start()

    def begin(self) -> bool:
        """Whether one more job may begin; then ended() must follow. Otherwise it is another worker's."""
        with self._lock:
            if self._is_over or (self._max_jobs and self._num_taken >= self._max_jobs):
                return False
            self._num_taken += 1
            self._num_running += 1
            return True

    def ended(self, *, was_run: bool) -> None:
        """A message whose job was another worker's does not count."""
        with self._lock:
            self._num_running -= 1
            self._num_taken -= not was_run
            self._idle_since = self._clock()
            is_last = bool(self._max_jobs) and self._num_taken >= self._max_jobs and not self._num_running
        if is_last:
            self._retire("its last job has ended")

    def look(self) -> bool:
        """Retire if there has been no job for too long; whether it is so."""
        with self._lock:
            idle_s = 0.0 if self._num_running else self._clock() - self._idle_since
            if self._is_over or idle_s < self._idle_timeout_s:
                return self._is_over
            self._is_over = True  # before a message comes in between
        self._retire(f"no job came for {idle_s:.0f} s")
        return True

    def _retire(self, reason: str) -> None:
        self._is_over = True
        log.info("worker_retires", extra={"reason": reason})
        self._end()

    def _watch(self) -> None:
        while not self.look():
            time.sleep(_POLL_S)
