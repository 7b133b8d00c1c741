"""lm-evaluation-harness runs a task from a local file on a tiny model. Skipped where the harness is not installed."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_prompt
from tests.decisive_model import decisive_model

lm_eval = pytest.importorskip(
    "lm_eval", reason="lm_eval is not installed (pip install 'nanochat-shared[harness]')", exc_type=ImportError
)
pytestmark = pytest.mark.filterwarnings("ignore")  # the harness's own and its packages'

QUESTIONS = [
    {"question": f"What is {i} plus one?", "choices": [str(i + 1), "a cat"], "answer": i % 2} for i in range(8)
]


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> GPT:
    config = GPTConfig(sequence_len=128, vocab_size=tokenizer.vocab_size, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)
    return decisive_model(config, seed=3)


def make_task(folder: Path, name: str, **settings: Any) -> dict[str, Any]:
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    files = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    return {"task": name, **files, "doc_to_text": "{{question}}", **settings}


def run(model: GPT, tokenizer: Tokenizer, task: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from nanochat.evals.harness import HarnessModel

    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    found = lm_eval.simple_evaluate(HarnessModel(model, tokenizer), tasks=[task], bootstrap_iters=0)
    assert found is not None
    return found["results"][task["task"]]


def log_prob(model: GPT, tokenizer: Tokenizer, before: str, text: str) -> float:
    ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(before + text)]])
    num_judged = len(tokenizer.encode(text))
    with torch.inference_mode():
        log_probs = model(ids).double().log_softmax(dim=-1)[0, -num_judged - 1 : -1]
    return float(log_probs.gather(1, ids[0, -num_judged:, None]).sum())


def test_a_choice_among_texts_is_what_whole_rows_say(
    model: GPT, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(
        tmp_path, "sums", output_type="multiple_choice", doc_to_choice="{{choices}}", doc_to_target="answer"
    )
    right = []
    for each in QUESTIONS:
        likely = [log_prob(model, tokenizer, str(each["question"]), f" {choice}") for choice in each["choices"]]  # type: ignore[attr-defined]
        right.append(likely.index(max(likely)) == each["answer"])
    assert run(model, tokenizer, task, tmp_path, monkeypatch)["acc,none"] == sum(right) / 8


def test_whole_texts_are_scored_past_the_models_context(
    model: GPT, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The questions fit: there whole rows say it. A text four times as long as the context has a likelihood too."""
    from nanochat.evals.harness import HarnessModel

    task = make_task(
        tmp_path, "text", output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{question}}"
    )
    task["metric_list"] = [{"metric": "bits_per_byte"}]
    found = run(model, tokenizer, task, tmp_path, monkeypatch)["bits_per_byte,none"]
    texts = [str(each["question"]) for each in QUESTIONS]
    nats = -sum(log_prob(model, tokenizer, "", text) for text in texts)
    assert found == pytest.approx(nats / sum(map(len, texts)) / math.log(2), rel=1e-5)
    long = [SimpleRequest(("ab" * 256,))]
    (total,) = HarnessModel(model, tokenizer).loglikelihood_rolling(long)  # type: ignore[arg-type]
    assert -math.inf < total < 0


class SimpleRequest:
    def __init__(self, args: tuple[Any, ...]) -> None:
        self.args = args


def test_texts_end_before_a_stop_string_however_many_there_are(model: GPT, tokenizer: Tokenizer) -> None:
    from nanochat.evals.harness import HarnessModel

    harness = HarnessModel(model, tokenizer)
    plain = {"until": [], "max_gen_toks": 24, "do_sample": False}
    (whole,) = harness.generate_until([SimpleRequest(("Hello", plain))])  # type: ignore[list-item]
    assert len(whole) > 3
    stops = ["\x01no", "\x02no", "\x03no", "\x04no", whole[2]]
    (cut,) = harness.generate_until([SimpleRequest(("Hello", {**plain, "until": stops}))])  # type: ignore[list-item]
    assert cut == whole[: whole.index(whole[2])]


def test_names_of_special_tokens_are_tokens_in_a_rendered_chat_alone(model: GPT, tokenizer: Tokenizer) -> None:
    from nanochat.evals.harness import HarnessModel
    from nanochat.protocol.generate import Message

    harness = HarnessModel(model, tokenizer)
    text = harness.apply_chat_template([{"role": "user", "content": "Hi"}])
    assert harness.tok_encode(text) == render_prompt(tokenizer, [Message(role="user", content="Hi")])
    assert harness.tok_encode("a<|bos|>") == [tokenizer.bos_id, *tokenizer.encode("a<|bos|>")]
