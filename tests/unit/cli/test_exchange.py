"""`nanochat export` and `nanochat import` as they are typed."""

import json
from pathlib import Path

import pytest
import torch

from nanochat.checkpoint import store
from nanochat.cli.main import main
from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.model.names import named_tensors
from nanochat.tokenizer.bpe import Tokenizer

CONFIG = GPTConfig(sequence_len=32, vocab_size=265, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)


@pytest.fixture
def checkpoint(home: Path) -> str:
    model = GPT(CONFIG)
    init_weights(model, torch.Generator().manual_seed(0))
    tokenizer = Tokenizer([bytes([byte]) for byte in range(256)])
    return store.save(
        home, "mine", "sft", 3, model_tensors=named_tensors(model), config=CONFIG, tokenizer=tokenizer, state={}
    )


def nanochat(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process; its exit status."""
    monkeypatch.setattr("sys.argv", ["nanochat", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_checkpoint_goes_out_and_comes_back(
    checkpoint: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert nanochat(monkeypatch, "export", "mine", "out") == 0
    said = capsys.readouterr().out
    assert "transformers' own class lacks value embeddings" in said
    assert 'from_pretrained("out", trust_remote_code=True)' in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "modeling_nanochat_gpt.py",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert nanochat(monkeypatch, "import", "out", "--run", "again", "--step", "5") == 0
    said = capsys.readouterr().out
    assert "imported out as again/imported/step_000005" in said
    again = store.load(home / "checkpoints/again/imported/step_000005")
    assert again.config == CONFIG
    assert torch.equal(again.model_tensors["layer.0.query"], _saved(home, checkpoint)["layer.0.query"])


def _saved(home: Path, checkpoint: str) -> dict[str, torch.Tensor]:
    return store.load(home / "checkpoints" / checkpoint).model_tensors


def test_constants_that_differ_from_ours_are_said(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert nanochat(monkeypatch, "export", checkpoint, out) == 0
    assert nanochat(monkeypatch, "import", out, "--run", "other", "--stage", "sft", "--set", "softcap=20") == 0
    said = capsys.readouterr().out
    assert "its constants, as its files show: softcap=20" in said
    assert "nanochat models promote other/sft/step_000000" in said


def test_what_stands_in_the_way_is_one_sentence(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for arguments, said in (
        (("export", checkpoint, str(out)), "is there already, and an export overwrites nothing"),
        (("export", "nobody", str(tmp_path / "new")), "no complete checkpoint under 'nobody'"),
        (("export", checkpoint, str(tmp_path / "new"), "--dtype", "int4"), "dtype is 'int4'; use fp32, bf16, fp16"),
        (("import", str(out), "--run", "a"), "holds neither model_*.pt with meta_*.json"),
        (("import", str(tmp_path / "new"), "--run", "a"), "there is no folder"),
        (("import", str(out), "--run", "a", "--set", "softcap"), "is no KEY=VALUE"),
    ):
        assert nanochat(monkeypatch, *arguments) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", None, "holds neither"),
        ("config.json", '{"model_type": "llama"}', "has the model_type 'llama'"),
        ("config.json", "[]", "holds list"),
        ("model.safetensors", None, "lacks model.safetensors"),
        ("model.safetensors", "short", "model.safetensors cannot be read"),
        ("tokenizer.json", None, "lacks tokenizer.pkl or tokenizer.json"),
        ("tokenizer.json", "{}", "should have the keys"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../../secret"}}', "does not say which files"),
    ],
)
def test_a_damaged_folder_is_refused_by_the_file(
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str | None,
    said: str,
) -> None:
    out = tmp_path / "out"
    assert nanochat(monkeypatch, "export", checkpoint, str(out)) == 0
    if content is None:
        (out / name).unlink()
    else:
        (out / name).write_text(content)
    assert nanochat(monkeypatch, "import", str(out), "--run", "a") == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"windows": [1, 1]}, "has windows [1, 1]"),
        ({"n_layer": 1}, "has windows"),
        ({"n_head": 5}, "does not divide"),
        ({"smear": False}, "unknown ['smear_gate', 'smear_lambda']"),
    ],
)
def test_a_config_that_was_changed_is_noticed(
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, object],
    said: str,
) -> None:
    out = tmp_path / "out"
    assert nanochat(monkeypatch, "export", checkpoint, str(out)) == 0
    values = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(values | change))
    assert nanochat(monkeypatch, "import", str(out), "--run", "a") == 1
    assert said in capsys.readouterr().err
