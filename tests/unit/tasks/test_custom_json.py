"""Conversations from files, and what is wrong with bad ones."""

import codecs
import json
from pathlib import Path

import pytest

from nanochat.data import jsonl
from nanochat.errors import DataError
from nanochat.tasks.custom_json import CustomJSON

USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello!"}
SYSTEM = {"role": "system", "content": "Be brief."}


def line(*messages: object) -> str:
    return json.dumps(list(messages)) + "\n"


def test_a_line_is_a_list_of_messages_or_an_object_with_them(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text(line(USER, ASSISTANT) + "\n" + json.dumps({"messages": [SYSTEM, USER, ASSISTANT], "id": 3}))
    task = CustomJSON(file)
    assert [[message.role for message in conversation.messages] for conversation in task] == [
        ["user", "assistant"],
        ["system", "user", "assistant"],
    ]


def test_parts_of_an_answer_are_read(tmp_path: Path) -> None:
    parts = [{"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}, {"type": "text", "text": "2."}]
    (tmp_path / "chat.jsonl").write_text(line(USER, {"role": "assistant", "content": parts}))
    content = CustomJSON(tmp_path / "chat.jsonl")[0].messages[1].content
    assert [part.type for part in content if not isinstance(part, str)] == ["python", "python_output", "text"]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(line({"role": "user", "content": name}, ASSISTANT))
    (tmp_path / "notes.txt").write_text("not a conversation")
    assert [conversation.messages[0].content for conversation in CustomJSON(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "is not JSON"),
        (b'{"chat": []}', 'without "messages"'),
        (b"3", "valid list"),
        (b"[]", "no answer"),
        (b"\xff\xfe", "not UTF-8"),
        (line({"role": "user"}).encode(), "0.content: Field required"),
        (line({"role": "robot", "content": "x"}).encode(), "0.role"),
        (line({"role": "user", "content": "x", "mood": "y"}).encode(), "0.mood"),
        (line(ASSISTANT).encode(), "message 1 is the assistant's where the user's is due"),
        (line(USER, USER).encode(), "message 2 is the user's where the assistant's is due"),
        (line(USER, SYSTEM).encode(), "message 2 is the system's"),
        (line(SYSTEM, ASSISTANT).encode(), "message 2 is the assistant's where the user's is due"),
        (line(USER).encode(), "no answer"),
        (line({"role": "user", "content": [{"type": "text", "text": "x"}]}, ASSISTANT).encode(), "list of parts"),
        (
            line({"role": "system", "content": [{"type": "text", "text": "x"}]}, USER, ASSISTANT).encode(),
            "system's, is a list",
        ),
        (line(USER, {"role": "assistant", "content": " "}).encode(), "message 2, the assistant's, is empty"),
        (line({"role": "user", "content": ""}, ASSISTANT).encode(), "message 1, the user's, is empty"),
        (line({"role": "user", "content": "x", "\x1b[2J" + "k" * 1000: "y"}).encode(), "0.\\x1b[2Jkkk"),
        (line(USER, {"role": "assistant", "content": [{"type": "\x1b[2J"}]}).encode(), "tag '\\x1b[2J'"),
        (rb'[{"role": "user", "content": "\ud83d"}]', "half of a surrogate pair"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, bad: bytes, reason: str) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_bytes(line(USER, ASSISTANT).encode() + bad)
    with pytest.raises(DataError) as caught:
        CustomJSON(file)
    assert f"{file}, line 2" in caught.value.message
    assert reason in caught.value.message
    assert len(caught.value.message) < 600 and caught.value.message.isprintable()


def test_what_some_editors_put_in_front_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_bytes(codecs.BOM_UTF8 + line(USER, ASSISTANT).encode())
    assert len(CustomJSON(tmp_path / "chat.jsonl")) == 1


def test_a_line_without_end_is_refused_before_it_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 100)
    (tmp_path / "chat.jsonl").write_text(line(USER, {"role": "assistant", "content": "x" * 1000}))
    with pytest.raises(DataError, match="line 1 is longer"):
        CustomJSON(tmp_path / "chat.jsonl")


def test_files_of_a_folder_that_are_left_out_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jsonl", "B.JSONL", "c.json", ".hidden"):
        (tmp_path / name).write_text(line(USER, ASSISTANT))
    assert len(CustomJSON(tmp_path)) == 2
    (said,) = (record for record in caplog.records if record.message == "files_left_out")
    assert vars(said)["count"] == 1 and vars(said)["first"] == str(tmp_path / "c.json")


def test_a_path_that_the_file_system_refuses_is_bad_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        CustomJSON(tmp_path / ("x" * 300))


def test_an_empty_file_folder_or_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    for path, reason in (
        (tmp_path / "empty.jsonl", "holds no conversation"),
        (tmp_path / "missing.jsonl", "no file or folder"),
    ):
        with pytest.raises(DataError, match=reason):
            CustomJSON(path)
    (tmp_path / "empty.jsonl").unlink()
    with pytest.raises(DataError, match=r"no \.jsonl file"):
        CustomJSON(tmp_path)
