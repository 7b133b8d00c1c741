"""Identity conversations written by this project's own gateway: a model that knows one conversation by heart."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from nanochat.checkpoint import store
from nanochat.cli.temporary_service import checkpoint_service
from nanochat.config import GPTConfig
from nanochat.errors import DataError
from nanochat.identity.generator import Endpoint, generate
from nanochat.model.gpt import GPT
from nanochat.model.names import named_tensors
from nanochat.recipes.conversations import CustomJSON
from nanochat.tasks.persona import default_persona
from nanochat.tokenizer.bpe import Tokenizer

PIECES = ['{"messages": [{"role": "user", "content": "', "Who are you?", '"}, {"role": "assistant", "content": "']
PIECES += ["I am nanochat.", '"}]}']


def checkpoint(home: Path) -> Path:
    """Of a model whose tokens are pieces of the conversation, each followed by the next."""
    tokenizer = Tokenizer([*(bytes([byte]) for byte in range(256)), *(piece.encode() for piece in PIECES)])
    config = GPTConfig(sequence_len=4096, vocab_size=270, n_layer=1, n_head=8, n_kv_head=1, n_embd=288, backout=False)
    words = [
        tokenizer.special_id("<|assistant_start|>"),
        *range(256, 256 + len(PIECES)),
        tokenizer.special_id("<|assistant_end|>"),
    ]
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # no attention, no MLP: what comes out is the token's own embedding
        model.resid_lambdas.fill_(1.0)
        model.embedding.weight.copy_(torch.eye(*model.embedding.weight.shape))
        for word, following in itertools.pairwise(words):
            model.head.weight[following, word] = 1.0
    saved = store.save(
        home,
        "who",
        "sft",
        1,
        model_tensors=named_tensors(model.requires_grad_(False)),
        config=config,
        tokenizer=tokenizer,
        state={"metrics": {}},
    )
    return home / "checkpoints" / saved


async def test_our_own_gateway_writes_them_and_the_same_one_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "who.jsonl"
    threads = {"NANOCHAT_INFERENCE_NUM_THREADS": "1"}
    async with checkpoint_service(tmp_path, checkpoint(tmp_path), max_running=4, environment=threads) as service:
        endpoint = Endpoint(url=f"{service.url}/v1", model="nanochat", temperature=0.0, max_tokens=64)
        counts = await generate(default_persona(), endpoint, file, 1)
        assert (counts.num_written, counts.refused.total()) == (1, 0)
        with pytest.raises(DataError, match="the same first exchange as before"):
            await generate(default_persona(), endpoint, file, 2)
    (conversation,) = CustomJSON(file)
    assert [message.content for message in conversation.messages] == ["Who are you?", "I am nanochat."]
    assert json.loads(file.read_text())["draw"] == 0
