"""The main job: a model trained through the services, promoted, and chatted with by every kind of client."""

import json
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.conftest import RealStack

pytestmark = pytest.mark.slow


@pytest.fixture
def client(stack: RealStack) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key="unused", max_retries=0)


def test_demo_shows_every_stage_and_says_where_the_chat_is(stack: RealStack) -> None:
    for stage in ("tokenizer", "pretrain", "sft", "evaluate", "report"):
        assert f"{stage:<10} 100%  " in stack.output
    assert "loss" in stack.output and "tokens/s" in stack.output
    for task in ("arithmetic", "counting", "spelling"):
        assert task in stack.output.split("held out")[1]
    assert f"Chat: {stack.url}" in stack.output
    report = Path(stack.output.split("Report: ")[1].split()[0])
    assert report.name == "report.html" and "<svg" in report.read_text()


def test_every_stage_is_a_job_that_names_its_pipeline(stack: RealStack) -> None:
    (pipeline,) = stack.get("/v1/jobs?kind=pipeline")["data"]
    stages = [stack.job(job_id) for job_id in pipeline["stages"]]
    assert [stage["kind"] for stage in stages] == ["tokenizer", "pretrain", "sft", "evaluate", "report"]
    assert {stage["status"] for stage in (pipeline, *stages)} == {"succeeded"}
    assert {stage["parent_id"] for stage in stages} == {pipeline["id"]}
    assert {"train_loss", "val_bpb"} <= stages[1]["metrics"].keys()
    assert stages[1]["progress"]["ratio"] == 1.0
    assert {"spelling_accuracy", "counting_accuracy", "arithmetic_accuracy"} <= stages[3]["metrics"].keys()


def test_promoted_model_is_listed_with_its_checkpoint(stack: RealStack, client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    (pipeline,) = stack.get("/v1/jobs?kind=pipeline")["data"]
    assert model.id == "nanochat"
    assert model.model_extra and model.model_extra["nanochat"]["checkpoint"] == pipeline["checkpoint"]


def test_openai_client_gets_a_whole_answer_and_the_same_one_streamed(client: openai.OpenAI) -> None:
    question = [{"role": "user", "content": "What is 2 + 3?"}]
    whole = client.chat.completions.create(model="nanochat", messages=question, temperature=0, max_tokens=12)  # type: ignore[call-overload]
    assert whole.usage.completion_tokens <= 12
    assert whole.choices[0].finish_reason in ("stop", "length")
    stream = client.chat.completions.create(  # type: ignore[call-overload]
        model="nanochat",
        messages=question,
        temperature=0,
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def test_unknown_model_is_an_error_in_openais_envelope(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": "Hello"}])
    assert caught.value.body and "other" in str(caught.value.body)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"kind": "pretrain", "config": {"dataset": "python-docs", "depht": 4}}, "config.depht"),
        ({"kind": "pretrain", "config": {"dataset": "nowhere"}}, "config.dataset"),
        ({"kind": "pretrain", "config": {"dataset": "python-docs", "depth": 0}}, "config.depth"),
        ({"kind": "pipeline", "config": {"profile": "demo", "overrides": {"sft": {"x": 1}}}}, "config.overrides.sft.x"),
    ],
)
def test_bad_job_is_refused_by_the_field_and_leaves_nothing(
    stack: RealStack, body: dict[str, object], named: str
) -> None:
    before = stack.get("/v1/jobs")
    response = httpx.post(f"{stack.url}/v1/jobs", json=body)
    assert response.status_code == 422
    assert named in response.json()["error"]["message"]
    assert stack.get("/v1/jobs") == before


def test_command_line_chats_through_the_stack_and_without_it(stack: RealStack) -> None:
    asked = stack.run("chat", "-p", "Hello", "--max-tokens", "8", "--temperature", "0")
    assert asked.returncode == 0, asked.stderr
    (pipeline,) = stack.get("/v1/jobs?kind=pipeline")["data"]
    local = stack.run(
        "chat", "-p", "Hello", "--max-tokens", "8", "--temperature", "0", "--local", pipeline["checkpoint"]
    )
    assert local.returncode == 0, local.stderr
    assert local.stdout == asked.stdout
    assert asked.stdout.strip()


def test_command_line_lists_what_there_is(stack: RealStack) -> None:
    (pipeline,) = stack.get("/v1/jobs?kind=pipeline")["data"]
    assert pipeline["id"] in stack.run("jobs", "list").stdout
    assert json.loads(stack.run("jobs", "show", pipeline["id"]).stdout) == pipeline
    assert "tokenizer_saved" in stack.run("jobs", "logs", pipeline["stages"][0]).stdout
    assert pipeline["checkpoint"] in stack.run("models", "list").stdout
    assert "python-docs" in stack.run("data", "list").stdout


def test_second_demo_uses_the_stack_and_the_model_that_are_there(stack: RealStack) -> None:
    again = stack.run("demo", "--exit", "--overrides", json.dumps({}))
    assert again.returncode == 0, again.stderr
    assert "using the stack that runs at" in again.stdout
    assert "is served already" in again.stdout
    assert again.stdout.count("\n> ") == 3


def test_second_up_is_refused_and_says_where_the_first_is(stack: RealStack) -> None:
    again = stack.run("up")
    assert again.returncode == 1
    assert f"already running at {stack.url}" in again.stderr
    detached = stack.run("up", "--detach")
    assert detached.returncode == 0
    assert f"up already at {stack.url}" in detached.stdout


def test_rollback_without_an_earlier_model_says_so(stack: RealStack) -> None:
    refused = stack.run("models", "rollback")
    assert refused.returncode == 1
    assert "nanochat:" in refused.stderr


@pytest.mark.parametrize("path", ["/", "/train", "/models"])
def test_pages_are_served(stack: RealStack, path: str) -> None:
    assert "<!doctype html>" in httpx.get(stack.url + path).text
