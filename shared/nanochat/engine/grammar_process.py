"""Compiles grammars in a process of its own: python -m nanochat.engine.grammar_process

A schema of a few kilobytes can take hours and any amount of memory to compile, in code that cannot be interrupted; here
it can be killed. Reads a JSON object a line and answers each with one:

    {"tokens": [base64, ...], "stop": id}                      {}
    {"json_object" | "json_schema" | "regex" | "ebnf": text}                   {"compiled": text} or {"error": text}

Ends with its standard input, and by itself when a grammar takes longer than its caller waits.
"""

import base64
import json
import os
import random
import resource
import sys
import tempfile
import time
from typing import Any

import xgrammar

from nanochat.engine.grammar import JSON_KINDS, token_table

# Of processor time for one grammar; the caller waits for less (grammar_compiler.py) and kills this process.
_MAX_SECONDS = 20
_MAX_MEMORY_BYTES = 4 * 2**30
# A grammar whose mask takes longer would hold up every row of the batch at every token.
_MAX_MASK_S = 0.05
_NUM_PROBES = 24


def main() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    # The compiler's warnings go there and nowhere else.
    with tempfile.TemporaryFile() as warnings:
        os.dup2(warnings.fileno(), 2)
    compilers: dict[bool, Any] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        _limit_time()
        if "tokens" in asked:
            tokens = [base64.b64decode(token) for token in asked["tokens"]]
            for is_json in (False, True):
                table = token_table(tokens, asked["stop"], is_json=is_json)
                compilers[is_json] = xgrammar.GrammarCompiler(table, max_threads=1, cache_enabled=False)
            answer: dict[str, str] = {}
        else:
            answer = _compile(compilers, asked)
        print(json.dumps(answer), flush=True)


def _limit_time() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + _MAX_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _compile(compilers: dict[bool, Any], asked: dict[str, str]) -> dict[str, str]:
    (kind,) = asked
    compiler = compilers[kind in JSON_KINDS]
    try:
        match kind:
            case "json_schema":
                # No choice of white space: a small model would go on with it for ever.
                compiled = compiler.compile_json_schema(asked[kind], any_whitespace=False)
            case "json_object":
                compiled = compiler.compile_json_schema(asked[kind], any_whitespace=False, strict_mode=False)
            case "regex":
                compiled = compiler.compile_regex(asked[kind])
            case _:
                compiled = compiler.compile_grammar(asked[kind])
    except (RuntimeError, ValueError) as exc:
        return {"error": _reason(str(exc))}
    warnings = _take_warnings()
    if warnings:  # of what it has left out
        return {"error": _reason(warnings).removeprefix("Warning: ")}
    if not _is_quick(compiled):
        return {"error": "its tokens take too long to check; simplify it, for instance its repetitions"}
    return {"compiled": compiled.serialize_json()}


def _reason(message: str) -> str:
    """Without where it was found: "[time] /project/file.cc:123: the reason"."""
    line = message.strip().splitlines()[0]
    return line.rpartition(".cc:")[2].partition(": ")[2] or line


def _take_warnings() -> str:
    """What the compiler wrote to this process's standard error since the last time."""
    sys.stderr.flush()
    size = os.lseek(2, 0, os.SEEK_CUR)
    text = os.pread(2, size, 0).decode(errors="replace")
    os.ftruncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)
    return text


def _is_quick(compiled: Any) -> bool:
    """Walk at random through the grammar and look how long its masks take."""
    rng = random.Random(0)
    matcher = xgrammar.GrammarMatcher(compiled)
    V = compiled.tokenizer_info.vocab_size
    masks = xgrammar.allocate_token_bitmask(1, V)
    num_slow = 0
    for _ in range(_NUM_PROBES):
        start = time.process_time()
        matcher.fill_next_token_bitmask(masks, 0)
        num_slow += time.process_time() - start > _MAX_MASK_S
        words = enumerate(masks[0].tolist())
        allowed = [word * 32 + bit for word, bits in words if bits for bit in range(32) if bits >> bit & 1]
        allowed = [token_id for token_id in allowed if token_id < V]
        if not allowed:
            break
        matcher.accept_token(rng.choice(allowed))
        if matcher.is_terminated():
            break
    return num_slow <= 2


if __name__ == "__main__":
    main()
