"""The task that the README writes works as it stands there."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from nanochat.tasks import registry
from nanochat.tasks.loading import load

README = Path(__file__).parents[3] / "README.md"


def test_the_readmes_own_task_is_read_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "Capitals(" in block
    ]
    file = tmp_path / "capitals.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("capitals", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(registry.TASKS, "capitals", module.Capitals)
    (tmp_path / "capitals").mkdir()
    for split in ("train", "test"):
        (tmp_path / "capitals" / f"{split}.jsonl").write_text(json.dumps({"country": "France", "capital": "Paris"}))
    task = load("capitals", "held_out", tmp_path)
    (conversation,) = task
    assert conversation.messages[0].content == "What is the capital of France?"
    assert task.rewards([conversation] * 2, ["Paris", "Lyon"]) == [1.0, 0.0]
