"""nanochat train PROFILE: what is submitted, and what a dry run prints instead."""

from pathlib import Path

import pytest

from nanochat.cli.jobs import job_spec
from nanochat.errors import InvalidConfig
from tests.unit.cli.test_commands import nanochat


def test_a_profile_is_a_pipeline_with_overrides_by_stage() -> None:
    values = {"2.15e18-d8.seed": 1, "pretrain.depth": 2, "pretrain.seed": 3, "stages": ["tokenizer"]}
    spec = job_spec("scaling_laws", values, "mine", None)
    assert (spec.kind, spec.name, spec.num_processes) == ("pipeline", "mine", None)
    assert spec.config == {
        "profile": "scaling_laws",
        "overrides": {"2.15e18-d8": {"seed": 1}, "pretrain": {"depth": 2, "seed": 3}},
        "stages": ["tokenizer"],
    }


def test_a_key_of_no_stage_and_an_unknown_word_are_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"write, for example, pretrain.depth="):
        job_spec("demo", {"depth": 2}, None, None)
    with pytest.raises(InvalidConfig, match=r"'dmeo' is neither a profile .*demo.* nor a kind"):
        job_spec("dmeo", {}, None, None)


def test_a_dry_run_tells_sizes_memory_time_and_cost_and_asks_nobody(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--dry-run", "--hardware", "H100,A100", "--price", "2", "--mfu", "0.5")
    assert nanochat(monkeypatch, "train", "speedrun", *options) == 0
    said = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split() for line in said.splitlines() if line.startswith("8 x")}
    # 2.788e19 FLOPs / (8 x 989e12 x 0.5) = 7047 s, for 16 dollars an hour: 31.32 dollars.
    assert rows["8 x H100"][-6:] == ["yes", "yes", "50%", "1h57m", "2.00", "$31.32"]
    assert rows["8 x A100"][-6:-3] == ["yes", "no", "50%"]
    assert "1.38B" in said and "604M" in said and "2.79e+19" in said
    assert "Not counted, as only the run itself finds out: tokenizer, base-eval, sft, chat-eval, report." in said
    assert not (home / "jobs").exists()


def test_a_dry_run_of_a_job_assumes_a_vocabulary_where_the_tokenizer_is_elsewhere(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nanochat(monkeypatch, "train", "pretrain", "depth=4", "--dry-run", "--hardware", "RTX 4090") == 0
    said = capsys.readouterr().out
    assert "a vocabulary of 32768 is assumed" in said
    assert "36.7M" in said and "1.11e+16" in said and "RunPod" in said


def test_a_dry_run_refuses_hardware_that_it_does_not_know(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nanochat(monkeypatch, "train", "demo", "--dry-run", "--hardware", "H1000") == 1
    assert "hardware 'H1000' is not in the table; choose from H200" in capsys.readouterr().err
