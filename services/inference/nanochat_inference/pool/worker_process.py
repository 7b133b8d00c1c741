"""A worker: one device, its models, and the engine's thread. It has no address, only a channel to the process that
started it, and ends with it.

    python -m nanochat_inference.pool.worker_process FD PARENT_PID

Threads: this module's own, which reads the channel; the engine's (batching/runner.py), sole owner of models and
sequences; a loader; two that tokenize; some that wait for a grammar; one that writes (outbox.py); one that beats; a
few for the calculator.
"""

import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from nanochat.engine.grammar_compiler import GrammarCompiler
from nanochat.errors import NanochatError, Unavailable
from nanochat.native import library
from nanochat.observability.logs import setup_logs
from nanochat.protocol.generate import GenerateRequest, ResponseFormat, ServedModel
from nanochat.tools.calculator import Calculator
from nanochat_inference import gpu
from nanochat_inference.batching.request import Request
from nanochat_inference.batching.runner import Runner
from nanochat_inference.loaded_model import LoadedModel, resolve_device
from nanochat_inference.metrics import Metrics
from nanochat_inference.pool import totals
from nanochat_inference.pool.frames import (
    Accepted,
    Beat,
    Cancel,
    Configure,
    Drop,
    Frame,
    FrameReader,
    Hello,
    Kind,
    Load,
    Loaded,
    Measure,
    NotLoaded,
    Rejected,
    Use,
    read_request,
    to_worker,
)
from nanochat_inference.pool.outbox import Outbox, Outlet
from nanochat_inference.pool.usage import UsageCollector
from nanochat_inference.preparation import sequences

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_RECEIVE_BYTES = 2**16
_PREPARING_THREADS = 2
# Requests whose grammar is looked up or waited for; one is compiled at a time.
_CONSTRAINING_THREADS = 8
# Steps that fail one after another: the device is lost, or its memory is; a new process finds it as it was. Fewer than
# a request has attempts (pool.py), so that one that was in all of them still meets the new process.
_MAX_FAILURES = 3
_BROKEN_STATUS = 70  # sysexits.h: EX_SOFTWARE
# What a step has said leaves on another thread, which a small model's engine would otherwise hold up for 5 ms, several
# steps long: its work is Python for the most part. Larger models let go of the interpreter in every step.
_SWITCH_INTERVAL_S = 0.0005


class Worker:
    """What the channel asks for, done. Everything here but the marked methods is for the thread that reads it."""

    def __init__(self, channel: socket.socket, configure: Configure) -> None:
        self._configure = configure
        settings = configure.settings
        self._settings = settings
        self._device = resolve_device(settings.device)
        if self._device.type == "cpu":
            _prepare_kernels()
        self._outbox = Outbox(channel)
        self._metrics = Metrics()
        gpu.register_metrics(self._metrics.registry, self._device)
        self._metrics.registry.register(UsageCollector(configure.worker, str(self._device)))
        self._calculator = Calculator()
        self._runner = Runner(
            self._calculator,
            self._metrics,
            model_name=settings.model,
            max_running=settings.max_running,
            max_waiting=configure.capacity,
            num_threads=settings.resolved_num_threads,
            on_step=self._outbox.flush,
            on_failure=self._end_if_broken,
        )
        self._current: LoadedModel | None = None
        self._loaded: tuple[str, LoadedModel] | None = None  # and not in use yet
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._grammars = GrammarCompiler()
        self._constraining = ThreadPoolExecutor(_CONSTRAINING_THREADS, thread_name_prefix="constraining")
        self._preparing = ThreadPoolExecutor(_PREPARING_THREADS, thread_name_prefix="preparing")
        self._requests: dict[int, Request | None] = {}  # None while it is prepared; guarded by the lock
        self._lock = threading.Lock()
        self._num_idle = 0  # beats with nothing for the engine to do
        self._load_progress = 0  # the loader's thread alone adds to it
        self._is_stopping = threading.Event()

    def start(self) -> None:
        self._runner.start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        self._outbox.post(Hello(device=str(self._device)))

    def stop(self) -> None:
        """The replica's process has closed the channel, or is gone: nobody waits for anything."""
        self._is_stopping.set()
        self._preparing.shutdown(cancel_futures=True)
        self._constraining.shutdown(wait=False, cancel_futures=True)
        self._runner.stop()
        self._calculator.close()
        self._grammars.close()

    def take(self, frame: Frame) -> None:
        if frame.kind is Kind.REQUEST:
            self._generate(*read_request(frame.body))
            return
        message = to_worker.validate_json(frame.body)
        if isinstance(message, Cancel):
            self._cancel(message.number)
        elif isinstance(message, Load):
            self._loader.submit(self._load, message.reference, message.folder)
        elif isinstance(message, Use):
            self._use(message.reference)
        elif isinstance(message, Drop):
            self._loader.submit(self._drop)
        elif isinstance(message, Measure):
            self._outbox.post(self._state())

    def _generate(self, number: int, arrived_at: float, body: bytes) -> None:
        assert self._current is not None, "a request before a model"
        with self._lock:
            self._requests[number] = None
        prepare = partial(self._prepare, number, arrived_at, body, self._current)
        self._preparing.submit(self._attempt, number, prepare)

    def _attempt(self, number: int, work: Callable[[], None]) -> None:
        """On some thread. A request that fails before it has begun is told so."""
        try:
            work()
        except NanochatError as exc:
            self._reject(number, exc)
        except Exception:
            log.exception("request_not_prepared")
            self._reject(number, NanochatError("the inference service failed on this request; its log has the reason."))

    def _prepare(self, number: int, arrived_at: float, body: bytes, loaded: LoadedModel) -> None:
        """On a thread that tokenizes: a long prompt takes milliseconds."""
        asked = GenerateRequest.model_validate_json(body)
        choices = sequences(asked, loaded)
        outlet = Outlet(self._outbox, number, self._configure.worker, self._forget)
        request = Request(choices, outlet, wants_prompt_logprobs=asked.prompt_logprobs)
        request.arrived_at = arrived_at
        if asked.response_format is None:
            self._queue(number, request, loaded)
        else:  # seconds, which requests without one shall not wait for
            constrain = partial(self._constrain, number, request, loaded, asked.response_format)
            self._constraining.submit(self._attempt, number, constrain)

    def _constrain(self, number: int, request: Request, loaded: LoadedModel, response_format: ResponseFormat) -> None:
        """On a thread that waits for a grammar."""
        grammar = self._grammars.compile(response_format, loaded.tokenizer)
        for sequence in request.sequences:
            sequence.grammar = grammar.begin() if grammar is not None else None
        self._queue(number, request, loaded)

    def _queue(self, number: int, request: Request, loaded: LoadedModel) -> None:
        with self._lock:
            if number not in self._requests:  # its client has left meanwhile
                return
            self._requests[number] = request
        self._outbox.post(Accepted(number=number, prompt_tokens=len(request.prompt_ids)))
        self._runner.submit(request, loaded)

    def _reject(self, number: int, exc: NanochatError) -> None:
        self._forget(number)
        self._outbox.post(
            Rejected(
                number=number, code=exc.code, message=exc.message, param=exc.param, retry_after_s=exc.retry_after_s
            )
        )

    def _cancel(self, number: int) -> None:
        with self._lock:
            request = self._requests.pop(number, None)
        if request is not None:
            self._runner.cancel(request)

    def _forget(self, number: int) -> None:
        """From any thread."""
        with self._lock:
            self._requests.pop(number, None)

    def _load(self, reference: str, folder: Path) -> None:
        """On the loader's thread, beside what is in service."""
        try:
            loaded = LoadedModel.load(folder, self._settings, self._note_progress)
        except NanochatError as exc:
            self._outbox.post(NotLoaded(reference=reference, code=exc.code, message=exc.message))
        except Exception as exc:
            log.exception("model_not_loaded", extra={"checkpoint": reference})
            self._outbox.post(NotLoaded(reference=reference, code=NanochatError.code, message=repr(exc)))
        else:
            self._loaded = reference, loaded
            self._outbox.post(Loaded(reference=reference, served=self._served(loaded)))

    def _note_progress(self) -> None:
        self._load_progress += 1

    def _drop(self) -> None:
        self._loaded = None
        _give_back_memory()

    def _served(self, loaded: LoadedModel) -> ServedModel:
        return ServedModel(
            model=self._settings.model,
            checkpoint=loaded.checkpoint,
            context_length=loaded.context_length,
            vocab_size=loaded.tokenizer.vocab_size,
            num_parameters=loaded.num_parameters,
            created=int(loaded.created),
        )

    def _use(self, reference: str) -> None:
        assert self._loaded is not None and self._loaded[0] == reference, f"{reference} is not loaded"
        self._current = self._loaded[1]
        self._loaded = None
        self._runner.use(self._current)

    def _state(self) -> Beat:
        self._num_idle += self._runner.is_waiting  # whoever prepares requests is not the engine
        return Beat(
            progress=self._runner.num_steps + self._num_idle,
            load_progress=self._load_progress,
            metrics=totals.snapshot(self._metrics.registry),
        )

    def _beat(self) -> None:
        """On the heartbeat's thread."""
        num_freed = 0
        while not self._is_stopping.wait(self._configure.beat_interval_s):
            if not self._runner.is_alive and not self._is_stopping.is_set():  # in this order: stop() is the other way
                log.critical("engine_ended")
                os._exit(_BROKEN_STATUS)
            if (now_freed := self._runner.num_freed) > num_freed:
                num_freed = now_freed
                _give_back_memory()
                log.info("memory_given_back", extra={"num_models": num_freed})
            self._outbox.post(self._state())

    def _end_if_broken(self, num_failures: int) -> None:
        """On the engine's thread, before it would give everything back: what becomes of it is a lost worker's."""
        if num_failures >= _MAX_FAILURES:
            log.critical("engine_broken", extra={"num_failures": num_failures})
            os._exit(_BROKEN_STATUS)


def _prepare_kernels() -> None:
    """Before the first load, which would not go on while they are compiled."""
    with contextlib.suppress(Unavailable):  # they are not needed either, or whoever needs them says why not
        library.load()


def _give_back_memory() -> None:
    """A model was freed: what the allocators keep of it goes back, or every swap would leave some behind."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def main(arguments: list[str]) -> int:
    channel = socket.socket(fileno=int(arguments[0]))
    channel.set_inheritable(False)
    if sys.platform == "linux":  # elsewhere the end of the channel has to do
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(arguments[1]):  # it died before the line above
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    reader = FrameReader()
    worker: Worker | None = None
    while data := _received(channel):
        for frame in reader.feed(data):
            if worker is None:
                worker = _configured(channel, frame)
                worker.start()
            else:
                worker.take(frame)
    if worker is not None:
        worker.stop()
    os._exit(0)  # whatever the loader is at


def _configured(channel: socket.socket, frame: Frame) -> Worker:
    configure = to_worker.validate_json(frame.body)
    assert isinstance(configure, Configure)
    setup_logs("inference", configure.settings.common.log_level)
    logging.setLogRecordFactory(partial(_record, configure.worker, logging.getLogRecordFactory()))
    return Worker(channel, configure)


def _record(
    worker: int, make: Callable[..., logging.LogRecord], *arguments: object, **fields: object
) -> logging.LogRecord:
    """Every line says which worker's it is."""
    record = make(*arguments, **fields)
    record.worker = worker
    return record


def _received(channel: socket.socket) -> bytes:
    """Empty at the end."""
    try:
        return channel.recv(_RECEIVE_BYTES)
    except ConnectionError:
        return b""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
