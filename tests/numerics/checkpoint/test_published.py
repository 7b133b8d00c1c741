"""Files as karpathy/nanochat writes them, of each time, written here: imported they compute what they did."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from torch import Tensor
from transformers import NanoChatConfig, NanoChatForCausalLM

from nanochat.checkpoint import imports, store
from nanochat.config import GPTConfig
from nanochat.engine.packed_model import NativeModel
from nanochat.errors import Conflict, DataError, InvalidConfig, NotFound
from nanochat.model.gpt import GPT
from nanochat.model.names import load_tensors
from nanochat.optim.groups import param_groups
from nanochat.optim.optimizer import MuonAdamW
from nanochat.tokenizer.bpe import SPLIT_PATTERN, Tokenizer
from nanochat.tokenizer.special import SPECIAL_TOKENS
from tests.numerics import reference

SIZES: dict[str, Any] = {"sequence_len": 48, "vocab_size": 265, "n_layer": 3, "n_head": 4, "n_kv_head": 2, "n_embd": 64}
L, H, Hk, C, V = 3, 4, 2, 64, 265
D = C // H
FIRST: dict[str, Any] = {
    "window_pattern": "L",
    "rotary_base": 10_000.0,
    "qk_scale": 1.0,
    "short_window_divisor": 2,
    "short_window_multiple": 1,
    "value_gate_range": 2.0,
    "value_embeddings": False,
    "smear": False,
    "backout": False,
}
SECOND = FIRST | {"window_pattern": "SSSL", "value_embeddings": True, "value_gate_channels": 32}
THIRD: dict[str, Any] = {"window_pattern": "SSSL", "qk_scale": 1.15, "short_window_divisor": 3, "smear": False}
THIRD |= {"backout": False}
# By the time a file is from: rows of its tables, what meta says of windows, the constants that were meant.
TIMES: dict[str, tuple[int, str | None, dict[str, Any]]] = {
    "first": (265, None, FIRST),
    "lambdas": (320, "SSSL", FIRST | {"window_pattern": "SSSL"}),
    "value embeddings": (320, "SSSL", SECOND),
    "narrow gates": (320, "sssl", THIRD),
    "smear": (320, "SSSL", {"window_pattern": "SSSL"}),
}


def published_tensors(time: str) -> dict[str, Tensor]:
    """Random weights under the names of that time."""
    rows = TIMES[time][0]
    shapes = {"transformer.wte.weight": (rows, C), "lm_head.weight": (rows, C)}
    for i in range(L):
        at = f"transformer.h.{i}"
        shapes |= {
            f"{at}.attn.c_q.weight": (C, C),
            f"{at}.attn.c_k.weight": (Hk * D, C),
            f"{at}.attn.c_v.weight": (Hk * D, C),
            f"{at}.attn.c_proj.weight": (C, C),
            f"{at}.mlp.c_fc.weight": (4 * C, C),
            f"{at}.mlp.c_proj.weight": (C, 4 * C),
        }
        if time in ("value embeddings", "narrow gates", "smear") and i != 1:
            channels = 32 if time == "value embeddings" else 12
            shapes |= {f"{at}.attn.ve_gate.weight": (Hk, channels), f"value_embeds.{i}.weight": (rows, Hk * D)}
    scalars: dict[str, tuple[int, ...]] = {}
    if time != "first":
        scalars |= {"resid_lambdas": (L,), "x0_lambdas": (L,)}
    if time == "smear":
        shapes["smear_gate.weight"] = (1, 24)
        scalars |= {"smear_lambda": (1,), "backout_lambda": (1,)}
    generator = torch.Generator().manual_seed(5)
    tensors = {name: torch.randn(shape, generator=generator) / shape[-1] ** 0.5 for name, shape in shapes.items()}
    return tensors | {name: 1 + torch.randn(shape, generator=generator) / 4 for name, shape in scalars.items()}


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A folder of that time's files."""

    def write_folder(time: str, step: int = 650, **changes: Any) -> Path:
        folder = tmp_path / "published"
        folder.mkdir(exist_ok=True)
        config = SIZES | ({"window_pattern": TIMES[time][1]} if TIMES[time][1] else {})
        tensors = changes.get("tensors", published_tensors(time))
        torch.save(tensors, folder / f"model_{step:06d}.pt")
        torch.save({"state": {}}, folder / f"optim_{step:06d}_rank0.pt")
        meta = {"step": step, "val_bpb": 0.81, "model_config": config | changes.get("config", {}), "user_config": {}}
        (folder / f"meta_{step:06d}.json").write_text(json.dumps(meta))
        ranks = {bytes([byte]): byte for byte in range(256)}
        special = {name: 256 + i for i, name in enumerate(SPECIAL_TOKENS)}
        encoding = tiktoken.Encoding("rustbpe", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=special)
        (folder / "tokenizer.pkl").write_bytes(pickle.dumps(encoding))
        # Bytes above 127 are no character, and count as the three of the one that replaces them.
        lengths = torch.tensor([1] * 128 + [3] * 128 + [0] * 9, dtype=torch.int32)
        torch.save(lengths, folder / "token_bytes.pt")
        return folder

    return write_folder


@pytest.mark.parametrize("time", TIMES)
def test_the_constants_are_those_of_the_time_and_so_are_the_logits(write: Write, time: str) -> None:
    imported = imports.read(write(time))
    assert imported.config == GPTConfig(**SIZES, **TIMES[time][2])
    ids = torch.randint(V, (48,), generator=torch.Generator().manual_seed(6))
    theirs = published_tensors(time)
    plain = {name: tensor.double() for name, tensor in _by_hand(theirs).items()}
    expected = reference.logits(plain, imported.config, ids.tolist()).float()
    model = GPT(imported.config).requires_grad_(False)
    load_tensors(model, imported.tensors)
    torch.testing.assert_close(model(ids[None])[0], expected, rtol=0, atol=1e-4)
    native = NativeModel(imported.config, imported.tensors)
    previous = [-1, *ids.tolist()[:-1]]
    found = native.step(native.new_cache(1, 48, 48), [(0, 0, 48)], ids.tolist(), previous, range(48))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def _by_hand(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reference's names, written out once more."""
    named = {"resid_lambdas": torch.ones(L), "x0_lambdas": torch.zeros(L)}
    for name, tensor in tensors.items():
        for theirs, ours in (
            ("transformer.wte", "embedding"),
            ("lm_head", "head"),
            ("transformer.h.", "layer."),
            ("attn.c_q", "query"),
            ("attn.c_k", "key"),
            ("attn.c_v", "value"),
            ("attn.c_proj", "attention_out"),
            ("attn.ve_gate", "value_gate"),
            ("mlp.c_fc", "mlp_up"),
            ("mlp.c_proj", "mlp_down"),
            (".weight", ""),
        ):
            name = name.replace(theirs, ours)
        if name.startswith("value_embeds."):
            name = f"layer.{name.removeprefix('value_embeds.')}.value_embedding"
        named[name] = tensor
    return named


def test_the_first_architecture_is_that_of_transformers_class(write: Write) -> None:
    """Its own class, filled by hand from the published names."""
    imported = imports.read(write("first"))
    model = GPT(imported.config).requires_grad_(False)
    load_tensors(model, imported.tensors)
    theirs = NanoChatForCausalLM(
        NanoChatConfig(
            vocab_size=V,
            hidden_size=C,
            intermediate_size=4 * C,
            num_hidden_layers=L,
            num_attention_heads=H,
            num_key_value_heads=Hk,
            max_position_embeddings=48,
            rms_norm_eps=float(torch.finfo(torch.float32).eps),
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        )
    ).eval()
    state = {}
    for name, tensor in published_tensors("first").items():
        for ours, other in (
            ("transformer.wte", "model.embed_tokens"),
            ("transformer.h", "model.layers"),
            ("attn.c_proj", "self_attn.o_proj"),
            ("attn.c_", "self_attn."),
            ("self_attn.q", "self_attn.q_proj"),
            ("self_attn.k", "self_attn.k_proj"),
            ("self_attn.v", "self_attn.v_proj"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
        ):
            name = name.replace(ours, other)
        state[name] = tensor
    theirs.load_state_dict(state)
    ids = torch.randint(V, (2, 48), generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(model(ids), theirs(ids).logits.detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("time", TIMES)
def test_what_was_imported_goes_on_learning(write: Write, time: str) -> None:
    imported = imports.read(write(time))
    model = GPT(imported.config)
    load_tensors(model, imported.tensors)
    optimizer = MuonAdamW(param_groups(model))
    ids = torch.randint(V, (2, 49), generator=torch.Generator().manual_seed(8))
    losses = []
    for _ in range(3):
        loss = model(ids[:, :-1], ids[:, 1:])
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[2] < losses[1] < losses[0]


def test_it_becomes_a_checkpoint_once(write: Write, home: Path) -> None:
    imported = imports.read(write("smear"))
    assert imports.save(home, "taken-up", "imported", imported) == "taken-up/imported/step_000650"
    checkpoint = store.load(home / "checkpoints" / "taken-up/imported/step_000650")
    assert checkpoint.config == imported.config
    assert checkpoint.info.metrics == {"val_bpb": 0.81}
    assert checkpoint.tokenizer == Tokenizer([bytes([byte]) for byte in range(256)])
    with pytest.raises(Conflict, match="is there already"):
        imports.save(home, "taken-up", "imported", imported)


def test_the_last_step_is_taken_or_the_one_that_is_named(write: Write) -> None:
    write("smear", step=9)
    folder = write("smear", step=10)
    (folder / "model_000010_backup.pt").write_bytes(b"")
    assert (imports.read(folder).step, imports.read(folder, step=9).step) == (10, 9)
    with pytest.raises(NotFound, match="has no step 11; it has 9, 10"):
        imports.read(folder, step=11)


def test_compiled_models_and_half_precision_are_read(write: Write) -> None:
    tensors = {f"_orig_mod.{name}": tensor for name, tensor in published_tensors("smear").items()}
    tensors["_orig_mod.transformer.wte.weight"] = tensors["_orig_mod.transformer.wte.weight"].bfloat16()
    imported = imports.read(write("smear", tensors=tensors))
    assert imported.tensors["embedding"].dtype == torch.bfloat16


def test_what_the_files_do_not_tell_can_be_given(write: Write) -> None:
    folder = write("narrow gates")
    assert imports.read(folder, constants={"softcap": 20.0}).config.softcap == 20.0
    with pytest.raises(InvalidConfig, match="unknown model config keys"):
        imports.read(folder, constants={"soft_cap": 20.0})


def test_a_tokenizer_may_be_elsewhere(write: Write, tmp_path: Path) -> None:
    folder, elsewhere = write("smear"), tmp_path / "tokenizer"
    elsewhere.mkdir()
    for name in ("tokenizer.pkl", "token_bytes.pt"):
        shutil.move(folder / name, elsewhere / name)
    with pytest.raises(NotFound, match=r"lacks tokenizer\.pkl or tokenizer\.json"):
        imports.read(folder)
    assert imports.read(folder, tokenizer_folder=elsewhere).tokenizer.vocab_size == V


def test_a_folder_that_is_not_one_is_said(write: Write, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no folder"):
        imports.read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match=r"neither model_\*\.pt"):
        imports.read(tmp_path / "empty")
    folder = write("first")
    (folder / "meta_000650.json").unlink()
    with pytest.raises(NotFound, match=r"lacks meta_000650\.json; it holds model_000650\.pt, optim_000650_rank0\.pt"):
        imports.read(folder)


def bad_tensors(change: Callable[[dict[str, Tensor]], object]) -> dict[str, Any]:
    tensors = published_tensors("smear")
    change(tensors)
    return {"tensors": tensors}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": {"n_layer": 2}}, "unknown"),
        ({"config": {"vocab_size": 264}}, "has 265 tokens and the model 264"),
        ({"config": {"vocab_size": 400}}, "shape"),
        ({"config": {"frozen_embd": True}}, r"the keys \['frozen_embd'\]"),
        ({"config": {"n_embd": "64"}}, "n_embd is '64'"),
        (bad_tensors(lambda t: t.pop("lm_head.weight")), r"missing \['head'\]"),
        (bad_tensors(lambda t: t.update({"bigram_embed.weight": torch.ones(1)})), "bigram_embed"),
        (bad_tensors(lambda t: t.update({"_orig_mod.lm_head.weight": t["lm_head.weight"]})), "no place for"),
        (bad_tensors(lambda t: t["transformer.wte.weight"][0].fill_(torch.nan)), "embedding holds values"),
        (bad_tensors(lambda t: t.update({"smear_lambda": torch.ones(1, dtype=torch.int64)})), "smear_lambda holds"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_what_does_not(write: Write, changes: dict[str, Any], said: str) -> None:
    with pytest.raises((DataError, InvalidConfig), match=said):
        imports.read(write("smear", **changes))


@pytest.mark.parametrize("content", ["[]", "{}", '{"model_config": {"n_layer": 2}}', "{"])
def test_a_meta_file_without_sizes_is_named(write: Write, content: str) -> None:
    folder = write("smear")
    (folder / "meta_000650.json").write_text(content)
    with pytest.raises(DataError, match=r"meta_000650\.json"):
        imports.read(folder)


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        (torch.ones(264, dtype=torch.int32), "has 265 tokens"),
        (torch.tensor([1] * 65 + [2] + [1] * 62 + [3] * 128 + [0] * 9), "gives token 65 2 bytes"),
        (torch.tensor([1] * 128 + [3] * 128 + [1] * 9), "gives token 256 1 bytes"),
    ],
)
def test_token_bytes_of_another_tokenizer_are_noticed(write: Write, lengths: Tensor, said: str) -> None:
    folder = write("smear")
    torch.save(lengths, folder / "token_bytes.pt")
    with pytest.raises(DataError, match=said):
        imports.read(folder)


@pytest.mark.parametrize(
    ("ranks", "special", "said"),
    [
        ({bytes([b]): b for b in range(255)}, 9, "256 single bytes"),
        ({bytes([b]): b + 1 for b in range(256)}, 9, "without a gap"),
        ({bytes([b]): b for b in range(256)}, 8, "last ids"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(write: Write, ranks: dict[bytes, int], special: int, said: str) -> None:
    folder = write("smear")
    names = {name: len(ranks) + i for i, name in enumerate(SPECIAL_TOKENS[:special])}
    state = {"name": "x", "pat_str": "a", "mergeable_ranks": ranks, "special_tokens": names}
    body = pickle.dumps(state, protocol=3)[2:-1]
    (folder / "tokenizer.pkl").write_bytes(b"\x80\x03ctiktoken.core\nEncoding\n)\x81" + body + b"b.")
    with pytest.raises(DataError, match=said):
        imports.read(folder)
