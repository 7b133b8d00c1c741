"""The compiled libraries' functions, for Python. Calls release the interpreter's lock: other threads run meanwhile.

Knows nothing of models or tensors (model.py, training.py); build.py finds the files.
"""

import ctypes
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_int64, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from nanochat.errors import Unavailable
from nanochat.native.build import STEP, TRAINING, find_or_compile
from nanochat.settings import CommonSettings

QKV, OUT, UP, DOWN, HEAD = range(5)
# What team.h has bits for.
MAX_THREADS = 1023


class Config(Structure):
    """model.h's struct of the same name."""

    _fields_ = [
        ("n_layer", c_int32),
        ("n_head", c_int32),
        ("n_kv_head", c_int32),
        ("n_embd", c_int32),
        ("head_dim", c_int32),
        ("vocab_size", c_int32),
        ("value_gate_channels", c_int32),
        ("smear_channels", c_int32),
        ("is_int8", c_int32),
        ("num_threads", c_int32),
        ("qk_scale", c_float),
        ("value_gate_range", c_float),
        ("softcap", c_float),
    ]


class AttentionShape(Structure):
    """training_attention.h's struct of the same name."""

    _fields_ = [
        ("B", c_int32),
        ("T", c_int32),
        ("H", c_int32),
        ("Hk", c_int32),
        ("D", c_int32),
        ("window", c_int32),
        ("scale", c_float),
    ]


_P = c_void_p  # an address: of an object of the library's, or of numbers
_Signatures = dict[str, tuple[Any, list[Any]]]
_STEP: _Signatures = {
    "model_new": (_P, [POINTER(Config), _P]),
    "model_free": (None, [_P]),
    "model_set_matrix": (c_int, [_P, c_int, c_int32, _P, c_int, c_int]),
    "model_set_tables": (c_int, [_P, _P, _P, _P, _P]),
    "model_set_layer_tables": (c_int, [_P, c_int, _P, _P]),
    "model_set_scalars": (c_int, [_P, _P, _P, c_float, c_float]),
    "model_weight_bytes": (c_uint64, [_P]),
    "cache_new": (_P, [_P, c_int, c_int, c_int]),
    "cache_free": (None, [_P]),
    "cache_block_bytes": (c_uint64, [_P]),
    "cache_bytes": (c_uint64, [_P]),
    "cache_copy_slot": (c_int, [_P, c_int, c_int, c_int]),
    "save_blocks": (c_int, [_P, _P, c_int, _P, c_int, _P]),
    "restore_blocks": (c_int, [_P, _P, c_int, _P, c_int, _P]),
    "step": (c_int, [_P, _P, _P, c_int, c_int, _P, _P, _P, c_int, _P]),
}
_TRAINING: _Signatures = {
    "row_losses": (c_int, [_P, _P, c_int64, c_int64, c_float, _P, _P]),
    "multiply": (c_int, [_P, c_int64, c_int64, _P, c_int64, c_int64, _P, c_int64, c_int64, c_int64, c_int]),
    "attention_forward": (c_int, [POINTER(AttentionShape), *[_P] * 5]),
    "attention_backward": (c_int, [POINTER(AttentionShape), *[_P] * 9]),
}


class Library:
    """`call` a function by its name without "nanochat_"."""

    def __init__(self, path: Path, signatures: _Signatures) -> None:
        self.path = path
        try:
            loaded = ctypes.CDLL(str(path))
        except OSError as exc:
            raise Unavailable(f"the CPU's kernels in {path} cannot be loaded: {exc}; remove the file.") from exc
        self._functions: dict[str, Any] = {}
        for name, (result, arguments) in signatures.items():
            function = getattr(loaded, f"nanochat_{name}")
            function.restype, function.argtypes = result, arguments
            self._functions[name] = function

    def call(self, name: str, *arguments: object) -> int:
        """The function's result. Raises MemoryError where memory or threads ran out, IndexError where an argument lies
        out of range."""
        function = self._functions[name]
        result: int | None = function(*arguments)
        if (result is None and function.restype is _P) or result == -1:
            raise MemoryError(f"no memory or no thread was left for the CPU's kernels ({name})")
        if result == -2:
            raise IndexError(f"out of the cache's, the vocabulary's or the step's range ({name})")
        return result or 0


def load() -> Library:
    """The model's step; compiled on first use into $NANOCHAT_HOME/native, which a process tries once. Raises
    Unavailable."""
    found = _step()
    if isinstance(found, Unavailable):
        raise found
    return found


@cache
def _step() -> Library | Unavailable:
    try:
        return open_step(find_or_compile(_folder(), STEP))
    except Unavailable as exc:
        return exc


def open_step(path: Path) -> Library:
    """The model's step out of a file. Raises Unavailable."""
    return Library(path, _STEP)


@cache
def load_training() -> Library:
    """Parts of a training step, likewise. Raises Unavailable."""
    return Library(find_or_compile(_folder(), TRAINING), _TRAINING)


def _folder() -> Path:
    return CommonSettings.load().home_dir / "native"
