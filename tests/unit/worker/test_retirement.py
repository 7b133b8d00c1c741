"""When a worker ends by itself, and that it takes nothing it would not finish."""

import signal
import threading

from nanochat_worker.retirement import Retirement, terminate


class Ends:
    """Counts how often the worker was ended, on a clock that the test sets."""

    def __init__(self) -> None:
        self.num = 0
        self.now = 0.0

    def __call__(self) -> None:
        self.num += 1

    def retirement(self, max_jobs: int = 0, idle_timeout_s: float = 0.0) -> Retirement:
        return Retirement(max_jobs=max_jobs, idle_timeout_s=idle_timeout_s, end=self, clock=lambda: self.now)


def test_by_default_a_worker_never_ends() -> None:
    ends = Ends()
    retirement = ends.retirement()
    for _ in range(100):
        assert retirement.begin()
        retirement.ended(was_run=True)
    assert ends.num == 0 and not retirement.is_over


def test_ends_with_its_last_job_and_takes_no_other() -> None:
    ends = Ends()
    retirement = ends.retirement(max_jobs=2)
    assert retirement.begin() and retirement.begin()
    assert not retirement.begin()
    retirement.ended(was_run=True)
    assert ends.num == 0
    retirement.ended(was_run=True)
    assert ends.num == 1 and retirement.is_over
    assert not retirement.begin()


def test_a_message_whose_job_was_taken_elsewhere_does_not_count() -> None:
    ends = Ends()
    retirement = ends.retirement(max_jobs=1)
    assert retirement.begin()
    retirement.ended(was_run=False)
    assert ends.num == 0
    assert retirement.begin()
    retirement.ended(was_run=True)
    assert ends.num == 1


def test_ends_after_the_timeout_without_a_job_and_never_during_one() -> None:
    ends = Ends()
    retirement = ends.retirement(idle_timeout_s=60)
    ends.now = 59
    assert not retirement.look()
    assert retirement.begin()
    ends.now = 1000
    assert not retirement.look()
    retirement.ended(was_run=True)
    ends.now = 1059
    assert not retirement.look()
    ends.now = 1060
    assert retirement.look()
    assert ends.num == 1
    assert not retirement.begin()


def test_terminate_reaches_the_main_thread() -> None:
    seen = []
    old = signal.signal(signal.SIGTERM, lambda number, _: seen.append((number, threading.current_thread())))
    try:
        other = threading.Thread(target=terminate)
        other.start()
        other.join()
    finally:
        signal.signal(signal.SIGTERM, old)
    assert seen == [(signal.SIGTERM, threading.main_thread())]
