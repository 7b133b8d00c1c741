"""Models whose words are known: each token has one successor, written into the weights."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import torch

from nanochat.checkpoint import store
from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.names import named_tensors
from nanochat.tokenizer.bpe import Tokenizer

# C holds a dimension for each of the 265 tokens. The context is long, so that a stream can be met in its middle.
CONFIG = GPTConfig(sequence_len=8192, vocab_size=265, n_layer=1, n_head=8, n_kv_head=1, n_embd=288, backout=False)
TOKENIZER = Tokenizer([bytes([byte]) for byte in range(256)])


def chain(*texts: str) -> dict[int, int]:
    """The successor of each token along the texts, where <|...|> are single tokens and written with blanks around."""
    table: dict[int, int] = {}
    for text in texts:
        ids = [
            token_id
            for part in text.split(" ")
            for token_id in ([TOKENIZER.special_id(part)] if part.startswith("<|") else TOKENIZER.encode(part))
        ]
        table.update(itertools.pairwise(ids))
    return table


def chain_model(successors: Mapping[int, int]) -> GPT:
    """Says successors[token] after a token, whatever came before it; assistant_end after all others."""
    model = GPT(CONFIG)
    end = TOKENIZER.special_id("<|assistant_end|>")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # no attention, no MLP: what comes out is the token's own embedding
        model.resid_lambdas.fill_(1.0)
        model.embedding.weight.copy_(torch.eye(*model.embedding.weight.shape))
        for token in range(CONFIG.vocab_size):
            model.head.weight[successors.get(token, end), token] = 1.0
    return model.requires_grad_(False).eval()


# After a user's message: a calculator call, then "!". After the text "a": abab without end; after "x": xyxy.
CALLS = chain("<|assistant_start|> <|python_start|> 6*7 <|python_end|>", "<|output_end|> ! <|assistant_end|>")
ABAB = {**CALLS, **chain("aba"), **chain("xa")}
XYXY = {**CALLS, **chain("xyx"), **chain("ax")}


def save_chain(home: Path, run: str, step: int, successors: Mapping[int, int]) -> str:
    return store.save(
        home,
        run,
        "sft",
        step,
        model_tensors=named_tensors(chain_model(successors)),
        config=CONFIG,
        tokenizer=TOKENIZER,
        state={"metrics": {}},
    )


def damaged(home: Path, run: str, step: int) -> str:
    """A checkpoint of which one byte of the weights has changed."""
    checkpoint = save_chain(home, run, step, XYXY)
    path = home / "checkpoints" / checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return checkpoint
