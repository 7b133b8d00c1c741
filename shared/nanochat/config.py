"""Sizes and constants of the model, torch-free, saved whole in every checkpoint as config.json.

What a job may be asked for is protocol/jobs.py; how a service is deployed is settings.py.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from nanochat.errors import InvalidConfig


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Sizes of one GPT. Letters as in the model: L = n_layer, H = n_head, Hk = n_kv_head, C = n_embd, V = vocab_size.

    The constants below `window_pattern` differ in checkpoints published by earlier versions of nanochat, so they are
    fields: an old file loads by naming its own. Raises InvalidConfig on an impossible combination.
    """

    sequence_len: int = 2048
    vocab_size: int = 32768
    n_layer: int = 12
    n_head: int = 6
    n_kv_head: int = 6
    n_embd: int = 768
    window_pattern: str = "SSSL"

    rotary_base: float = 100_000.0
    qk_scale: float = 1.2  # factor on q and k after their norm
    short_window_divisor: int = 4  # S = sequence_len / divisor, rounded up to a multiple
    short_window_multiple: int = 128
    value_embeddings: bool = True
    value_gate_channels: int = 12
    value_gate_range: float = 3.0
    smear: bool = True
    smear_channels: int = 24
    backout: bool = True
    softcap: float = 15.0

    def __post_init__(self) -> None:
        for name in (
            "sequence_len",
            "vocab_size",
            "n_layer",
            "n_head",
            "n_kv_head",
            "n_embd",
            "short_window_divisor",
            "short_window_multiple",
            "value_gate_channels",
            "smear_channels",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidConfig(f"{name} is {value!r}; give a whole number of at least 1.", param=name)
        for name in ("rotary_base", "qk_scale", "value_gate_range", "softcap"):
            constant = getattr(self, name)
            if isinstance(constant, bool) or not isinstance(constant, int | float) or not 0 < constant < math.inf:
                raise InvalidConfig(f"{name} is {constant!r}; give a number above 0.", param=name)
        if self.n_embd % self.n_head:
            raise InvalidConfig(
                f"n_embd {self.n_embd} does not divide by n_head {self.n_head}; choose sizes that do.",
                param="n_head",
            )
        if self.head_dim % 2:
            raise InvalidConfig(f"head_dim {self.head_dim} is odd; rotary embeddings need pairs.", param="n_embd")
        if self.n_head % self.n_kv_head:
            raise InvalidConfig(
                f"n_head {self.n_head} does not divide by n_kv_head {self.n_kv_head}.", param="n_kv_head"
            )
        if not self.window_pattern or set(self.window_pattern) - {"S", "L"}:
            raise InvalidConfig(
                f"window_pattern is {self.window_pattern!r}; use the letters S (short) and L (long), such as 'SSSL'.",
                param="window_pattern",
            )
        self._check_gate("smear", "smear_channels")
        self._check_gate("value_embeddings", "value_gate_channels")

    def _check_gate(self, part: str, channels: str) -> None:
        """A gate looks at the first channels of the residual stream, which must have them."""
        if getattr(self, part) and self.n_embd < getattr(self, channels):
            raise InvalidConfig(
                f"n_embd {self.n_embd} is below the {getattr(self, channels)} {channels} that {part} looks at; "
                f"choose a wider model, or a smaller {channels}.",
                param="n_embd",
            )

    @classmethod
    def from_depth(
        cls,
        depth: int,
        *,
        vocab_size: int,
        sequence_len: int = 2048,
        aspect_ratio: int = 64,
        head_dim: int = 128,
        window_pattern: str = "SSSL",
    ) -> Self:
        """The one dial: C = depth * aspect_ratio rounded up to a multiple of head_dim, Hk = H."""
        for name, value in (("depth", depth), ("aspect_ratio", aspect_ratio), ("head_dim", head_dim)):
            if value < 1:
                raise InvalidConfig(f"{name} is {value}; give a whole number of at least 1.", param=name)
        n_embd = math.ceil(depth * aspect_ratio / head_dim) * head_dim
        return cls(
            sequence_len=sequence_len,
            vocab_size=vocab_size,
            n_layer=depth,
            n_head=n_embd // head_dim,
            n_kv_head=n_embd // head_dim,
            n_embd=n_embd,
            window_pattern=window_pattern,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of to_dict. Unknown keys raise InvalidConfig: a config from a newer version is not guessed at."""
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise InvalidConfig(f"unknown model config keys {sorted(unknown)}; was it saved by a newer version?")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def padded_vocab_size(self) -> int:
        """Rows of embedding and head: V up to a multiple of 64. Logits are cropped to V."""
        return math.ceil(self.vocab_size / 64) * 64

    @property
    def windows(self) -> tuple[int, ...]:
        """Keys a query sees to its left (itself besides), a layer each. The pattern is tiled; the last is long."""
        multiple = self.short_window_multiple
        short = math.ceil(self.sequence_len / self.short_window_divisor / multiple) * multiple
        short = min(self.sequence_len, short)
        letters = [self.window_pattern[i % len(self.window_pattern)] for i in range(self.n_layer)]
        letters[-1] = "L"
        return tuple(short if letter == "S" else self.sequence_len for letter in letters)

    def has_value_embedding(self, layer: int) -> bool:
        """Every second layer, the last one always."""
        return self.value_embeddings and layer % 2 == (self.n_layer - 1) % 2
