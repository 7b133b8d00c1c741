"""Which chat tasks a job means by the names it gives."""

import json
from pathlib import Path

import pytest

from nanochat.errors import InvalidConfig
from nanochat.recipes.validation import chat_task_names, chat_tasks
from nanochat.tasks.registry import DEFAULT_EVALS

ARC = {"question": "Is ice cold?", "choices": {"text": ["no", "yes"], "label": ["A", "B"]}, "answerKey": "B"}


def test_tasks_that_are_cores_as_well_are_chat_tasks_too() -> None:
    assert chat_task_names(["arc_easy", "copa", "arc_challenge", "gsm8k"]) == ["arc_easy", "arc_challenge", "gsm8k"]


@pytest.mark.parametrize("names", [None, [], ["copa", "hellaswag"]])
def test_where_none_is_named_the_usual_ones_are_meant(names: list[str] | None) -> None:
    assert chat_task_names(names) == list(DEFAULT_EVALS)


@pytest.mark.parametrize("name", ["dancing", "smoltalk", "smalltalk"])
def test_what_cannot_be_scored_is_refused(name: str) -> None:
    with pytest.raises(InvalidConfig, match=f"task '{name}' cannot be scored; choose of spelling"):
        chat_task_names(["spelling", name])


def test_a_tasks_first_examples_are_taken(home: Path) -> None:
    folder = home / "datasets" / "arc_easy"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text((json.dumps(ARC) + "\n") * 5)
    tasks = chat_tasks(["arc_easy", "spelling"], home, 3)
    assert {name: len(task) for name, task in tasks.items()} == {"arc_easy": 3, "spelling": 3}
