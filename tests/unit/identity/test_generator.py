"""Conversations written by an endpoint on a real socket, which errs, repeats itself and asks for patience."""

import asyncio
import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nanochat.data.hub.patience import Patience
from nanochat.errors import DataError, InvalidConfig, NanochatError, NotFound, Unauthorized, Unavailable
from nanochat.identity.checks import Novelty, Unfit, check, parse
from nanochat.identity.drawing import draw, request
from nanochat.identity.generator import Counts, Endpoint, generate
from nanochat.protocol.generate import Message
from nanochat.tasks.custom_json import CustomJSON
from nanochat.tasks.persona import Persona, default_persona

AT_ONCE = Patience(max_attempts=3, first_pause_s=0.0)


def conversation(number: int) -> str:
    """Unlike that of any other number."""
    words = " ".join(f"word{number}x{i}" for i in range(8))
    messages = [
        {"role": "user", "content": f"Hi {number}"},
        {"role": "assistant", "content": f"I am nanochat. {words}"},
    ]
    return json.dumps({"messages": messages})


@dataclass
class FakeEndpoint:
    """`answers` holds what comes next, (status, content or None); then conversations unlike each other."""

    url: str = ""
    answers: deque[tuple[int, str]] = field(default_factory=deque)
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    write: Callable[[int], str] = conversation


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    fake, lock = FakeEndpoint(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                fake.asked.append(content)
                fake.keys.append(self.headers.get("authorization"))
                status, text = fake.answers.popleft() if fake.answers else (200, fake.write(len(fake.asked)))
            body = json.dumps(
                {"choices": [{"message": {"content": text}}]} if status == 200 else {"error": text}
            ).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # whoever asked was cancelled meanwhile
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        fake.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield fake
        server.shutdown()


def run(endpoint: FakeEndpoint, file: Path, num: int, *, concurrency: int = 1, key: str = "") -> Counts:
    where = Endpoint(url=endpoint.url, model="large", key=key)
    work = generate(default_persona(), where, file, num, concurrency=concurrency, patience=AT_ONCE)
    return asyncio.run(work)


def test_so_many_are_written_as_a_mixture_takes_them(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    counts = run(endpoint, tmp_path / "who.jsonl", 10, concurrency=4, key="secret")
    assert (counts.num_there, counts.refused.total()) == (10, 0)
    assert len(CustomJSON(tmp_path / "who.jsonl")) == 10
    assert set(endpoint.keys) == {"Bearer secret"}
    assert endpoint.asked[0]["response_format"]["type"] == "json_schema"


def test_what_fails_for_a_while_is_asked_for_again(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    endpoint.answers.extend([(429, ""), (500, ""), (200, conversation(0)), (503, "")])
    assert run(endpoint, tmp_path / "who.jsonl", 3).num_there == 3
    assert len(endpoint.asked) == 6


def test_what_is_unfit_is_refused_by_reason_and_another_takes_its_place(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    endpoint.answers.extend([(200, conversation(0)), (200, conversation(0)), (200, "no JSON here"), (200, '{"a": 1}')])
    counts = run(endpoint, tmp_path / "who.jsonl", 3)
    assert counts.num_there == 3
    assert counts.refused == {
        "the same first exchange as before": 1,
        "no JSON": 1,
        "no conversation of user and assistant in turn": 1,
    }


def test_a_second_run_goes_on_after_the_first_and_after_a_cut_line(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    file = tmp_path / "who.jsonl"
    run(endpoint, file, 3)
    with file.open("a") as lines:
        lines.write('{"messages": [{"role"')
    counts = run(endpoint, file, 5)
    assert (counts.num_before, counts.num_written) == (3, 2)
    assert [json.loads(line)["draw"] for line in file.read_text().splitlines()] == [0, 1, 2, 3, 4]
    assert run(endpoint, file, 5).num_written == 0


def test_an_endpoint_without_schemas_is_asked_in_words(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    endpoint.answers.extend([(400, "response_format is not supported"), (200, f"Sure! {conversation(0)} Done.")])
    assert run(endpoint, tmp_path / "who.jsonl", 2).num_there == 2
    assert ["response_format" in body for body in endpoint.asked] == [True, False, False]


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (401, Unauthorized, "NANOCHAT_ENDPOINT_API_KEY"),
        (404, NotFound, "answered 404: .*no such model"),
        (503, Unavailable, "no answer in 3 attempts; the last one: status 503"),
        (413, InvalidConfig, "answered 413"),
    ],
)
def test_an_endpoint_that_will_not_answer_ends_the_run(
    endpoint: FakeEndpoint, tmp_path: Path, status: int, error: type[NanochatError], said: str
) -> None:
    endpoint.answers.extend([(status, "no such model")] * 50)
    with pytest.raises(error, match=said):
        run(endpoint, tmp_path / "who.jsonl", 20, concurrency=4)


def test_a_model_that_writes_nonsense_ends_the_run_with_the_reasons(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    endpoint.write = lambda number: "gibberish"
    with pytest.raises(DataError, match=r"21 conversations were unfit and 0 good \(21 no JSON\)"):
        run(endpoint, tmp_path / "who.jsonl", 100)


def test_a_file_of_something_else_is_left_alone(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_text('{"note": "mine"}\n')
    with pytest.raises(DataError, match=r"notes.jsonl, line 1 was not written by this command"):
        run(endpoint, file, 3)
    assert file.read_text() == '{"note": "mine"}\n' and endpoint.asked == []


def test_draws_differ_and_come_again_the_same() -> None:
    persona = default_persona()
    draws = [draw(persona, 0, index) for index in range(300)]
    assert draws == [draw(persona, 0, index) for index in range(300)]
    assert draws[:20] != [draw(persona, 1, index) for index in range(20)]
    kinds = {(one.topic, one.asker, one.opening, one.num_turns) for one in draws}
    assert len(kinds) > 290
    system, user = request(persona, draws[0])
    assert all(fact in system["content"] for fact in persona.facts) and draws[0].topic in user["content"]


def said(*texts: str) -> list[Message]:
    return [Message(role="assistant" if index % 2 else "user", content=text) for index, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (("Who are you?", "I am ChatGPT."), "another model's name"),
        (("Are you ChatGPT?", "Yes, I'm ChatGPT."), "taking itself for another"),
        (("Hi", "I am [Your Name]."), "a placeholder"),
        (("Hi", "I am {{name}}."), "a placeholder"),
        (("Hi", "x" * 2001), "over 2000 characters"),
    ],
)
def test_what_a_model_must_not_learn_is_unfit(texts: tuple[str, ...], reason: str) -> None:
    with pytest.raises(Unfit, match=reason):
        check(said(*texts), default_persona())


def test_an_answer_about_another_model_that_was_asked_about_is_fit() -> None:
    check(said("Are you ChatGPT?", "No, I am nanochat, not ChatGPT. A metaphor: I am small."), default_persona())


def test_what_is_nearly_the_same_is_not_new() -> None:
    novelty = Novelty()
    novelty.add(said("Who made you?", "I was made by the nanochat project, on the machine that you use."))
    with pytest.raises(Unfit, match="nearly the same"):
        novelty.add(said("And who made you?", "I was made by the nanochat project, on the machine that you use now."))
    novelty.add(said("Who made you?", "Somebody at the other end of the road did that last winter, out of snow."))


def test_json_is_found_within_other_text() -> None:
    messages = parse(
        'Here:\n```json\n{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n```'
    )
    assert [message.content for message in messages] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name = ", "cannot be read"),
        ('name = "x"', "maker: Field required"),
        ('name = "x"\nmaker = "y"\nfacts = []', "facts: List should have at least 1 item"),
        ('name = "x"\nmaker = "y"\nfacts = ["It is."]\nmood = "z"', "mood: Extra inputs"),
    ],
)
def test_a_persona_that_cannot_be_used_is_named_with_its_key(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "me.toml"
    file.write_text(content)
    with pytest.raises(DataError, match=f"{file}.*{said}"):
        Persona.load(file)
