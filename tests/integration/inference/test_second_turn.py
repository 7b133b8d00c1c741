"""A chat's second turn as users ask for it: what the first one computed is found, counted, and changes nothing."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from nanochat.checkpoint import store
from nanochat.config import GPTConfig
from nanochat.engine.backend import BLOCK_TOKENS
from nanochat.model.names import named_tensors
from nanochat_gateway.app import create_app
from tests.decisive_model import decisive_model
from tests.integration.gateway.conftest import settings_with
from tests.integration.gateway.server import serving
from tests.integration.inference.chain_model import TOKENIZER
from tests.integration.inference.conftest import Serve

CONFIG = GPTConfig(
    sequence_len=1024, vocab_size=265, n_layer=4, n_head=4, n_kv_head=2, n_embd=64, short_window_divisor=16
)
NUM_ANSWERED = 40
# Longer than what a layer with a window holds, so that its beginning was overwritten when the second turn comes.
FIRST = {"role": "user", "content": "Tell me how a model that has read very little answers. " * 12}
NEXT = {"role": "user", "content": "And what does it say to that?"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a random model that says small letters only and never ends: its text is the same tokens again."""
    model, home = decisive_model(CONFIG, seed=8), tmp_path_factory.mktemp("home")
    with torch.no_grad():
        model.head.weight[: ord("a")] = 0
        model.head.weight[ord("z") + 1 :] = 0
    made = store.save(
        home,
        "random",
        "sft",
        1,
        model_tensors=named_tensors(model),
        config=CONFIG,
        tokenizer=TOKENIZER,
        state={"metrics": {}},
    )
    return home / "checkpoints" / made


@pytest.fixture(scope="module")
def gateways(serve: Serve, checkpoint: Path) -> Iterator[list[str]]:
    """Before a replica that finds beginnings again, and before one that does not."""
    replicas = [
        serve(promoted=None, checkpoint=checkpoint, precision="fp32", prefix_cache_mib=size) for size in (16, 0)
    ]
    with ExitStack() as servers:
        for replica in replicas:
            replica.until(replica.is_ready, "the model is served", 60)
        settings = [settings_with(inference_urls=replica.url, trainer_url=replica.url) for replica in replicas]
        yield [servers.enter_context(serving(create_app(each))) for each in settings]


def ask(url: str, messages: list[dict[str, str]]) -> tuple[str, dict[str, Any]]:
    """The answer, and what it used."""
    body = {"model": "nanochat", "messages": messages, "temperature": 0, "max_tokens": NUM_ANSWERED}
    response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    told = response.json()
    return told["choices"][0]["message"]["content"], told["usage"]


def test_a_second_turn_computes_only_what_is_new_and_says_what_it_would_have_said(gateways: list[str]) -> None:
    with_reuse, without = gateways
    answer, first = ask(with_reuse, [FIRST])
    assert len(answer) == NUM_ANSWERED and answer.isascii()
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    turn = [FIRST, {"role": "assistant", "content": answer}, NEXT]
    again, second = ask(with_reuse, turn)
    # The whole first turn in whole blocks, but for its newest token, which was never computed.
    num_computed = first["prompt_tokens"] + NUM_ANSWERED - 1
    assert second["prompt_tokens_details"]["cached_tokens"] == num_computed // BLOCK_TOKENS * BLOCK_TOKENS
    assert second["prompt_tokens"] > num_computed
    expected, plain = ask(without, turn)
    assert plain["prompt_tokens_details"]["cached_tokens"] == 0
    assert (again, second["prompt_tokens"]) == (expected, plain["prompt_tokens"])
