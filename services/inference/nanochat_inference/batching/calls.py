"""Calculator calls beside the engine's thread: a few at once, and each answered in time, whatever the calculator does.

The calculator has limits of its own (nanochat.tools); this holds where they fail. A call that is not over by its
deadline has no result, also when it has only waited for others that hang.
"""

import logging
import queue
import threading
from collections.abc import Callable

from nanochat.engine.generate import Evaluates

log = logging.getLogger(__name__)

Answer = Callable[[str | None], None]


class Calls:
    """ask() may be called from any thread. Every answer is given once, from a thread of this class."""

    def __init__(self, calculator: Evaluates, *, num_threads: int = 4, timeout_s: float = 5.0) -> None:
        self._calculator = calculator
        self._timeout_s = timeout_s
        self._waiting: queue.SimpleQueue[tuple[str, _Call] | None] = queue.SimpleQueue()
        # Daemons: one that hangs must not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._run, name=f"calculator-{i}", daemon=True) for i in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, expression: str, answer: Answer) -> None:
        """`answer` gets the value as text, or None where there is none by the deadline."""
        self._waiting.put((expression, _Call(answer, self._timeout_s)))

    def close(self) -> None:
        """End the threads that do not hang. What waits is still answered."""
        for _ in self._threads:
            self._waiting.put(None)

    def _run(self) -> None:
        while (asked := self._waiting.get()) is not None:
            expression, call = asked
            if call.is_over:
                continue
            result: str | None = None
            try:
                result = self._calculator.evaluate(expression)
            except Exception:
                log.exception("calculator_failed")
            finally:
                call.end(result)


class _Call:
    """Ends once: with a result, or at its deadline without."""

    def __init__(self, answer: Answer, timeout_s: float) -> None:
        self._answer = answer
        self._lock = threading.Lock()
        self.is_over = False
        self._deadline = threading.Timer(timeout_s, self.end, args=(None,))
        self._deadline.daemon = True
        self._deadline.start()

    def end(self, result: str | None) -> None:
        with self._lock:
            if self.is_over:
                return
            self.is_over = True
        self._deadline.cancel()
        self._answer(result)
