import pytest

from nanochat.errors import InvalidRequest
from nanochat.protocol.generate import PythonOutputPart, PythonPart, TextPart
from nanochat.protocol.openai import ChatMessage, Extension, ToolCallRecord
from nanochat_gateway.conversation import check_roles, conversation

USER = ChatMessage(role="user", content="x")
ASSISTANT = ChatMessage(role="assistant", content="y")
SYSTEM = ChatMessage(role="system", content="z")


def answered(content: str, *calls: ToolCallRecord) -> list[ChatMessage]:
    message = ChatMessage(role="assistant", content=content, nanochat=Extension(tool_calls=list(calls)))
    return [USER, message, USER]


@pytest.mark.parametrize(
    "messages", [[USER], [SYSTEM, USER], [USER, ASSISTANT, USER], [SYSTEM, USER, ASSISTANT, USER, ASSISTANT, USER]]
)
def test_turns_that_end_with_the_user_are_accepted(messages: list[ChatMessage]) -> None:
    check_roles(messages)


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([ASSISTANT, USER], "messages[0].role"),
        ([USER, USER], "messages[1].role"),
        ([SYSTEM, SYSTEM, USER], "messages[1].role"),
        ([SYSTEM, ASSISTANT, USER], "messages[1].role"),
        ([USER, SYSTEM, USER], "messages[1].role"),
        ([USER, ASSISTANT], "messages[1].role"),
        ([SYSTEM], "messages[0].role"),
        ([SYSTEM, USER, ASSISTANT, ASSISTANT, USER], "messages[3].role"),
    ],
)
def test_another_order_is_refused_by_the_messages_place(messages: list[ChatMessage], named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_roles(messages)
    assert caught.value.param == named


def test_an_empty_answer_may_be_sent_back_but_no_empty_question() -> None:
    check_roles([USER, ChatMessage(role="assistant", content=""), USER])
    with pytest.raises(InvalidRequest):
        check_roles([ChatMessage(role="user", content=[TextPart(text="")])])


def test_spans_of_calls_become_parts_again() -> None:
    content = "a 1+1=2\nb 2*x=\n3*3=9\n"
    calls = [
        ToolCallRecord(expression="1+1", result="2", start=2, end=7),
        ToolCallRecord(expression="2*x", result=None, start=10, end=14),
        ToolCallRecord(expression="3*3", result="9", start=15, end=20),
    ]
    assert conversation(answered(content, *calls))[1].content == [
        TextPart(text="a "),
        PythonPart(text="1+1"),
        PythonOutputPart(text="2"),
        TextPart(text="b "),
        PythonPart(text="2*x"),
        PythonOutputPart(text=""),
        PythonPart(text="3*3"),
        PythonOutputPart(text="9"),
    ]


@pytest.mark.parametrize(
    "call",
    [
        ToolCallRecord(expression="1+1", result="3", start=2, end=7),
        ToolCallRecord(expression="1+1", result="2", start=3, end=8),
        ToolCallRecord(expression="1+1", result="2", start=-6, end=7),
        ToolCallRecord(expression="1+1", result="2", start=200, end=205),
    ],
)
def test_a_call_that_is_not_where_it_says_is_refused(call: ToolCallRecord) -> None:
    with pytest.raises(InvalidRequest) as caught:
        conversation(answered("a 1+1=2\n", call))
    assert caught.value.param == "messages[1].nanochat.tool_calls[0]"


def test_a_users_message_has_no_calls() -> None:
    with pytest.raises(InvalidRequest) as caught:
        conversation([ChatMessage(role="user", content="x", nanochat=Extension(tool_calls=[]))])
    assert caught.value.param == "messages[0].nanochat"


def test_parts_of_an_assistant_are_kept_as_they_are() -> None:
    parts = [TextPart(text="a"), PythonPart(text="1"), PythonOutputPart(text="1")]
    assert conversation([USER, ChatMessage(role="assistant", content=parts), USER])[1].content == parts
