"""A series as a user runs it: two depths of the miniseries without services, then its table and its fit."""

import json
from pathlib import Path

import pytest

from nanochat.cli.main import main

from .conftest import write_dataset

TINY = {
    "aspect_ratio": 16,
    "head_dim": 16,
    "max_seq_len": 64,
    "device_batch_size": 4,
    "total_batch_size": 256,
    "num_iterations": 3,
    "eval_tokens": 512,
    "core_metric_every": 0,
    "compile": "false",
}


def nanochat(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["nanochat", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.slow
def test_two_depths_run_locally_and_tell_their_table_and_what_is_missing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    dataset = write_dataset(home / "datasets" / "sentences")
    overrides = [f"pretrain.{key}={value}" for key, value in TINY.items()]
    overrides += [f"{stage}.dataset={dataset}" for stage in ("tokenizer", "pretrain")]
    overrides += ["tokenizer.vocab_size=280", "d10.depth=2", "d11.depth=3", 'stages=["tokenizer","d10","d11"]']
    options = ["--name", "mini", "--local", "--num-processes", "1"]
    assert nanochat(monkeypatch, "train", "miniseries", *overrides, *options) == 0
    made = sorted(path.relative_to(home / "checkpoints").as_posix() for path in home.glob("checkpoints/*/*/step_*"))
    assert made == ["mini-d10/pretrain/step_000003", "mini-d11/pretrain/step_000003"]
    assert not list(tmp_path.glob("torchelastic_*"))
    capsys.readouterr()

    assert nanochat(monkeypatch, "miniseries", "mini") == 0
    said = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in said if line.startswith("mini-")}
    assert [rows[name][1] for name in ("mini-d10", "mini-d11")] == ["2", "3"]
    assert {row[3] for row in rows.values()} == {"768"}  # 3 steps of 256 tokens
    assert all(0 < float(row[5]) < 20 for row in rows.values())
    assert "missing: mini-d12 (no checkpoint yet)" in said

    assert nanochat(monkeypatch, "scaling-laws", "mini-d10", "mini-d11") == 0
    assert "Two budgets with a lowest point are needed" in capsys.readouterr().out
    report = json.loads((home / "reports" / "mini-d10" / "scaling_laws.json").read_text())
    assert report["laws"]["parameters"] is None
    assert (home / "reports" / "mini-d10" / "scaling_laws.svg").read_text().startswith("<svg")

    assert nanochat(monkeypatch, "scaling-laws", "other") == 1
    assert "no run 'other'" in capsys.readouterr().err
