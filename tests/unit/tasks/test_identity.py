"""The built-in conversations about who the model is."""

from nanochat.tasks.identity import Identity, first_person
from nanochat.tasks.persona import Persona


def test_every_answer_is_the_personas() -> None:
    me = Persona(name="Ada", maker="a village", facts=["It is small."], limits=["It cannot see."], not_me=["Bob"])
    texts, requests = set(), set()
    for conversation in Identity("train", size=300, persona=me):
        assert len(conversation.messages) in (2, 4)
        for message in conversation.messages:
            (texts if message.role == "assistant" else requests).add(str(message.content))
    assert {"I am small.", "I cannot see."} < texts
    assert all("nanochat" not in text and "{" not in text for text in texts | requests)
    assert all("Ada" in text for text in texts if "Bob" in text)
    assert len(requests) > 100


def test_there_are_hundreds_of_different_ones() -> None:
    assert len({str(conversation.messages) for conversation in Identity("train")[:1000]}) > 600


def test_a_fact_is_said_in_the_first_person() -> None:
    assert first_person("It has a calculator.") == "I have a calculator."
    assert first_person("Its code is open.") == "My code is open."
    assert first_person("It cannot see.") == "I cannot see."
    assert first_person("Cats are nice.") == "Cats are nice."
