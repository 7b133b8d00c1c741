"""llama.cpp's server as something to compare with over HTTP, in an environment of its own.

It gets this process's cores and a GPT-2 with random weights, which tests/bench/peers makes; so a clone of the
repository is needed. Nothing of llama.cpp is imported here.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from nanochat.cli.ports import any_free_port
from nanochat.cli.service import Service, ServiceSpec
from nanochat.cli.vllm import PEERS, Sizes, require_peer
from nanochat.cores import usable_cores

Weights = Literal["f32", "q8_0"]
LLAMA_WEIGHTS: tuple[Weights, ...] = ("f32", "q8_0")
_SCRIPT = PEERS / "llama_cpp.py"


@asynccontextmanager
async def serve_llama_cpp(python: Path, folder: Path, sizes: Sizes, weights: Weights) -> AsyncIterator[str]:
    """The address of its OpenAI-compatible server. Raises NotFound, or Unavailable with the log's end."""
    require_peer(python, _SCRIPT)
    port = any_free_port()
    asked = {
        "n_layer": sizes.n_layer,
        "n_embd": sizes.n_embd,
        "n_head": sizes.n_head,
        "vocab_size": sizes.vocab_size,
        "max_model_len": sizes.max_model_len,
        "num_slots": max(sizes.streams),
        "num_threads": usable_cores(),
        "weights": weights,
    }
    spec = ServiceSpec(
        name="llama.cpp",
        command=[str(python), str(_SCRIPT), str(folder), str(port), json.dumps(asked)],
        port=port,
        health="/health",
        start_s=300.0,
    )
    async with Service(spec, folder / "llama.cpp.log").running() as url:
        yield url
