"""What computes a step: the model, the cache of its sequences, and where prefixes are kept. Two of a kind:

native_backend.py  a CPU's own kernels (nanochat.native), float32 or int8
torch_backend.py   GPT and KVCache on any device of torch's

Which rows run, and with how many of their tokens, is decided above (plan.py); what is made of the logits, too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from nanochat.errors import InvalidConfig, Unavailable
from nanochat.model.gpt import GPT

Weights = Literal["auto", "fp32", "int8"]
# Positions that are kept and found together when prompts begin alike.
BLOCK_TOKENS = 16


class Chunk(NamedTuple):
    """The next tokens of a slot, from position `start` on. `previous_id` is the token before them; -1 at the start."""

    slot: int
    start: int
    token_ids: list[int]
    previous_id: int


class BlockStore(Protocol):
    """Room for blocks of BLOCK_TOKENS positions outside of any slot, by index."""

    def save(self, slot: int, blocks: Mapping[int, int]) -> None:
        """Copy blocks of a slot, the first ones first, each to its index: positions block * BLOCK_TOKENS and on, all of
        them computed, none of them long ago."""

    def restore(self, slot: int, blocks: Mapping[int, int]) -> None:
        """Copy back all that a slot begins with, from its first block on."""


class Backend(Protocol):
    """Slots hold a sequence each, of max_len tokens at most; max_chunk are the most tokens of a slot in one step.
    step_tokens, of all slots, are the most that are worth computing at once where nobody waits for a next token.

    A slot may go back: a chunk that starts before the end of what its slot holds replaces the rest. It starts at 0, or
    at most max_chunk tokens before the farthest end since the slot last began at 0 or was restored: layers with a
    window no longer hold what those before that see.

    `weights` says in which form the matrices are; num_torch_threads how many threads torch should have for what is done
    with the logits, None being as many as it has. One thread at a time.
    """

    num_slots: int
    max_len: int
    max_chunk: int
    step_tokens: int
    weights: str
    num_torch_threads: int | None

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        """Logits (B, V) float32 after the last token of each chunk; slots are distinct."""

    def forward_all(self, chunk: Chunk) -> Tensor:
        """Logits (T, V) float32 after each token of a chunk."""

    def forward_ends(self, chunks: Sequence[Chunk], counts: Sequence[int]) -> Tensor:
        """Logits (sum, V) float32 after the last tokens of chunks, as many of each as its count says; 0 is none.

        Those of the first chunk come first.
        """

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Make target hold the first `length` tokens of source, all that source holds. It may go back as source may."""

    def block_bytes(self) -> int:
        """What one block of a store takes."""

    def new_block_store(self, num_blocks: int) -> BlockStore:
        """Memory is taken as blocks are written."""


def make_backend(
    model: GPT,
    *,
    num_slots: int,
    max_len: int,
    weights: Weights = "fp32",
    is_frozen: bool = False,
    on_progress: Callable[[], None] = lambda: None,
) -> Backend:
    """The kernels of the CPU for a float32 model on it, where they can be had; else torch.

    is_frozen: the weights will not change; the backend then keeps of the model what it needs. on_progress is called
    again and again while matrices are packed.

    "auto" takes int8 where the kernels are and torch's own dtype elsewhere; what that costs is not looked at here
    (quality.py). Raises InvalidConfig where int8 is asked for and cannot be had.
    """
    from nanochat.engine.native_backend import NativeBackend
    from nanochat.engine.torch_backend import TorchBackend

    if NativeBackend.suits(model):
        try:
            native: Literal["fp32", "int8"] = "fp32" if weights == "fp32" else "int8"
            return NativeBackend(
                model,
                num_slots=num_slots,
                max_len=max_len,
                weights=native,
                is_frozen=is_frozen,
                on_progress=on_progress,
            )
        except Unavailable as exc:
            if weights == "int8":
                raise InvalidConfig(f"int8 weights need the CPU's kernels: {exc.message}", param="precision") from exc
    elif weights == "int8":
        raise InvalidConfig(
            f"int8 weights are for CPUs; this model computes in {model.compute_dtype} on {model.device}.",
            param="precision",
        )
    return TorchBackend(model, num_slots=num_slots, max_len=max_len)
