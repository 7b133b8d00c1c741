"""Commands as they are typed: what they ask the gateway, what they print, and how they end."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nanochat.cli import chat, follow
from nanochat.cli.jobs import parse_values
from nanochat.cli.terminal import print_table
from nanochat.errors import InvalidConfig
from nanochat.numbers import duration
from nanochat.protocol.generate import Message
from nanochat.protocol.jobs import Job, JobError, JobProgress, RunSpec
from tests.unit.cli.conftest import FakeGateway, nanochat


def job(**values: Any) -> dict[str, Any]:
    shown = Job(id="job_1", kind="sft", name="mine", status="succeeded", created_at=time.time())
    return shown.model_copy(update=values).model_dump(mode="json")


@pytest.mark.parametrize(
    ("values", "parsed"),
    [
        (["depth=4"], {"depth": 4}),
        (["dataset=python-docs"], {"dataset": "python-docs"}),
        (["dataset=/data/a=b"], {"dataset": "/data/a=b"}),
        (["resume=true", "matrix_lr=0.02"], {"resume": True, "matrix_lr": 0.02}),
        (['evals=["chat"]'], {"evals": ["chat"]}),
        (None, {}),
    ],
)
def test_values_are_json_or_plain_text(values: Sequence[str] | None, parsed: dict[str, Any]) -> None:
    assert parse_values(list(values) if values else None) == parsed


@pytest.mark.parametrize("value", ["depth", "=4"])
def test_what_is_no_key_and_value_is_refused(value: str) -> None:
    with pytest.raises(InvalidConfig, match="KEY=VALUE"):
        parse_values([value])


def test_train_submits_once_follows_and_prints_the_metrics(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answers["POST /v1/jobs"] = (202, job(status="queued"))
    gateway.answers["GET /v1/jobs/job_1"] = (200, job(metrics={"val_bpb": 1.25}, output="mine/sft/step_000010"))
    assert nanochat(monkeypatch, "train", "sft", "checkpoint=mine/pretrain", "num_iterations=10", "--name", "mine") == 0
    assert gateway.asked[0].body == {
        "kind": "sft",
        "name": "mine",
        "config": {"checkpoint": "mine/pretrain", "num_iterations": 10},
    }
    assert gateway.asked[0].headers["idempotency-key"]
    printed = capsys.readouterr().out
    assert "val_bpb = 1.25" in printed
    assert "made mine/sft/step_000010" in printed


def test_a_followed_job_that_fails_says_why_and_ends_with_1(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = JobError(code="exit_code", message="the recipe ended with status 1", log_tail=["last words"])
    gateway.answers["GET /v1/jobs/job_1"] = (200, job(status="failed", error=error))
    assert nanochat(monkeypatch, "jobs", "follow", "job_1") == 1
    said = capsys.readouterr().err
    assert "sft job job_1 failed: the recipe ended with status 1 (exit_code)" in said
    assert "last words" in said
    assert "nanochat jobs logs job_1" in said


def test_failure_names_the_stage_that_failed() -> None:
    stage = Job.model_validate(job(id="job_2", kind="pretrain", status="failed", error=JobError(code="c", message="m")))
    pipeline = Job.model_validate(job(kind="pipeline", status="failed"))
    assert follow.failure_of(pipeline, [stage]).startswith("pretrain job job_2 failed: m (c)")


def test_plain_lines_show_a_status_once_and_progress_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 0.0, 1.0, 11.0, 11.0, 12.0, 12.0])
    monkeypatch.setattr(follow.time, "monotonic", lambda: next(clock))
    running = Job.model_validate(
        job(
            status="running",
            metrics={"train_loss": 2.5},
            progress=JobProgress(step=1, num_steps=4, ratio=0.25, tokens_per_second=1234.5, eta_s=65.0),
        )
    )
    with follow._Lines() as lines:
        lines.show(Job.model_validate(job(status="queued")), "sft")
        lines.show(running, "sft")  # a new status
        lines.show(running, "sft")  # a second later: nothing
        lines.show(running, "sft")  # ten seconds later: due
        lines.show(Job.model_validate(job(started_at=10.0, finished_at=82.0)), "sft")
    assert capsys.readouterr().out.splitlines() == [
        "sft         25%  loss 2.500  1,234 tokens/s  1m05s left",
        "sft         25%  loss 2.500  1,234 tokens/s  1m05s left",
        "sft          0%  succeeded in 1m12s",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.6, "1m00s"), (185, "3m05s"), (7800, "2h10m")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def chunks(*texts: str) -> str:
    lines = [json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}) for text in texts]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])


def test_the_demo_trains_through_the_gateway_that_the_url_names(
    gateway: FakeGateway, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_ADMIN_KEYS", "first,second")
    gateway.answers |= {
        "GET /v1/models": (200, {"data": []}),
        "GET /v1/checkpoints": (200, {"data": []}),
        "GET /v1/jobs?kind=pipeline&limit=20": (200, {"data": []}),
        "POST /v1/jobs": (202, job(kind="pipeline", status="queued")),
        "GET /v1/jobs/job_1": (200, job(kind="pipeline", checkpoint="demo/sft/step_000400")),
        "POST /v1/models/nanochat/promote": (200, {}),
    }
    assert nanochat(monkeypatch, "demo") == 0
    submitted, promoted = (asked for asked in gateway.asked if asked.method == "POST")
    assert submitted.body == {"kind": "pipeline", "config": {"profile": "demo", "overrides": {}}}
    assert promoted.body == {"checkpoint": "demo/sft/step_000400"}
    assert all(asked.headers["authorization"] == "Bearer first" for asked in gateway.asked)
    said = capsys.readouterr().out
    assert "nanochat is demo/sft/step_000400 now" in said
    assert f"Chat: {gateway.url} " in said
    assert not (home / "stack.json").exists()


def test_the_demo_in_a_container_says_where_people_open_the_pages(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_PAGES_URL", "http://127.0.0.1:8123/")
    served = {"id": "nanochat", "nanochat": {"checkpoint": "demo/sft/step_000400"}}
    gateway.answers["GET /v1/models"] = (200, {"data": [served]})
    assert nanochat(monkeypatch, "demo") == 0
    assert "Chat: http://127.0.0.1:8123   training: http://127.0.0.1:8123/train " in capsys.readouterr().out


def test_chat_answers_once_and_sends_what_was_asked_for(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answers["POST /v1/chat/completions"] = (200, chunks("lighthouse:", "l,i,[g]"))
    options = ("--system", "Be brief", "--temperature", "0", "--top-k", "5", "--model", "mine")
    assert nanochat(monkeypatch, "chat", "-p", "Spell", *options) == 0
    assert capsys.readouterr().out == "lighthouse:l,i,[g]\n"
    assert gateway.asked[0].body == {
        "model": "mine",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Spell"}],
        "stream": True,
        "temperature": 0.0,
        "top_k": 5,
        "max_tokens": None,
    }


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, 'data: {"error": {"message": "the engine failed"}}\n\n'), "the engine failed"),
        ((200, chunks("half").replace("data: [DONE]\n\n", "")), "broke off"),
        ((200, chunks()), "empty answer"),
        ((503, {"error": {"message": "no model yet"}}), "no model yet"),
    ],
)
def test_chat_that_fails_says_so_and_ends_with_1(
    gateway: FakeGateway,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: tuple[int, Any],
    said: str,
) -> None:
    gateway.answers["POST /v1/chat/completions"] = answer
    assert nanochat(monkeypatch, "chat", "-p", "Hello") == 1
    assert said in capsys.readouterr().err


def test_chat_commands_change_the_conversation() -> None:
    said = [Message(role="user", content="a"), Message(role="assistant", content="b")]
    system = Message(role="system", content="Be brief")
    assert chat._command("/system Be brief", said) == [system, *said]
    assert chat._command("/system", [system, *said]) == said
    assert chat._command("/new", [system, *said]) == [system]
    assert chat._command("/what", said) == said


def test_a_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NANOCHAT_GATEWAY_PORT", "eighty")
    assert nanochat(monkeypatch, "up") == 2
    assert "NANOCHAT_GATEWAY_PORT" in capsys.readouterr().err


def test_local_training_refuses_a_bad_key_by_name(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nanochat(monkeypatch, "train", "tokenizer", "vocab=512", "--local") == 1
    assert "config.vocab is not a known key" in capsys.readouterr().err
    assert not (home / "jobs").exists()


def test_the_first_column_of_a_table_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    job_id = "job_1a2054a4903003015f5ea"
    print_table(("id", "name", "more"), [(job_id, "a rather long name " * 3, "words " * 9)], empty="")
    assert job_id in capsys.readouterr().out


def test_a_report_is_written_here_where_no_gateway_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home / "jobs" / "job_1"
    folder.mkdir(parents=True)
    spec = RunSpec(job_id="job_1", kind="pretrain", name="mine", config={}, home=str(home))
    (folder / "spec.json").write_text(spec.model_dump_json())
    assert nanochat(monkeypatch, "report", "mine") == 0
    markdown, html = map(Path, capsys.readouterr().out.split())
    assert markdown == home / "reports" / "mine" / "report.md"
    assert markdown.is_file() and html.is_file()
    assert nanochat(monkeypatch, "report", "nobody") == 1
    assert "no run is called 'nobody'; there is mine" in capsys.readouterr().err


def test_a_report_is_a_job_where_a_gateway_is_named(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answers["POST /v1/jobs"] = (202, job(status="queued"))
    gateway.answers["GET /v1/jobs/job_1"] = (200, job(kind="report"))
    assert nanochat(monkeypatch, "report", "mine") == 0
    assert gateway.asked[0].body == {"kind": "report", "config": {"run": "mine"}}
    assert "reports/mine/report.md" in capsys.readouterr().out
