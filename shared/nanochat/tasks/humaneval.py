"""HumanEval: a Python function is written from its signature and its docstring, and judged by running tests.

The benchmark is OpenAI's (arXiv 2107.03374, MIT). The tests run in the sandbox (tools/examination.py).
"""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from nanochat.cores import usable_cores
from nanochat.protocol.generate import Message
from nanochat.tasks.base import Conversation, Row, Split
from nanochat.tasks.benchmark import Benchmark, checked
from nanochat.tools.examination import examine
from nanochat.tools.sandbox import Sandbox

_FENCED = re.compile(r"```[^\n`]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


class Problem(BaseModel):
    """A row of the benchmark. `prompt` ends with the docstring; `test` defines check(candidate)."""

    model_config = ConfigDict(frozen=True, strict=True)

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str


@dataclass(frozen=True, kw_only=True)
class ProblemConversation(Conversation):
    """The prompt, and the function with the benchmark's own solution as the assistant's answer."""

    problem: Problem


class HumanEval(Benchmark):
    is_checkable = True
    max_answer_tokens = 512
    published: ClassVar[Mapping[Split, tuple[str, ...]]] = {"held_out": ("test", "HumanEval")}

    def conversation(self, row: Row) -> ProblemConversation:
        problem = checked(Problem, row)
        solution = problem.prompt + problem.canonical_solution
        return ProblemConversation(
            messages=[Message(role="user", content=problem.prompt), Message(role="assistant", content=solution)],
            answer=solution,
            problem=problem,
        )

    def prepare(self) -> None:
        assert self._sandbox

    def reward(self, conversation: Conversation, text: str) -> float:
        """1.0 if the program in `text` passes the problem's tests, else 0.0. Raises Unavailable without a sandbox."""
        assert isinstance(conversation, ProblemConversation)
        problem = conversation.problem
        imports = imports_of(problem.prompt)
        program, tests = f"{imports}\n\n{program_in(text)}\n", f"{imports}\n\n{problem.test}\n"
        return float(examine(self._sandbox, program, tests, problem.entry_point).outcome == "ok")

    def rewards(self, conversations: Sequence[Conversation], texts: Sequence[str]) -> list[float]:
        with ThreadPoolExecutor(usable_cores(), thread_name_prefix="humaneval") as pool:
            return list(pool.map(self.reward, conversations, texts))

    @cached_property
    def _sandbox(self) -> Sandbox:
        return Sandbox()


def program_in(text: str) -> str:
    """The first fenced block of code, or the whole text where there is none."""
    found = _FENCED.search(text)
    return found[1] if found else text


def imports_of(prompt: str) -> str:
    """The import statements that a prompt begins with."""
    lines = []
    for line in prompt.splitlines():
        if line.startswith(("import ", "from ")):
            lines.append(line)
        elif line.strip() and not line.startswith("#"):
            break
    return "\n".join(lines)
