"""The two sides of an examination, each in a sandbox of its own: python examination.py answer | ask NAME.

`answer` imports program.py, which nobody has read, says which functions it has, and calls them as it is asked to. `ask`
imports tests.py and runs its `check(candidate)`; the candidate, and every function that the tests use without defining
it, is one of the other side. A line of JSON is a call or an answer. Only plain data cross, and neither side runs the
other's code: so it is the tests' side that compares, and it ends well only where the tests came to their end.
"""

import builtins
import collections.abc
import importlib
import itertools
import json
import os
import sys
import types
from typing import Any, TextIO

_MAX_ITEMS = 100_000  # of an iterator, which is sent as its items
_SEQUENCES: dict[str, type[tuple[Any, ...] | set[Any] | frozenset[Any]]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


def answer() -> None:
    """Until nobody asks any more."""
    asked, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    # What the program prints and reads is no part of the conversation.
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    sys.set_int_max_str_digits(0)
    program = importlib.import_module("program")
    _say(answers, json.dumps([name for name, value in vars(program).items() if callable(value)]))
    for line in asked:
        name, arguments = json.loads(line)
        try:
            value = getattr(program, name)(*decoded(arguments))
            reply = json.dumps({"value": encoded(value)})
        except Exception as exc:  # noqa: BLE001 - whatever a program raises is its answer
            reply = json.dumps({"raised": type(exc).__name__, "message": ascii(exc)})
        _say(answers, reply)


def ask(name: str) -> None:
    """Raises what the tests raise, so that this process fails with them."""
    # What the tests print would be taken for a call.
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for as long as this process lives
    sys.set_int_max_str_digits(0)
    tests = importlib.import_module("tests")
    offered = json.loads(_heard())
    if name not in offered:
        raise NameError(f"the program has no function {name}")
    for used in _names(tests.check.__code__).intersection(offered):
        if not hasattr(tests, used) and not hasattr(builtins, used):
            setattr(tests, used, Remote(used))
    tests.check(Remote(name))


class Remote:
    """A function of the other side."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: object) -> object:
        _say(sys.__stdout__, json.dumps([self.name, encoded(arguments)]))
        reply = json.loads(_heard())
        if "raised" in reply:
            raise _exception(str(reply["raised"]))(str(reply.get("message")))
        return decoded(reply["value"])


def encoded(value: object) -> Any:
    """As JSON that keeps the types of plain data; subclasses become what they derive from. Raises TypeError."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list):
        return [encoded(item) for item in value]
    for name, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            return {name: [encoded(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encoded(key), encoded(item)] for key, item in value.items()]}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, collections.abc.Iterator):
        return {"iterator": [encoded(item) for item in itertools.islice(value, _MAX_ITEMS)]}
    raise TypeError(f"a {type(value).__name__} is no plain data")


def decoded(value: Any) -> Any:
    """What `encoded` was given. Raises ValueError for what is not of its making."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((name, content),) = value.items()
    if name == "dict":
        return {decoded(key): decoded(item) for key, item in content}
    if name == "bytes":
        return bytes.fromhex(content)
    items = decoded(content)
    if name in _SEQUENCES:
        return _SEQUENCES[name](items)
    if name == "complex":
        return complex(*items)
    if name == "range":
        return range(*items)
    if name == "iterator":
        return iter(items)
    raise ValueError(f"{name!r} is no kind of data")


def _exception(name: str) -> type[Exception]:
    """The built-in exception of that name, which tests may expect. StopIteration would end a loop over calls early."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and kind is not StopIteration:
        return kind
    return RuntimeError


def _names(code: types.CodeType) -> set[str]:
    """All that code, and code within it, may look up as a global."""
    return set(code.co_names).union(*(_names(each) for each in code.co_consts if isinstance(each, types.CodeType)))


def _say(stream: TextIO | None, line: str) -> None:
    assert stream is not None
    stream.write(line + "\n")
    stream.flush()


def _heard() -> str:
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        raise EOFError("the program has ended")
    return line


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib takes 5 ms
    if sys.argv[1] == "ask":
        ask(sys.argv[2])
    else:
        answer()
