"""A hostile file does nothing: it is refused by name, before anything that it names is looked up."""

import io
import os
import pickle
import pickletools
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tiktoken.registry
import torch

from nanochat.checkpoint.pickled import read_encoding, read_tensor, read_tensors
from nanochat.errors import DataError, NotFound

RANKS = {bytes([byte]): byte for byte in range(256)}
SPECIAL = {"<|bos|>": 256}


def encoding() -> tiktoken.Encoding:
    return tiktoken.Encoding("rustbpe", pat_str=r"\w+|\W", mergeable_ranks=RANKS, special_tokens=SPECIAL)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_an_encoding_is_read_as_what_it_consists_of(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(encoding(), protocol=protocol))
    found = read_encoding(path)
    assert (found.pattern, found.ranks, found.special_tokens) == (r"\w+|\W", RANKS, SPECIAL)


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def encoding_with(state: object) -> bytes:
    """A pickled Encoding of any state: made from nothing, then given it."""
    return b"\x80\x03ctiktoken.core\nEncoding\n)\x81" + pickle.dumps(state, protocol=3)[2:-1] + b"b."


HOSTILE: dict[str, tuple[bytes, str]] = {
    "a command": (pickle.dumps(Calls(os.system, "touch pwned")), "asks for posix.system"),
    "a process": (pickle.dumps(Calls(subprocess.Popen, ["touch", "pwned"])), "asks for subprocess.Popen"),
    "eval": (b'cbuiltins\neval\n(S\'open("pwned", "w")\'\ntR.', "asks for builtins.eval"),
    "getattr": (pickle.dumps(Calls(getattr, "", "upper")), "asks for builtins.getattr"),
    "another class of tiktoken": (
        b"ctiktoken.load\nread_file\n(S'/etc/passwd'\ntR.",
        "asks for tiktoken.load.read_file",
    ),
    "an attribute of the class": (b"\x80\x04\x8c\x0dtiktoken.core\x8c\x11Encoding.__init__\x93.", "Encoding.__init__"),
    "an extension": (b"\x80\x02\x82\x01.", "no pickled tiktoken"),
    "an object kept elsewhere": (b"\x80\x04\x8c\x01xQ.", "kept elsewhere"),
    "a command within": (
        encoding_with({"pat_str": "a", "special_tokens": {}, "mergeable_ranks": Calls(os.system, "touch pwned")}),
        "asks for posix.system",
    ),
    "a name to be looked up on the network": (encoding_with("gpt2"), "without its pattern"),
    "another dictionary": (pickle.dumps(OrderedDict(pat_str="a")), "asks for collections.OrderedDict"),
    "a plain value": (pickle.dumps({"pat_str": "a"}), "holds dict"),
    "ranks of text": (encoding_with({"pat_str": "a", "mergeable_ranks": {"a": 0}, "special_tokens": {}}), "no numbers"),
    "ranks that are true": (
        encoding_with({"pat_str": "a", "mergeable_ranks": {b"a": True}, "special_tokens": {}}),
        "no numbers",
    ),
    "half a file": (pickle.dumps(encoding())[:900], "no pickled tiktoken Encoding"),
    "memory that is not there": (b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.", "no pickled tiktoken Encoding"),
    "a place far out": (b"\x80\x02Nr\xff\xff\xff\x7f.", "holds NoneType"),
    "no pickle": (b"{}", "no pickled tiktoken Encoding"),
    "nothing": (b"", "no pickled tiktoken Encoding"),
    "the class, changed": (
        b"\x80\x04\x8c\x0dtiktoken.core\x8c\x08Encoding\x93}\x8c\x05state\x8c\x01xsb.",
        "no pickled",
    ),
}


@pytest.mark.parametrize(("content", "said"), HOSTILE.values(), ids=HOSTILE.keys())
def test_whatever_else_a_pickle_asks_for_is_refused(
    content: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: object) -> None:
        raise AssertionError("looked up a name")

    monkeypatch.setattr(tiktoken.registry, "get_encoding", forbidden)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_encoding(path)
    assert str(path) in caught.value.message
    assert not (tmp_path / "pwned").exists()


def test_those_pickles_would_do_harm_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test above would show nothing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(HOSTILE["a command"][0])  # noqa: S301  our own, a few lines above
    assert (tmp_path / "pwned").exists()
    assert any(op.name == "REDUCE" for op, *_ in pickletools.genops(HOSTILE["a command within"][0]))


def test_a_file_too_large_for_a_tokenizer_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pkl"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(DataError, match="bytes; a tokenizer has"):
        read_encoding(path)


def test_tensors_are_read_and_anything_else_refused(tmp_path: Path) -> None:
    path = tmp_path / "model_000001.pt"
    torch.save({"a": torch.ones(2), "b": torch.zeros(1, dtype=torch.bfloat16)}, path)
    assert read_tensors(path)["a"].tolist() == [1.0, 1.0]
    for value, said in (
        ({"a": Calls(os.system, "touch pwned")}, "cannot|safely"),
        ([torch.ones(1)], "holds list"),
        ({"a": 1}, "holds int under 'a'"),
        ({1: torch.ones(1)}, "tensors by name"),
    ):
        torch.save(value, path)
        with pytest.raises(DataError, match=said):
            read_tensors(path)
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"model_000001\.pt is no file of tensors"):
        read_tensors(path)
    with pytest.raises(NotFound, match="there is no file"):
        read_tensors(tmp_path / "model_000002.pt")


def test_a_tensor_alone(tmp_path: Path) -> None:
    torch.save(torch.arange(3), tmp_path / "token_bytes.pt")
    assert read_tensor(tmp_path / "token_bytes.pt").tolist() == [0, 1, 2]
    torch.save([1], tmp_path / "token_bytes.pt")
    with pytest.raises(DataError, match="holds list"):
        read_tensor(tmp_path / "token_bytes.pt")
    buffer = io.BytesIO()
    torch.save({"x": Calls(os.getcwd)}, buffer)
    (tmp_path / "token_bytes.pt").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="safely"):
        read_tensor(tmp_path / "token_bytes.pt")
