"""Spelling, counting, arithmetic, small talk: right answers, checked as they are, the same at every call."""

import re

import pytest

from nanochat.protocol.generate import Message, PythonOutputPart, PythonPart
from nanochat.tasks.base import Conversation, GeneratedTask, Split
from nanochat.tasks.dialogue import as_plain_text
from nanochat.tasks.registry import CHECKABLE, TASKS
from nanochat.tasks.spelling import spelled
from nanochat.tasks.words import split_of
from nanochat.tools.calculator import Calculator

GENERATED = {name: task for name, task in TASKS.items() if issubclass(task, GeneratedTask)}


def build(name: str, split: Split, **settings: int) -> GeneratedTask:
    return GENERATED[name](split, **settings)


def last_call(conversation: Conversation) -> tuple[str, str]:
    content = conversation.messages[-1].content
    assert isinstance(content, list)
    assert isinstance(content[0], PythonPart) and isinstance(content[1], PythonOutputPart)
    return content[0].text, content[1].text


@pytest.mark.parametrize("name", GENERATED)
def test_an_example_depends_on_split_seed_and_index_alone(name: str) -> None:
    first, again = build(name, "train"), build(name, "train", size=50)
    assert [first[i] for i in range(20)] == list(again[:20])
    assert first[3] != build(name, "train", seed=1)[3]
    assert [first[i] for i in range(20)] != [build(name, "held_out")[i] for i in range(20)]


@pytest.mark.parametrize("name", GENERATED)
def test_conversations_alternate_and_end_with_the_assistant(name: str) -> None:
    for conversation in build(name, "train")[:200]:
        roles = [message.role for message in conversation.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        for message in conversation.messages:
            assert isinstance(message.content, list) or message.content.strip()


@pytest.mark.parametrize("name", [name for name in CHECKABLE if name in GENERATED])
def test_the_own_answer_is_right_and_another_ones_is_wrong(name: str) -> None:
    task = build(name, "held_out")
    for conversation in task[:100]:
        assert conversation.answer is not None
        assert task.reward(conversation, as_plain_text(conversation.messages[-1])) == 1.0
        assert task.reward(conversation, "The answer is 123456789.") == 0.0
        assert task.reward(conversation, "") == 0.0


@pytest.mark.parametrize("name", ["counting", "arithmetic"])
def test_every_call_gives_what_the_calculator_gives(name: str) -> None:
    with Calculator() as calculator:
        for conversation in build(name, "train")[:300]:
            expression, output = last_call(conversation)
            assert calculator.evaluate(expression) == output == conversation.answer


def test_counting_asks_for_letters_that_occur_never_once_and_often() -> None:
    answers = [conversation.answer for conversation in build("counting", "train")[:1000]]
    assert 100 < answers.count("0") < 400
    assert {"1", "2", "3"} <= set(answers)


def test_spelling_keeps_the_letters_as_they_were_written() -> None:
    for conversation in build("spelling", "train")[:500]:
        assert conversation.answer is not None
        word, letters = conversation.answer.split(":")
        assert word in str(conversation.messages[0].content) or word[0].lower() + word[1:] in str(
            conversation.messages[0].content
        )
        assert letters.split(",") == list(word)


def test_only_the_last_line_of_a_spelling_counts() -> None:
    task = build("spelling", "held_out")
    conversation = task[0]
    assert task.reward(conversation, f"Of course.\n{conversation.answer}\n") == 1.0
    assert task.reward(conversation, f"{conversation.answer}\nAnything else?") == 0.0


def test_words_and_pairs_of_numbers_of_the_splits_are_disjoint() -> None:
    asked: dict[str, set[str]] = {"train": set(), "held_out": set()}
    for split in ("train", "held_out"):
        for conversation in build("counting", split)[:1000]:
            asked[split].add(last_call(conversation)[0].split("'")[1])
        for conversation in build("arithmetic", split)[:1000]:
            a, b = sorted(map(int, re.findall(r"\d+", last_call(conversation)[0])))
            asked[split].add(f"{a},{b}")
    assert not asked["train"] & asked["held_out"]
    assert all(split_of(key) == split for split, keys in asked.items() for key in keys)


def test_arithmetic_covers_the_whole_range_in_every_operation() -> None:
    calls = [last_call(conversation)[0] for conversation in build("arithmetic", "train")[:3000]]
    numbers = {int(number) for call in calls for number in re.findall(r"\d+", call)}
    assert min(numbers) == 0 and max(numbers) >= 990
    assert {re.sub(r"\d", "", call) for call in calls} == {"+", "-", "*"}


def test_a_dialogue_holds_earlier_answers_as_clients_send_them_back() -> None:
    context_only = parts = 0
    for conversation in build("dialogue", "train")[:500]:
        assert 2 <= len(conversation.messages) <= 8
        last = len(conversation.messages) - 1
        assert last not in conversation.context_only
        for index, message in enumerate(conversation.messages[:-1]):
            if index in conversation.context_only:
                assert message.role == "assistant" and isinstance(message.content, str)
                assert re.match(r".+=-?\d+\n.+ -?\d+\.$", message.content)
                context_only += 1
            elif isinstance(message.content, list):
                parts += 1
    assert context_only > 50 and parts > 50


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_the_long_form_counts_by_hand_what_the_calculator_counts(split: Split) -> None:
    is_other_language = 0
    with Calculator() as calculator:
        for conversation in build("spelling_bee", split)[:200]:
            before, call, output, after = conversation.messages[1].content
            assert not isinstance(before, str) and not isinstance(call, str)
            assert not isinstance(output, str) and not isinstance(after, str)
            assert calculator.evaluate(call.text) == output.text == conversation.answer
            assert f"By hand I find {output.text}." in before.text and after.text.endswith(f"#### {output.text}")
            word, letter = re.findall(r"'(\w+)'", call.text)
            assert f"are {spelled(word)}\n" in before.text
            assert before.text.count(" is a match") == word.count(letter)
            assert split_of(word) == split
            is_other_language += not str(conversation.messages[0].content).isascii()
    assert 30 < is_other_language < 170


def test_plain_text_of_a_message_is_its_content() -> None:
    assert as_plain_text(Message(role="assistant", content="Hello!")) == "Hello!"
