"""response_format to a grammar: compiled in a process of its own, within bounds, and kept for the next request.

The process starts with the first request that asks for a format, and again after it had to be killed.
"""

import base64
import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nanochat.engine.grammar import JSON_KINDS, GrammarState, load_xgrammar, token_table
from nanochat.engine.json_schemas import check_schema
from nanochat.errors import InvalidRequest, Unavailable
from nanochat.protocol.generate import ChoiceFormat, JsonObjectFormat, JsonSchemaFormat, RegexFormat, ResponseFormat
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.special import ASSISTANT_END

if TYPE_CHECKING:
    import xgrammar

MAX_SCHEMA_BYTES = 64 * 1024
_NUM_KEPT = 64
# Starting the process includes importing torch.
_START_TIMEOUT_S = 60.0

_Key = tuple[Tokenizer, str]  # and what is asked for, as JSON


class Grammar:
    """A compiled response_format for one tokenizer. Any number of rows may begin it."""

    def __init__(self, compiled: "xgrammar.CompiledGrammar") -> None:
        self._compiled = compiled

    def begin(self) -> GrammarState:
        return GrammarState(self._compiled)


class GrammarCompiler:
    """Safe to call from several threads; one grammar is compiled at a time. Close it, or use it in a `with` block."""

    def __init__(self, *, timeout_s: float = 10.0) -> None:
        self._timeout_s = timeout_s
        self._kept: OrderedDict[_Key, Grammar] = OrderedDict()
        self._kept_lock = threading.Lock()
        self._process_lock = threading.Lock()
        self._process: _Process | None = None

    def compile(self, response_format: ResponseFormat, tokenizer: Tokenizer) -> Grammar | None:
        """None for plain text. Blocks up to twice `timeout_s`, and a start of the process at times.

        Raises InvalidRequest where the format is no grammar or takes too long, Unavailable where others are first.
        """
        source = _source(response_format)
        if source is None:
            return None
        key = (tokenizer, json.dumps(source))
        if (kept := self._find(key)) is not None:
            return kept
        load_xgrammar()
        if not self._process_lock.acquire(timeout=self._timeout_s):
            raise Unavailable("other response_formats are being compiled; try again shortly.", retry_after_s=5)
        try:
            if (kept := self._find(key)) is not None:  # another thread asked for the same meanwhile
                return kept
            grammar = Grammar(self._compile(source, tokenizer))
            self._keep(key, grammar)
        finally:
            self._process_lock.release()
        return grammar

    def close(self) -> None:
        """End the process. Waits for a grammar that is being compiled."""
        with self._process_lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _find(self, key: _Key) -> Grammar | None:
        with self._kept_lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: _Key, grammar: Grammar) -> None:
        with self._kept_lock:
            self._kept[key] = grammar
            while len(self._kept) > _NUM_KEPT:
                self._kept.popitem(last=False)

    def _compile(self, source: dict[str, str], tokenizer: Tokenizer) -> "xgrammar.CompiledGrammar":
        if self._process is None or self._process.tokenizer is not tokenizer or not self._process.is_alive:
            self._end()
            self._process = _Process(tokenizer)
        try:
            answer = self._process.ask(source, self._timeout_s)
        except (TimeoutError, OSError) as exc:
            self._end()
            raise InvalidRequest(
                f"response_format takes over {self._timeout_s:g} s or too much memory to compile; simplify it, for "
                "instance its repetitions and nesting.",
                param="response_format",
            ) from exc
        if "error" in answer:
            raise InvalidRequest(
                f"response_format cannot be compiled: {answer['error'].rstrip('.')}.", param="response_format"
            )
        (kind,) = source
        table = self._process.tables[kind in JSON_KINDS]
        compiled: xgrammar.CompiledGrammar = load_xgrammar().CompiledGrammar.deserialize_json(answer["compiled"], table)
        return compiled

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None


class _Process:
    """grammar_process.py, told of one tokenizer. Raises OSError where it breaks off."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        tokens = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_size)]
        stop_id = tokenizer.special_id(ASSISTANT_END)
        self.tables = {is_json: token_table(tokens, stop_id, is_json=is_json) for is_json in (False, True)}
        command = [sys.executable, "-m", "nanochat.engine.grammar_process"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        vocabulary = {"tokens": [base64.b64encode(token).decode() for token in tokens], "stop": stop_id}
        try:
            self.ask(vocabulary, _START_TIMEOUT_S)
        except (TimeoutError, OSError) as exc:
            self.kill()
            raise Unavailable(
                "the process that compiles response_formats did not start; the server's log has the reason."
            ) from exc

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, str]:
        """Raises TimeoutError."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        end = time.monotonic() + timeout_s
        line = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise TimeoutError
                data = os.read(self._process.stdout.fileno(), 2**20)
                if not data:
                    raise BrokenPipeError("the process ended")
                line += data
        answer: dict[str, str] = json.loads(line)
        return answer

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what it had not read
                    pipe.close()


def _source(response_format: ResponseFormat) -> dict[str, str] | None:
    """What grammar_process.py is asked. Raises InvalidRequest for a schema too long, or with what would be ignored."""
    match response_format:
        case JsonObjectFormat():
            return {"json_object": '{"type": "object"}'}
        case JsonSchemaFormat():
            schema = json.dumps(response_format.json_schema.schema_)
            if len(schema) > MAX_SCHEMA_BYTES:
                raise InvalidRequest(
                    f"response_format has a schema of {len(schema)} bytes; at most {MAX_SCHEMA_BYTES} are taken. "
                    "Shorten it.",
                    param="response_format.json_schema.schema",
                )
            check_schema(response_format.json_schema.schema_)
            return {"json_schema": schema}
        case RegexFormat():
            return {"regex": response_format.regex}
        case ChoiceFormat():
            # Each text as a JSON string is one of xgrammar's too.
            return {"ebnf": "root ::= " + " | ".join(json.dumps(text) for text in response_format.choices)}
        case _:
            return None
