"""`nanochat bench serve` and `nanochat bench engine` as they are typed: tables, files, refusals; real services once."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from nanochat.cli.bench_serve import _server
from nanochat.cli.main import app
from nanochat.cli.vllm import VLLM, Sizes
from nanochat.errors import InvalidConfig, NotFound, Unavailable
from tests.integration.bench.fake_openai import FakeOpenAI
from tests.integration.gateway.server import serving

FAST = {"first_s": 0.01, "gap_s": 0.001}
# What vLLM would say of one, and then of two streams.
VLLM_SAYS = {
    "version": "0.0.test",
    "figures": [
        {"num_streams": 1, "prefill_s": 1.0, "total_s": 10.0},
        {"num_streams": 2, "prefill_s": 2.0, "total_s": 20.0},
    ],
}


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["bench", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


def run_apart(*arguments: str) -> str:
    command = [sys.executable, "-m", "nanochat.cli.main", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout


def written(home: Path, kind: str, suffix: str = "json") -> Path:
    (path,) = (home / "bench").glob(f"{kind}-*.{suffix}")
    return path


def test_a_sweep_prints_a_table_and_writes_figures_and_a_picture(home: Path) -> None:
    with serving(FakeOpenAI(**FAST).app) as url:
        output = run("serve", "--url", url, "--concurrency", "1,2", "--num-requests", "4", "--goodput", "ttft=10s")
    assert "TTFT" in output and "100%" in output
    report = json.loads(written(home, "serve").read_text())
    assert [level["load"] for level in report["levels"]] == [1, 2]
    assert report["model"] == "fake" and report["levels"][0]["figures"]["num_requests"] == 4
    assert report["levels"][1]["figures"]["ttft"]["p50"] > 0
    ElementTree.fromstring(written(home, "serve", "svg").read_text())


def test_failed_requests_are_told_and_do_not_end_the_run(home: Path) -> None:
    # Two are asked to find out what the server takes, of which one is counted; one is the warm-up.
    with serving(FakeOpenAI(**FAST, fails={3: "status"}).app) as url:
        output = run("serve", "--url", url, "--concurrency", "1", "--num-requests", "4")
    assert "1 of 4 requests failed: status 503" in output


def test_random_arrivals_are_asked_for_by_their_rate(home: Path) -> None:
    with serving(FakeOpenAI(**FAST).app) as url:
        run("serve", "--url", url, "--rate", "20,40", "--num-requests", "6", "--max-tokens", "2-5")
    assert json.loads(written(home, "serve").read_text())["load"] == "rate"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--concurrency", "1", "--rate", "2"], "not both"),
        (["--concurrency", "1.5"], "no list of loads"),
        (["--rate", "0"], "no list of loads"),
        (["--rate", "nan"], "no list of loads"),
        (["--goodput", "soon"], "no target"),
        (["--prompt-tokens", "many", "--num-requests", "1", "--concurrency", "1"], "no length"),
        (["--duration", "0"], "no duration"),
        (["--case", "memory"], "--random-model"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], why: str, home: Path) -> None:
    with serving(FakeOpenAI().app) as url, pytest.raises(InvalidConfig, match=why):
        run("serve", "--url", url, *arguments)


def test_the_key_of_the_stack_is_not_sent_to_an_address_that_was_typed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOCHAT_ADMIN_KEYS", "secret")

    async def header(url: str) -> str | None:
        async with _server(url, "", 1.0, 0, 1) as (server, _):
            return server._client.headers.get("authorization")

    assert asyncio.run(header("http://127.0.0.1:1")) is None
    assert asyncio.run(header("")) == "Bearer secret"


@pytest.mark.slow
def test_the_engine_is_measured_beside_a_peer(home: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nprint('a log line')\nprint({json.dumps(json.dumps(VLLM_SAYS))})\n")
    python.chmod(0o755)
    # In a process of its own, whose threads it sets.
    output = run_apart(
        *("engine", "--depth", "1", "--streams", "1,2", "--rounds", "1", "--weights", "fp32"),
        *("--prompt-tokens", "8", "--new-tokens", "4", "--vllm-python", str(python)),
    )
    assert "vLLM 0.0.test" in output and "plain PyTorch" in output and "GB/s" in output
    (depth,) = json.loads(written(home, "engine").read_text())["depths"]
    ours, theirs = depth["prompts"]["nanochat fp32"], depth["prompts"]["vLLM 0.0.test"]
    assert [one["num_streams"] for one in ours] == [1, 2] and all(one["tokens_per_second"] > 0 for one in ours)
    assert [one["tokens_per_second"] for one in theirs] == pytest.approx([0.4, 0.4])
    assert set(depth["samples"]) == {"nanochat fp32", "plain PyTorch"}


@pytest.mark.parametrize("arguments", [["--depth", "0"], ["--depth", "x"], ["--streams", "1,,2"], ["--weights", "fp4"]])
def test_sizes_that_are_none_are_refused(arguments: list[str], home: Path) -> None:
    with pytest.raises(InvalidConfig):
        run("engine", *arguments)


def test_a_peer_that_is_not_installed_is_said_before_anything_is_measured(home: Path) -> None:
    with pytest.raises(NotFound, match="make bench-peers"):
        run("engine", "--vllm-python", "/nonexistent/python")


def test_a_peer_that_fails_is_told_with_the_end_of_its_output(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho it has no such operator\nexit 3\n")
    python.chmod(0o755)
    sizes = Sizes(
        n_layer=1, n_embd=64, n_head=1, vocab_size=320, max_model_len=16,
        prompt_tokens=8, new_tokens=4, streams=(1,), num_rounds=1, temperature=0.0,
    )  # fmt: skip
    with pytest.raises(Unavailable, match=r"status 3:\n.*no such operator"):
        asyncio.run(VLLM(python, tmp_path).measure(sizes))


def test_llama_cpp_is_refused_where_it_would_not_be_measured(home: Path) -> None:
    with pytest.raises(InvalidConfig, match="--http"):
        run("engine", "--llama-python", sys.executable)


@pytest.mark.slow
def test_a_random_model_is_served_and_its_memory_watched(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_INFERENCE_PREFIX_CACHE_MIB", "16")  # a model this small fills no large one in time
    output = run("serve", "--random-model", "1", "--case", "memory", "--num-requests", "40")
    assert "(0 failed)" in output
    report = json.loads(written(home, "memory").read_text())
    assert report["before_bytes"] > 10 * 2**20 and len(report["samples_bytes"]) == 21
