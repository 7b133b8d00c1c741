"""Whether a generated function passes tests that somebody trusted wrote, however it tries to seem so.

The function and the tests run in two sandboxes that exchange arguments and results as plain data
(inside/examination.py). The program never sees the tests, so it cannot end them, replace them or read what they expect,
and a result that claims to be equal to everything does not cross.
"""

from pathlib import Path

from nanochat.tools.sandbox import Program, Result, Sandbox, encoded

_SCRIPT = Path(__file__).parent / "inside" / "examination.py"


def examine(sandbox: Sandbox, program: str, tests: str, name: str) -> Result:
    """Hold function `name` of a program against `tests`, which define `check(candidate)` and raise where it fails.

    Passed where the outcome is "ok". Other functions of the program may be called in the tests by their names. Takes
    about 40 ms. Raises Unavailable where nothing can be started.
    """
    script = _SCRIPT.read_bytes()
    return sandbox.run_with_peer(
        Program(
            files={"examination.py": script, "tests.py": encoded(tests)}, arguments=["examination.py", "ask", name]
        ),
        Program(
            files={"examination.py": script, "program.py": encoded(program)}, arguments=["examination.py", "answer"]
        ),
    )
