"""Tokens are guessed from bytes, and better with every request seen."""

from nanochat.protocol.generate import GenerateRequest, Message
from nanochat_inference.pool.estimate import Estimate, prompt_bytes


def test_token_ids_are_counted_and_max_tokens_bounds_the_answer() -> None:
    asked = GenerateRequest(model="m", prompt_token_ids=[1] * 100, max_tokens=3, n=2)
    assert Estimate().tokens(asked) == 106


def test_the_bytes_of_a_chat_are_those_of_its_messages_in_utf8() -> None:
    messages = [Message(role="user", content="é"), Message(role="assistant", content="abc")]
    assert prompt_bytes(GenerateRequest(model="m", messages=messages)) == 5


def test_it_learns_from_what_workers_report() -> None:
    estimate, asked = Estimate(), GenerateRequest(model="m", prompt="a" * 1000)
    for _ in range(200):
        estimate.learn_prompt(1000, 500)
        estimate.learn_answer(20)
    assert abs(estimate.tokens(asked) - 520) <= 2
