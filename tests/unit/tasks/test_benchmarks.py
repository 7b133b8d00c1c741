"""Benchmarks from published rows: what is asked, which answer counts, which split is whose, and what is refused.

Prompts are held against others written here from the format's description alone.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.errors import DataError, InvalidConfig
from nanochat.tasks.base import Conversation, Split
from nanochat.tasks.loading import load

MMLU = {"question": "What is 1 + 1?", "subject": "arithmetic", "choices": ["1", "2", "3", "4"], "answer": 1}
ARC = {
    "question": "Is ice cold?",
    "choices": {"text": ["no", "yes", "never"], "label": ["1", "2", "3"]},
    "answerKey": "2",
}
GSM8K = {
    "question": "Two bags of 1,200 marbles. How many?",
    "answer": "There are 2*1200=<<2*1200=2,400>>2,400 marbles.\n#### 2,400",
}
TALK = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}], "source": "x"}
ROWS = {"mmlu": MMLU, "arc_easy": ARC, "arc_challenge": ARC, "gsm8k": GSM8K, "smoltalk": TALK}


def write(folder: Path, split: str, *rows: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def only(home: Path, name: str, split: Split = "held_out") -> Conversation:
    (conversation,) = load(name, split, home)
    return conversation


def test_a_choice_is_asked_by_letter_and_answered_by_letter(tmp_path: Path) -> None:
    write(tmp_path / "mmlu", "test", MMLU)
    conversation = only(tmp_path, "mmlu")
    assert [message.content for message in conversation.messages] == [
        "Multiple Choice question: What is 1 + 1?\n- 1=A\n- 2=B\n- 3=C\n- 4=D\n\n"
        "Respond only with the letter of the correct answer.",
        "B",
    ]
    assert conversation.choices == ("A", "B", "C", "D") and conversation.answer == "B"
    assert load("mmlu", "held_out", tmp_path).baseline == 0.25


def test_letters_stay_as_they_were_published(tmp_path: Path) -> None:
    write(tmp_path / "arc_easy", "test", ARC)
    conversation = only(tmp_path, "arc_easy")
    assert "- no=1\n- yes=2\n- never=3\n\n" in str(conversation.messages[0].content)
    assert conversation.choices == ("1", "2", "3") and conversation.answer == "2"


def test_marked_calculations_become_calls_with_their_results(tmp_path: Path) -> None:
    write(tmp_path / "gsm8k", "test", GSM8K)
    conversation = only(tmp_path, "gsm8k")
    parts = [(part.type, part.text) for part in conversation.messages[1].content if not isinstance(part, str)]
    assert parts == [
        ("text", "There are 2*1200="),
        ("python", "2*1200"),
        ("python_output", "2,400"),
        ("text", "2,400 marbles.\n#### 2,400"),
    ]
    assert conversation.answer == "2400"


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("2*1200=2400\n#### 2,400", 1.0),
        ("#### 2400", 1.0),
        ("####2400.0", 1.0),
        ("#### 2400.", 1.0),
        ("2400", 0.0),
        ("#### 24", 0.0),
        ("#### 1\n#### 2400", 0.0),
        ("#### -2400", 0.0),
        ("", 0.0),
    ],
)
def test_the_number_behind_the_first_mark_is_the_answer(tmp_path: Path, text: str, reward: float) -> None:
    write(tmp_path / "gsm8k", "test", GSM8K)
    task = load("gsm8k", "held_out", tmp_path)
    assert task.reward(task[0], text) == reward


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("mmlu", MMLU | {"answer": 4}, "answer: Input should be less than 4"),
        ("mmlu", MMLU | {"choices": ["1", "2", "3"]}, "choices: List should have at least 4 items"),
        ("mmlu", {"question": "?"}, "subject: Field required"),
        ("arc_easy", ARC | {"answerKey": "Z"}, "answerKey 'Z' is none of"),
        ("arc_easy", ARC | {"choices": {"text": ["a", "b"], "label": ["A"]}}, "2 choices have the labels"),
        ("gsm8k", GSM8K | {"answer": "It is 4."}, 'answer has no "#### "'),
        ("gsm8k", GSM8K | {"question": None}, "question: Input should be a valid string"),
        ("smoltalk", {"messages": [TALK["messages"][1]]}, "message 1 is the assistant's where the user's is due"),
        (
            "smoltalk",
            {"messages": [TALK["messages"][0], {"role": "assistant", "content": " "}]},
            "message 2, the assis",
        ),
        ("smoltalk", {"text": "hello"}, 'without "messages"'),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, name: str, row: Any, reason: str) -> None:
    for split in ("test", "train"):
        write(tmp_path / name, split, ROWS[name], row)
    with pytest.raises(DataError) as caught:
        load(name, "held_out", tmp_path)
    assert f"{tmp_path / name / 'test.jsonl'}, line 2" in caught.value.message
    assert reason in caught.value.message


@pytest.mark.parametrize("name", ["arc_challenge", "gsm8k", "smoltalk"])
def test_what_is_trained_on_is_not_what_is_held_out(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "train", *[ROWS[name]] * 3)
    write(tmp_path / name, "test", *[ROWS[name]] * 2)
    assert [len(load(name, split, tmp_path)) for split in ("train", "held_out")] == [3, 2]


def test_splits_are_known_by_the_names_that_the_hub_gives_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "mmlu"
    folder.mkdir()
    for file, count in {
        "auxiliary_train-00000-of-00002": 2,
        "auxiliary_train-00001-of-00002": 1,
        "all--test--0000": 4,
        "validation-00000-of-00001": 5,
    }.items():
        pq.write_table(pa.Table.from_pylist([MMLU] * count), folder / f"{file}.parquet")
    assert len(load("mmlu", "train", tmp_path)) == 3
    assert len(load("mmlu", "held_out", tmp_path)) == 4
    assert len(load("mmlu", "held_out", tmp_path, published="validation")) == 5


def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path / "gsm8k", "test", GSM8K)
    with pytest.raises(DataError, match=r"gsm8k needs the split train; .*gsm8k holds test"):
        load("gsm8k", "train", tmp_path)
    with pytest.raises(DataError, match="needs the split dev; "):
        load("gsm8k", "train", tmp_path, published="dev")
    write(tmp_path / "humaneval", "HumanEval", {})
    with pytest.raises(DataError, match="humaneval has no split to train on"):
        load("humaneval", "train", tmp_path)
    with pytest.raises(InvalidConfig, match="spelling' is generated and has no split 'test'"):
        load("spelling", "train", tmp_path, published="test")


def test_data_that_is_not_there_is_refused_with_the_way_to_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*/mmlu; .*nanochat data download mmlu"):
        load("mmlu", "held_out", tmp_path)
    (tmp_path / "mmlu").mkdir()
    with pytest.raises(DataError, match=r"holds no \.jsonl or \.parquet file"):
        load("mmlu", "held_out", tmp_path)
    write(tmp_path / "mmlu", "test")
    with pytest.raises(DataError, match=r"split test in .* has no rows"):
        load("mmlu", "held_out", tmp_path)
    with pytest.raises(InvalidConfig, match="task 'chess' is not known; choose one of spelling, counting"):
        load("chess", "held_out", tmp_path)


@pytest.mark.parametrize(
    ("name", "folder", "split", "count"),
    [
        ("mmlu", "mmlu", "held_out", 766),
        ("arc_easy", "arc/easy", "held_out", 1188),
        ("arc_challenge", "arc/challenge", "held_out", 586),
        ("gsm8k", "gsm8k", "train", 3737),
        ("gsm8k", "gsm8k", "held_out", 660),
        ("humaneval", "humaneval", "held_out", 82),
    ],
)
def test_published_data_is_read_whole_and_its_answers_are_right(
    test_data: Path, tmp_path: Path, name: str, folder: str, split: Split, count: int
) -> None:
    (tmp_path / name).symlink_to(test_data / "tasks" / folder)
    task = load(name, split, tmp_path)
    assert len(task) == count
    for conversation in task:
        assert conversation.answer
        if name == "gsm8k":
            text = "".join(part.text for part in conversation.messages[1].content if not isinstance(part, str))
            assert task.reward(conversation, text) == 1.0
        elif name != "humaneval":
            assert conversation.messages[1].content == conversation.answer in conversation.choices


def test_a_published_solution_can_be_written_before_the_answer_is_cut(test_data: Path, tmp_path: Path) -> None:
    (tmp_path / "gsm8k").symlink_to(test_data / "tasks" / "gsm8k")
    for task in (load("gsm8k", "train", tmp_path), load("gsm8k", "held_out", tmp_path)):
        for conversation in task:
            parts = [part for part in conversation.messages[1].content if not isinstance(part, str)]
            # A large vocabulary has three bytes of arithmetic in a token, and a call and its result two marks each.
            num_bytes = sum(len(part.text.encode()) for part in parts)
            assert num_bytes / 3 + 2 * sum(part.type != "text" for part in parts) < task.max_answer_tokens
