"""Programs that would pass without being right: none does, and one that is right does."""

import textwrap
from dataclasses import replace

import pytest

from nanochat.tools.examination import examine
from nanochat.tools.sandbox import Sandbox

TESTS = """
import math

def check(candidate):
    print("a test may print")
    assert candidate([1, 2, 3]) == 6
    assert candidate([]) == 0
    assert candidate([0.5, float("inf")]) == math.inf
    assert candidate([10**30, 1]) == 10**30 + 1
"""

CHEATS = {
    "wrong": "def total(numbers): return 6",
    "nothing": "",
    "no such function": "def sum_of(numbers): return sum(numbers)",
    "not even Python": "def total(numbers",
    "leaving with 0 at once": "import os\nos._exit(0)",
    "leaving with 0 when asked": "def total(numbers):\n    import os\n    os._exit(0)",
    "sys.exit at once": "import sys\nsys.exit(0)",
    "sys.exit when asked": "def total(numbers): raise SystemExit(0)",
    "an interrupt": "def total(numbers): raise KeyboardInterrupt",
    "leaving at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef total(numbers): return 1",
    "a value equal to all": """
        class Same:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
        def total(numbers): return Same()
    """,
    "a number equal to all": """
        class Same(int):
            def __eq__(self, other): return True
            def __hash__(self): return 0
        def total(numbers): return Same(6)
    """,
    "other built-ins": """
        import builtins, math
        builtins.sum = builtins.abs = builtins.all = lambda *_: True
        math.inf = 6
        builtins.AssertionError = ValueError
        def total(numbers): return 6
    """,
    "another check": "def check(candidate): pass\ndef total(numbers): return 6",
    "checks taken out of modules": """
        import sys
        for module in list(sys.modules.values()):
            if hasattr(module, "check"):
                module.check = lambda candidate: None
        def total(numbers): return 6
    """,
    "reading the tests": """
        import gc, re
        text = open("/program/tests.py").read()
        def total(numbers): return eval(re.search(re.escape(repr(numbers)) + r"\\) == (.*)", text)[1])
    """,
    "searching memory for them": """
        import gc, sys
        found = [item for item in gc.get_objects() if "a test may print" in str(item)[:10**4]]
        def total(numbers): return 6 if found else 7
    """,
    "searching frames for them": """
        import sys
        def total(numbers):
            frame = sys._getframe()
            while frame:
                if "candidate" in frame.f_locals or "check" in frame.f_globals:
                    return {3: 6, 0: 0}.get(len(numbers))
                frame = frame.f_back
    """,
    "answering before it is asked": """
        import os
        for fd in range(3, 64):
            try:
                os.write(fd, b'{"value": 6}\\n{"value": 0}\\n' * 9)
            except OSError:
                pass
        def total(numbers): return 6
    """,
    "an end to the conversation": """
        import os
        def total(numbers): os.closerange(0, 64)
    """,
    "an answer without end": """
        import os
        def total(numbers):
            while True: os.write(4, b" " * 65536)
    """,
    "an answer that is no JSON": "import os\ndef total(numbers): os.write(4, b'}\\n')",
    "an answer that is no value": 'import os\ndef total(numbers): os.write(4, b\'{"value": {"magic": 1}}\\n\')',
    "an answer of great depth": "import os\ndef total(numbers): os.write(4, b'{\"value\": ' + b'[' * 10**5 + b'\\n')",
    "raising the end of a loop": "def total(numbers): raise StopIteration",
    "raising what a test raises": "def total(numbers): raise AssertionError",
    "waiting": "import signal\ndef total(numbers): signal.pause()",
    "recursion": "def total(numbers): return total(numbers)",
    "memory": "def total(numbers): return 'x' * 2**40",
    "killing all": "import os\nos.kill(-1, 9)",
}
RIGHT = {
    "plain": "def total(numbers): return sum(numbers)",
    "with a main part": "def total(numbers): return sum(numbers)\nif __name__ == '__main__':\n    raise ValueError",
    "talkative": "def total(numbers):\n    print('adding', numbers, flush=True)\n    return sum(numbers)",
    "with names of ours": "def encoded(x): return x\njson = answer = None\ndef total(numbers): return sum(numbers)",
}


def outcome(sandbox: Sandbox, program: str, tests: str = TESTS, name: str = "total") -> str:
    return examine(sandbox, textwrap.dedent(program), textwrap.dedent(tests), name).outcome


@pytest.fixture(scope="module")
def impatient(sandbox: Sandbox) -> Sandbox:
    return Sandbox(replace(sandbox.limits, wall_s=2.0))


@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_passes(impatient: Sandbox, name: str) -> None:
    assert outcome(impatient, CHEATS[name]) != "ok"


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_program_passes(sandbox: Sandbox, name: str) -> None:
    assert outcome(sandbox, RIGHT[name]) == "ok"


@pytest.mark.parametrize(
    "value",
    [
        *("None", "True", "-3", "10**5000", "0.1", "float('-inf')", "'\\ud800 \\n'", "b'\\xff'", "1j"),
        *("[1, [2.0, ('a', None)]]", "(1,)", "{1, 2}", "frozenset({3})", "{(1, 'a'): [True], 2: {}}", "range(2, 9, 3)"),
        "{'dict': 1, 'value': [{}]}",
    ],
)
def test_plain_data_cross_both_ways_with_their_types(sandbox: Sandbox, value: str) -> None:
    tests = f"""
    def check(candidate):
        value = {value}
        there, kind = candidate(value)
        assert there == value and type(there) is type(value) and kind == type(value).__name__
    """
    assert outcome(sandbox, "def same(value): return value, type(value).__name__", tests, "same") == "ok"


def test_an_iterator_is_its_items_and_an_exception_its_kind(sandbox: Sandbox) -> None:
    tests = """
    def check(candidate):
        assert list(candidate(3)) == [0, 1, 2]
        try:
            candidate("3")
        except TypeError:
            return
        raise AssertionError
    """
    assert outcome(sandbox, "def count(n): return (i for i in list(range(n)))", tests, "count") == "ok"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("def f(): pass", "ok"),
        ("", "error"),
        ("f = 1", "error"),
        ("def f(", "error"),
        ("import os; os._exit(0)", "error"),
    ],
)
def test_even_where_the_tests_ask_nothing_there_must_be_the_function(
    sandbox: Sandbox, program: str, expected: str
) -> None:
    assert outcome(sandbox, program, "def check(candidate): pass", "f") == expected


def test_tests_call_other_functions_of_the_program(sandbox: Sandbox) -> None:
    tests = "def check(candidate):\n    assert [candidate(twice(n)) for n in (1, 2)] == [3, 5]"
    program = "def twice(n): return 2 * n\ndef plus_one(n): return n + 1"
    assert outcome(sandbox, program, tests, "plus_one") == "ok"
