"""One replica: which model it serves now, which requests it accepts, and why it might not.

Turns a request of the protocol into sequences for the engine's thread (batching/runner.py); knows no HTTP (routes.py).
"""

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nanochat.engine.grammar_compiler import Grammar, GrammarCompiler
from nanochat.engine.params import SamplingParams
from nanochat.engine.sequence import Sequence
from nanochat.errors import InvalidRequest, NotFound, Unavailable
from nanochat.jobs.database import Database
from nanochat.protocol.generate import GenerateRequest, ResponseFormat, ServedModel
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_prompt
from nanochat.tools.calculator import Calculator
from nanochat_inference.batching.request import EventQueue, Request
from nanochat_inference.batching.runner import Runner
from nanochat_inference.loaded_model import LoadedModel
from nanochat_inference.metrics import Metrics
from nanochat_inference.model_watcher import FixedModel, ModelSource, ModelWatcher, PromotedModel
from nanochat_inference.settings import InferenceSettings

# Loading takes seconds, and so does a drain behind which another replica stands ready.
_RETRY_LATER_S = 5.0
# Grammars are compiled one at a time; the others wait here, and not where prompts are tokenized.
_GRAMMAR_THREADS = 4


class InferenceService:
    def __init__(self, settings: InferenceSettings) -> None:
        self.settings = settings
        self.metrics = Metrics(settings.common.home_dir)
        self.is_draining = False
        self._current: LoadedModel | None = None
        self._calculator = Calculator()
        self._grammars = GrammarCompiler()
        self._grammar_threads = ThreadPoolExecutor(_GRAMMAR_THREADS, thread_name_prefix="grammar")
        self._runner = Runner(
            self._calculator,
            self.metrics,
            model_name=settings.model,
            max_running=settings.max_running,
            max_waiting=settings.max_waiting,
            num_threads=settings.resolved_num_threads,
        )
        self._watcher = ModelWatcher(_source(settings), settings, self._swap)

    def start(self) -> None:
        self._runner.start()
        self._watcher.start()

    def stop(self) -> None:
        """Blocks for a step of the engine, and for a checkpoint that is being loaded."""
        self._watcher.stop()
        self._runner.stop()
        self._calculator.close()
        self._grammar_threads.shutdown(cancel_futures=True)
        self._grammars.close()

    def begin_drain(self) -> None:
        """Accept nothing new; what runs goes on."""
        self.is_draining = True

    def abort_all(self) -> None:
        """The time for draining is over: whoever still waits is told."""
        self._runner.abort_all(Unavailable("the server is stopping and its time for running requests is over."))

    @property
    def is_idle(self) -> bool:
        return self._runner.num_open == 0

    def unready_reasons(self) -> list[str]:
        """Why this replica should get no requests now; empty when it should."""
        reasons = ["draining: the server was told to stop"] if self.is_draining else []
        if not self._runner.is_alive:
            reasons.append("the engine's thread is not running")
        if not self._watcher.is_alive:
            reasons.append("the thread that follows the choice of model is not running")
        if self._current is None:
            reasons.append(self._watcher.status)
        return reasons

    def info(self) -> ServedModel:
        """Raises Unavailable while there is no model."""
        loaded = self._require_model()
        return ServedModel(
            model=self.settings.model,
            checkpoint=loaded.checkpoint,
            context_length=loaded.context_length,
            vocab_size=loaded.tokenizer.vocab_size,
            num_parameters=loaded.num_parameters,
            created=int(loaded.created),
        )

    def stats(self) -> dict[str, Any]:
        """Load by worker, in the shape of the seed's /stats. A replica is one worker on one device."""
        loaded = self._current
        is_available = not self.unready_reasons() and self._runner.num_open < self.settings.max_running
        worker = {
            "gpu_id": 0,
            "device": str(loaded.device) if loaded else None,
            "checkpoint": loaded.checkpoint if loaded else None,
            "num_open": self._runner.num_open,
            "max_running": self.settings.max_running,
            "max_waiting": self.settings.max_waiting,
        }
        return {
            "total_workers": 1,
            "available_workers": int(is_available),
            "busy_workers": int(self._runner.num_open > 0),
            "workers": [worker],
        }

    async def submit(self, asked: GenerateRequest) -> Request:
        """Queue a request; its events follow. Raises what stands in the way: InvalidRequest, NotFound, Unavailable."""
        if asked.model != self.settings.model:
            raise NotFound(f"no model {asked.model!r}; this server has {self.settings.model!r}.", param="model")
        if self.is_draining:
            raise Unavailable("the server is stopping; try again.", retry_after_s=_RETRY_LATER_S)
        loaded = self._require_model()
        # Tokenizing a long prompt takes milliseconds, which other streams would have to wait.
        sequences = await asyncio.to_thread(_sequences, asked, loaded)
        if asked.response_format is not None:
            grammar = await self._grammar(asked.response_format, loaded.tokenizer)
            for sequence in sequences:
                sequence.grammar = grammar.begin() if grammar is not None else None
        request = Request(sequences, EventQueue(), wants_prompt_logprobs=asked.prompt_logprobs)
        self._runner.submit(request, loaded)
        return request

    async def _grammar(self, response_format: ResponseFormat, tokenizer: Tokenizer) -> Grammar | None:
        """None for plain text. Raises InvalidRequest where it cannot be compiled, or not in time."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._grammar_threads, self._grammars.compile, response_format, tokenizer)

    def cancel(self, request: Request) -> None:
        """Nobody waits for it any more. Harmless once it has ended."""
        self._runner.cancel(request)

    def _require_model(self) -> LoadedModel:
        loaded = self._current
        if loaded is None:
            raise Unavailable(f"no model can answer yet: {self._watcher.status}", retry_after_s=_RETRY_LATER_S)
        return loaded

    def _swap(self, loaded: LoadedModel) -> None:
        """On the watcher's thread: from now on new requests get this model."""
        self._runner.use(loaded)
        self._current = loaded
        self.metrics.set_model(self.settings.model, loaded.checkpoint, loaded.device)


def _source(settings: InferenceSettings) -> ModelSource:
    if settings.checkpoint is not None:
        return FixedModel(settings.checkpoint)
    replica_id = settings.replica_id or f"{socket.gethostname()}-{os.getpid()}"
    database = Database(settings.common.resolved_database_url)
    return PromotedModel(database, settings.common.home_dir, settings.model, replica_id)


def _sequences(asked: GenerateRequest, loaded: LoadedModel) -> list[Sequence]:
    """A sequence for each choice. Raises InvalidRequest or ContextTooLong."""
    params = SamplingParams(
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        min_p=asked.min_p,
        repetition_penalty=asked.repetition_penalty,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        logit_bias=asked.logit_bias,
        seed=asked.seed,
        max_tokens=asked.max_tokens,
        stop=tuple(asked.stop),
        n=asked.n,
        logprobs=asked.logprobs,
    )
    prompt_ids = _prompt_ids(asked, loaded.tokenizer)
    return [
        Sequence(prompt_ids, params, loaded.tokenizer, loaded.context_length, index=index) for index in range(asked.n)
    ]


def _prompt_ids(asked: GenerateRequest, tokenizer: Tokenizer) -> list[int]:
    given = [name for name in ("messages", "prompt", "prompt_token_ids") if getattr(asked, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise InvalidRequest(f"give exactly one of messages, prompt and prompt_token_ids; found {found}.")
    if asked.messages is not None:
        return render_prompt(tokenizer, asked.messages)
    if asked.prompt is not None:
        return [tokenizer.bos_id, *tokenizer.encode(asked.prompt)]
    ids = asked.prompt_token_ids or []
    if not ids:
        raise InvalidRequest("prompt_token_ids is empty; give at least one token.", param="prompt_token_ids")
    wrong = next((token_id for token_id in ids if not 0 <= token_id < tokenizer.vocab_size), None)
    if wrong is not None:
        raise InvalidRequest(
            f"prompt_token_ids has {wrong}; the vocabulary has ids 0 to {tokenizer.vocab_size - 1}.",
            param="prompt_token_ids",
        )
    return ids
