"""HumanEval: what is asked, what counts as the program in an answer, and which answers pass."""

from pathlib import Path

import pytest

from nanochat.errors import DataError, Unavailable
from nanochat.tasks.base import Row
from nanochat.tasks.humaneval import HumanEval, ProblemConversation, imports_of, program_in
from nanochat.tasks.loading import load
from nanochat.tools.sandbox import probe

PROBLEM = {
    "task_id": "Test/0",
    "prompt": 'from typing import List\nimport math\n\n\ndef total(xs: List[int]) -> int:\n    """Add."""\n',
    "entry_point": "total",
    "canonical_solution": "    return math.floor(sum(xs))\n",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
}
CODE = "def total(xs: List[int]) -> int:\n    return math.floor(sum(xs))\n"


def task(**changes: object) -> HumanEval:
    return HumanEval("held_out", [Row(place="problems.jsonl, line 7", values=PROBLEM | changes)])


@pytest.fixture
def confined() -> None:
    reason = probe()
    if reason is not None:
        pytest.skip(reason)


def test_the_prompt_is_asked_and_its_solution_is_the_answer() -> None:
    (conversation,) = task()
    assert [(message.role, message.content) for message in conversation.messages] == [
        ("user", PROBLEM["prompt"]),
        ("assistant", PROBLEM["prompt"] + PROBLEM["canonical_solution"]),
    ]
    assert task().is_checkable and task().split == "held_out"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("x = 1", "x = 1"),
        ("Here:\n```python\nx = 1\n```\nand\n```python\nx = 2\n```", "x = 1\n"),
        ("```\nx = 1\n\ny = 2\n```", "x = 1\n\ny = 2\n"),
        ("```py\ndef f():\n    return '```'\n```", "def f():\n    return '```'\n"),
        ("```python\nx = 1", "```python\nx = 1"),
        ("", ""),
    ],
    ids=["no fence", "the first of two", "no language", "a fence in the code", "never closed", "nothing"],
)
def test_the_program_is_the_first_fenced_block_or_all(text: str, program: str) -> None:
    assert program_in(text) == program


def test_the_imports_are_those_before_the_function() -> None:
    prompt = "import math\n# why\n\nfrom typing import List\n\ndef f():\n    import os\nimport sys\n"
    assert imports_of(prompt) == "import math\nfrom typing import List"
    assert imports_of("def f(): pass") == ""


@pytest.mark.usefixtures("confined")
def test_right_programs_are_rewarded_and_others_are_not() -> None:
    (conversation,) = problems = task()
    answers = [
        *(CODE, f"Sure!\n```python\n{CODE}```\nDone.", f"{PROBLEM['prompt']}{PROBLEM['canonical_solution']}"),
        *("", "I do not know.", CODE.replace("sum(xs)", "3"), "import os\nos._exit(0)", "```python\n```\n" + CODE),
    ]
    assert problems.rewards([conversation] * len(answers), answers) == [1.0] * 3 + [0.0] * 5


@pytest.mark.usefixtures("confined")
def test_published_solutions_pass_and_unfinished_ones_fail(test_data: Path) -> None:
    problems = load("humaneval", "held_out", test_data / "tasks")[::4]
    conversations = list(problems)
    assert problems.rewards(conversations, [str(each.answer) for each in conversations]) == [1.0] * len(problems)
    unfinished = [
        each.problem.prompt + "    return None\n" for each in conversations if isinstance(each, ProblemConversation)
    ]
    assert problems.rewards(conversations, unfinished) == [0.0] * len(problems)


def test_where_nothing_can_be_confined_no_answer_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat.tools.sandbox._probed", lambda: "no namespaces")
    (conversation,) = problems = task()
    with pytest.raises(Unavailable, match="no namespaces"):
        problems.prepare()
    with pytest.raises(Unavailable, match="no namespaces"):
        problems.reward(conversation, CODE)


@pytest.mark.parametrize(("name", "value"), [("test", None), ("prompt", 3), ("entry_point", None)])
def test_a_row_that_is_no_problem_is_named(name: str, value: object) -> None:
    with pytest.raises(DataError, match=rf"problems.jsonl, line 7: {name}: "):
        task(**{name: value})
