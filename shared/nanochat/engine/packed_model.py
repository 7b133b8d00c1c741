"""A GPT's weights packed for the CPU's kernels, and the cache of its sequences.

What a step computes is gpt.py's; how, model.h's. Which sequence sits in which slot is the engine's business.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nanochat.config import GPTConfig
from nanochat.model.rotary import rotary_table
from nanochat.native import library

Weights = Literal["fp32", "int8"]


class NativeModel:
    """Weights in one of two forms. "int8": matrices as bytes with a scale an output, activations with one a row,
    keys and values as bfloat16.

    tensors are by their names in checkpoints, float32 on the CPU; embeddings are read where they lie and kept alive.
    Raises Unavailable where the kernels cannot be had. One step at a time.
    """

    def __init__(
        self,
        config: GPTConfig,
        tensors: Mapping[str, Tensor],
        *,
        weights: Weights = "fp32",
        num_threads: int = 1,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """on_progress is called for each matrix that is packed."""
        self.config = config
        self.weights: Weights = weights
        self.num_threads = num_threads = min(num_threads, library.MAX_THREADS)
        self._library = library.load()
        self._on_progress = on_progress
        self._kept: list[Tensor] = []
        windows = np.array(config.windows, dtype=np.int32)
        self._handle = self._library.call("model_new", _struct(config, weights, num_threads), windows.ctypes.data)
        weakref.finalize(self, self._library.call, "model_free", self._handle)
        self._pack(tensors)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take new weights of the same model: after a training step, say."""
        self._kept.clear()
        self._pack(tensors)

    @property
    def weight_bytes(self) -> int:
        """What a step of one token reads of the matrices."""
        return self._library.call("model_weight_bytes", self._handle)

    def new_cache(self, num_slots: int, max_len: int, max_step: int) -> "NativeCache":
        """max_len: at most the model's context. max_step: most tokens of a slot in one step; it sets how much more than
        its window a windowed layer keeps."""
        assert 1 <= max_len <= self.config.sequence_len and num_slots >= 1 and max_step >= 1
        return NativeCache(self._library, self._handle, num_slots, max_len, max_step)

    def step(
        self,
        cache: "NativeCache",
        rows: Sequence[tuple[int, int, int]],
        token_ids: Sequence[int],
        previous_ids: Sequence[int],
        wanted: Sequence[int],
    ) -> Tensor:
        """Logits (len(wanted), V) float32 of the wanted tokens, by their place among all tokens of the step.

        rows are (slot, start, count) for distinct slots; token_ids hold their tokens one row after the other,
        previous_ids the token before each, -1 at a sequence's start. Slots then hold start + count tokens. Raises
        IndexError where any of them is out of range, with nothing computed.
        """
        ids = np.array(token_ids, dtype=np.int32)
        previous = np.array(previous_ids, dtype=np.int32)
        table = np.array(rows, dtype=np.int32)
        places = np.array(wanted, dtype=np.int32)
        assert ids.size == previous.size, "a previous token for each"
        logits = torch.empty((len(wanted), self.config.vocab_size))
        self._library.call(
            "step",
            *(
                self._handle,
                cache.handle,
                table.ctypes.data,
                len(rows),
                ids.size,
                ids.ctypes.data,
                previous.ctypes.data,
            ),
            *(places.ctypes.data, len(wanted), logits.data_ptr()),
        )
        return logits

    def save_blocks(self, cache: "NativeCache", slot: int, blocks: Mapping[int, int], address: int) -> None:
        """Write blocks of 16 positions, the first ones first, each to its place from an address on: cache.block_bytes
        apart. Raises IndexError where a slot or a block is out of range, with nothing written."""
        self._copy_blocks("save_blocks", cache, slot, blocks, address)

    def restore_blocks(self, cache: "NativeCache", slot: int, blocks: Mapping[int, int], address: int) -> None:
        """And back: neighbours there are neighbours here."""
        self._copy_blocks("restore_blocks", cache, slot, blocks, address)

    def _copy_blocks(self, name: str, cache: "NativeCache", slot: int, blocks: Mapping[int, int], address: int) -> None:
        table = np.array([*blocks.items()], dtype=np.int32)
        self._call(name, cache.handle, slot, table.ctypes.data, len(blocks), address)

    def _pack(self, tensors: Mapping[str, Tensor]) -> None:
        config = self.config
        for i in range(config.n_layer):
            projections = [tensors[f"layer.{i}.{part}"] for part in ("query", "key", "value")]
            self._set_matrix(i, library.QKV, torch.cat(projections))
            self._set_matrix(i, library.OUT, tensors[f"layer.{i}.attention_out"])
            self._set_matrix(i, library.UP, tensors[f"layer.{i}.mlp_up"])
            self._set_matrix(i, library.DOWN, tensors[f"layer.{i}.mlp_down"])
            if config.has_value_embedding(i):
                gate, table = tensors[f"layer.{i}.value_gate"], tensors[f"layer.{i}.value_embedding"]
                self._call("model_set_layer_tables", i, self._keep(gate), self._keep(table))
        self._set_matrix(0, library.HEAD, tensors["head"][: config.vocab_size])
        cosines, sines = rotary_table(config.sequence_len, config.head_dim, config.rotary_base)
        smear = self._keep(tensors["smear_gate"]) if config.smear else None
        self._call("model_set_tables", self._keep(tensors["embedding"]), smear, self._keep(cosines), self._keep(sines))
        resid, x0 = _plain(tensors["resid_lambdas"]), _plain(tensors["x0_lambdas"])
        scalars = [float(tensors[name]) if name in tensors else 0.0 for name in ("smear_lambda", "backout_lambda")]
        self._call("model_set_scalars", resid.data_ptr(), x0.data_ptr(), *scalars)

    def _set_matrix(self, layer: int, which: int, weight: Tensor) -> None:
        plain = _plain(weight)
        self._call("model_set_matrix", layer, which, plain.data_ptr(), *plain.shape)
        self._on_progress()

    def _keep(self, tensor: Tensor) -> int:
        """The address of a tensor that the kernels read for as long as they live."""
        plain = _plain(tensor)
        self._kept.append(plain)
        return plain.data_ptr()

    def _call(self, name: str, *arguments: object) -> None:
        self._library.call(name, self._handle, *arguments)


class NativeCache:
    """Keys and values of num_slots sequences; made by NativeModel.new_cache."""

    def __init__(self, loaded: library.Library, model: int, num_slots: int, max_len: int, max_step: int) -> None:
        self.num_slots, self.max_len, self.max_step = num_slots, max_len, max_step
        self._library = loaded
        self.handle = loaded.call("cache_new", model, num_slots, max_len, max_step)
        weakref.finalize(self, loaded.call, "cache_free", self.handle)
        self.block_bytes = loaded.call("cache_block_bytes", self.handle)
        self.size_bytes = loaded.call("cache_bytes", self.handle)

    def copy_slot(self, source: int, target: int, length: int) -> None:
        self._library.call("cache_copy_slot", self.handle, source, target, length)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _struct(config: GPTConfig, weights: Weights, num_threads: int) -> library.Config:
    return library.Config(
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_kv_head=config.n_kv_head,
        n_embd=config.n_embd,
        head_dim=config.head_dim,
        vocab_size=config.vocab_size,
        value_gate_channels=config.value_gate_channels,
        smear_channels=config.smear_channels,
        is_int8=weights == "int8",
        num_threads=num_threads,
        qk_scale=config.qk_scale,
        value_gate_range=config.value_gate_range,
        softcap=config.softcap,
    )
