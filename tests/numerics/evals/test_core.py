"""CORE scoring against reference outcomes of a tiny random model, example by example."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.evals.core import load_examples, score_task
from nanochat.evals.core_tasks import CORE_TASKS, CoreTask
from nanochat.evals.likelihood import Scorer
from nanochat.model.gpt import GPT
from nanochat.model.names import load_tensors
from nanochat.tokenizer.bpe import Tokenizer


@pytest.mark.parametrize("task", CORE_TASKS, ids=lambda task: task.label)
def test_every_outcome_is_that_of_the_reference(task: CoreTask, test_data: Path) -> None:
    golden = json.loads((test_data / "golden" / "core.json").read_text())
    if task.label not in golden["tasks"]:
        pytest.skip(f"no reference outcomes for {task.label}")
    model = GPT(GPTConfig(**golden["model"]))
    with np.load(test_data / "golden" / "core_model.npz") as arrays:
        load_tensors(model, {name.partition("/")[2]: torch.from_numpy(arrays[name]) for name in arrays.files})
    tokenizer = Tokenizer.load(test_data / "golden" / "tokenizer.json")
    expected = golden["tasks"][task.label]
    examples = load_examples(task, test_data / "core", expected["max_per_task"])
    score = score_task(Scorer.of(model), tokenizer, task, examples)
    assert [None if outcome is None else int(outcome) for outcome in score.outcomes] == expected["correct"]
