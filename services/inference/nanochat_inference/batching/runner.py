"""The engine's thread: owns the models and their schedulers, runs the steps, and tells every client what became of it.

Other threads hand it commands, which run between two steps; so a request that joins or leaves waits for one step at
most. Calculator calls run in threads of their own (calls.py) and come back as commands, while the other rows go on.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial

import torch

from nanochat.engine.generate import Evaluates
from nanochat.engine.slots import Row
from nanochat.engine.step import run_step
from nanochat.errors import InvalidRequest, Unavailable
from nanochat.protocol.generate import Done, Finished, GenerateError, Started
from nanochat_inference.batching.calls import Calls
from nanochat_inference.batching.request import Request
from nanochat_inference.loaded_model import LoadedModel
from nanochat_inference.metrics import Metrics

log = logging.getLogger(__name__)


class Runner:
    """submit, cancel, use and abort_all may be called from any thread; the rest is the engine thread's own."""

    def __init__(
        self,
        calculator: Evaluates,
        metrics: Metrics,
        *,
        model_name: str,
        max_running: int,
        max_waiting: int,
        num_threads: int,
        call_timeout_s: float = 5.0,
        on_step: Callable[[], None] = lambda: None,
        on_failure: Callable[[int], None] = lambda num_failures: None,
    ) -> None:
        """On the engine's thread on_step is called whenever a step has been told, on_failure when one has failed, with
        the number of those that did one after another, before anybody is told."""
        self._metrics = metrics
        self._model_name = model_name
        self._capacity = max_running + max_waiting
        self._num_threads = num_threads
        self._on_step = on_step
        self._on_failure = on_failure
        self._num_steps = 0
        self._num_failures = 0
        self._is_waiting = False
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._models: list[LoadedModel] = []  # the last one gets the new requests
        self._num_freed = 0
        self._leaks: list[str] = []  # as last found
        self._last_token_at: dict[Row, float] = {}
        self._lock = threading.Lock()
        self._num_open = 0  # choices submitted and not ended; guarded by the lock
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._calls = Calls(calculator, timeout_s=call_timeout_s)

    # From any thread.

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; requests still open get an error. Blocks for a step at most."""
        self.abort_all(Unavailable("the server is stopping; try again."))
        self._commands.put(self._stop)
        self._thread.join()
        self._calls.close()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def num_open(self) -> int:
        """Choices that were accepted and have not ended."""
        return self._num_open

    @property
    def num_steps(self) -> int:
        """Grows while there is work that can go on: what is seen from outside of a thread that hangs."""
        return self._num_steps

    @property
    def is_waiting(self) -> bool:
        """No row can run: there is none, or others are still at work on them."""
        return self._is_waiting

    @property
    def num_freed(self) -> int:
        """Models that were freed so far."""
        return self._num_freed

    def use(self, loaded: LoadedModel) -> None:
        """Make this the newest model. Older ones end what they have begun and are then freed."""
        self._commands.put(partial(self._use, loaded))

    def submit(self, request: Request, loaded: LoadedModel) -> None:
        """Queue a request for a model that use() was called with. Raises Unavailable where the queue is full."""
        n = len(request.sequences)
        if n > self._capacity:
            raise InvalidRequest(f"n is {n}; this server holds {self._capacity} choices at most.", param="n")
        with self._lock:
            if self._num_open + n > self._capacity:
                raise Unavailable(
                    f"all {self._capacity} places are taken by requests that run or wait; try again shortly.",
                    retry_after_s=1,
                )
            self._num_open += n
        self._commands.put(partial(self._add, request, loaded))

    def cancel(self, request: Request) -> None:
        """Free what a request holds, by the next step. Nothing happens to one that has ended."""
        self._commands.put(partial(self._abort, request, None))

    def abort_all(self, reason: Unavailable) -> None:
        """End every request with this error."""
        self._commands.put(partial(self._abort_all, GenerateError(code=reason.code, message=reason.message)))

    # On the engine's thread.

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                self._find_leaks()
                self._take_commands()
                for loaded in self._models:
                    if loaded.scheduler.can_run:
                        self._advance(loaded)
                        self._num_failures = 0
                self._num_steps += 1
                self._free_old_models()
                self._measure()
                self._on_step()
            except Exception:
                log.exception("step_failed")
                self._num_failures += 1
                self._metrics.worker_restarts.inc()
                self._on_failure(self._num_failures)
                self._give_up_all()
        self._on_step()

    def _find_leaks(self) -> None:
        """While nobody is served nothing may be held. Costs a comparison while somebody is; each leak is told once."""
        if self._num_open:
            return
        leaks = [f"{leak} of {loaded.checkpoint}" for loaded in self._models for leak in loaded.scheduler.leaks()]
        if leaks and leaks != self._leaks:
            self._metrics.slot_leaks.inc()
            log.error("slots_leaked", extra={"leaks": leaks})
        self._leaks = leaks

    def _take_commands(self) -> None:
        """Run what others have asked for; sleep until they do where no row can run."""
        if not any(loaded.scheduler.can_run for loaded in self._models):
            self._measure()
            self._on_step()
            self._is_waiting = True
            command = self._commands.get()
            self._is_waiting = False
            command()
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            command()

    def _use(self, loaded: LoadedModel) -> None:
        torch.set_num_threads(loaded.backend.num_torch_threads or self._num_threads)
        self._models.append(loaded)

    def _stop(self) -> None:
        self._is_stopping = True

    def _add(self, request: Request, loaded: LoadedModel) -> None:
        if request.is_closed:  # its client left before it was queued
            self._close(len(request.sequences), "abort")
            return
        if loaded not in self._models:  # it was accepted just before a swap and the old model is gone already
            self._models.insert(0, loaded)
        loaded.scheduler.add(request)

    def _advance(self, loaded: LoadedModel) -> None:
        """One step of one model."""
        for row in loaded.scheduler.admit():
            request = loaded.scheduler.request_of(row)
            self._metrics.request_queue_time.observe(time.monotonic() - request.arrived_at)
            if request.wants_prompt_logprobs and request.prompt_logprobs is None:
                request.prompt_logprobs = row.scores = [None]  # which the steps fill
        rows = loaded.scheduler.runnable()
        num_decoding = loaded.scheduler.num_decoding
        started = time.monotonic()
        step = run_step(loaded.backend, rows, budget=loaded.pace.budget(num_decoding), prefixes=loaded.prefixes)
        now = time.monotonic()
        self._metrics.batch_size.observe(len(step.rows))
        self._metrics.generation_tokens.inc(len(step.sampled))
        for row in step.sampled:
            request = loaded.scheduler.request_of(row)
            if not request.has_started:
                self._begin(loaded, request, row)
            self._time_token(row, request, now)
            if row.sequence.expression is not None:
                self._calls.ask(row.sequence.expression, partial(self._called, loaded, row))
        self._tell(loaded, step.sampled)
        self._on_step()
        loaded.prefixes.keep(step.rows)
        loaded.pace.observe(time.monotonic() - started, num_decoding, step.num_tokens - num_decoding)

    def _begin(self, loaded: LoadedModel, request: Request, row: Row) -> None:
        """A request's first choice has its first token."""
        request.has_started = True
        request.num_cached = row.sequence.num_cached
        self._metrics.prompt_tokens.inc(len(request.prompt_ids))
        self._metrics.prefix_cache_queries.inc(len(request.prompt_ids))
        self._metrics.prefix_cache_hits.inc(request.num_cached)
        request.outbox.append(
            Started(
                model=self._model_name,
                checkpoint=loaded.checkpoint,
                prompt_tokens=len(request.prompt_ids),
                cached_tokens=request.num_cached,
                prompt_logprobs=request.prompt_logprobs,
            )
        )

    def _called(self, loaded: LoadedModel, row: Row, result: str | None) -> None:
        """On a thread of the calls."""
        self._metrics.tool_calls.labels("no_result" if result is None else "result").inc()
        self._commands.put(partial(self._answer, loaded, row, result))

    def _answer(self, loaded: LoadedModel, row: Row, result: str | None) -> None:
        if loaded.scheduler.has(row):  # its client may have left meanwhile
            row.sequence.answer(result)
            self._tell(loaded, [row])

    def _tell(self, loaded: LoadedModel, rows: list[Row]) -> None:
        """Send what rows have to say, and let the finished go."""
        touched: dict[Request, None] = {}
        for row in rows:
            request = loaded.scheduler.request_of(row)
            touched[request] = None
            request.outbox += row.sequence.take_events()
            if row.sequence.finish_reason is not None:
                request.outbox.append(
                    Finished(
                        index=row.sequence.index,
                        finish_reason=row.sequence.finish_reason,
                        completion_tokens=row.sequence.num_sampled,
                    )
                )
                loaded.scheduler.release(row)
                self._last_token_at.pop(row, None)
                self._close(1, row.sequence.finish_reason)
        for request in touched:
            if request.is_finished:
                request.is_closed = True
                request.outbox.append(
                    Done(
                        prompt_tokens=len(request.prompt_ids),
                        completion_tokens=request.num_sampled,
                        cached_tokens=request.num_cached,
                    )
                )
                self._metrics.e2e_request_latency.observe(time.monotonic() - request.arrived_at)
            request.send()

    def _abort(self, request: Request, error: GenerateError | None) -> None:
        """Take a request off: its client left (no error), or it cannot go on."""
        if request.is_closed:
            return
        self._close(self._remove(request), "abort" if error is None else "error")
        if error is not None:
            request.outbox.append(error)
            request.send()

    def _abort_all(self, error: GenerateError) -> None:
        for request in self._open_requests():
            self._abort(request, error)

    def _give_up_all(self) -> None:
        """A step has failed. Who has been told nothing yet is tried again, by whom is not known here."""
        error = GenerateError(
            code="internal_error", message="the model failed in the middle of this answer; ask again."
        )
        for request in self._open_requests():
            if request.has_spoken:
                request.outbox = []  # what the failed step left there
                self._abort(request, error)
            else:
                self._close(self._remove(request), None)
                request.events.give_back()

    def _open_requests(self) -> list[Request]:
        return [request for loaded in self._models for request in loaded.scheduler.requests]

    def _remove(self, request: Request) -> int:
        """Free all that a request holds; returns how many of its choices had not ended."""
        request.is_closed = True
        for row in [row for row in self._last_token_at if row.sequence in request.sequences]:
            del self._last_token_at[row]
        return sum(loaded.scheduler.remove(request) for loaded in self._models)

    def _close(self, num_choices: int, reason: str | None) -> None:
        """None: it has not ended, though it leaves."""
        with self._lock:
            self._num_open -= num_choices
        if reason is not None:
            self._metrics.request_success.labels(reason).inc(num_choices)

    def _free_old_models(self) -> None:
        for loaded in self._models[:-1]:
            if not loaded.scheduler.requests:
                self._models.remove(loaded)
                self._num_freed += 1
                log.info("model_freed", extra={"checkpoint": loaded.checkpoint})

    def _time_token(self, row: Row, request: Request, now: float) -> None:
        last = self._last_token_at.get(row)
        # One by one, as prometheus_client has it: 22 us a step of 32 rows, 0.5% of the smallest model's on a CPU.
        if last is not None:
            self._metrics.inter_token_latency.observe(now - last)
        else:
            self._metrics.time_to_first_token.observe(now - request.arrived_at)
        self._last_token_at[row] = now

    def _measure(self) -> None:
        self._metrics.num_requests_running.set(sum(loaded.scheduler.num_running for loaded in self._models))
        self._metrics.num_requests_waiting.set(sum(loaded.scheduler.num_waiting for loaded in self._models))
        usage = [loaded.cache_usage_ratio for loaded in self._models]
        self._metrics.kv_cache_usage_ratio.set(sum(usage) / len(usage) if usage else 0.0)
