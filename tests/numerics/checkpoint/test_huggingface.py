"""What transformers computes of an exported folder is what we compute; and of what it saves itself, likewise."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, NanoChatForCausalLM
from transformers.utils import logging

from nanochat.checkpoint import imports, store
from nanochat.checkpoint.huggingface import exporter
from nanochat.config import GPTConfig
from nanochat.engine.generate import Engine
from nanochat.engine.params import SamplingParams
from nanochat.model.gpt import GPT
from nanochat.model.names import load_tensors, named_tensors
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.special import ASSISTANT_START, SPECIAL_TOKENS
from tests.numerics.constants import EARLIER, FIRST

SIZES: dict[str, Any] = {"sequence_len": 96, "vocab_size": 265, "n_head": 4, "n_kv_head": 2, "n_embd": 64}
OURS = {
    "every part": GPTConfig(**SIZES, n_layer=5, short_window_divisor=8, short_window_multiple=1),
    "earlier constants": GPTConfig(**SIZES, n_layer=4, **EARLIER),
    "one layer": GPTConfig(**SIZES, n_layer=1),
}
# Float32 sums in another order; logits are of magnitude 10.
TOLERANCE = {"rtol": 0.0, "atol": 1e-4}

RandomModel = Callable[[GPTConfig], GPT]


@pytest.fixture(autouse=True)
def modules_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers copies a folder's code to before it runs it; and no bars."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    logging.disable_progress_bar()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer([bytes([byte]) for byte in range(256)])


def tokens(config: GPTConfig, num_rows: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(256, (num_rows, config.sequence_len), generator=generator)


def export(model: GPT, tokenizer: Tokenizer, home: Path, folder: Path, **options: Any) -> exporter.Exported:
    """By way of a checkpoint."""
    identity = store.save(
        home, "run", "sft", 7, model_tensors=named_tensors(model), config=model.config, tokenizer=tokenizer, state={}
    )
    return exporter.write(store.load(home / "checkpoints" / identity), folder, **options)


def first_published(random_model: RandomModel, **values: Any) -> GPT:
    model = random_model(GPTConfig(**SIZES, n_layer=3, **(FIRST | values))).requires_grad_(False)
    model.resid_lambdas.fill_(1.0)
    model.x0_lambdas.zero_()
    return model


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)


def test_the_first_architecture_is_transformers_own_class(
    random_model: RandomModel, tokenizer: Tokenizer, home: Path, tmp_path: Path
) -> None:
    model = first_published(random_model)
    exported = export(model, tokenizer, home, tmp_path / "out")
    assert exported.beyond_nanochat == []
    assert not list((tmp_path / "out").glob("*.py"))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(theirs) is NanoChatForCausalLM
    ids = tokens(model.config)
    torch.testing.assert_close(theirs(ids).logits.detach(), model(ids), **TOLERANCE)


def test_what_transformers_saves_of_its_class_is_imported(
    random_model: RandomModel, tokenizer: Tokenizer, home: Path, tmp_path: Path
) -> None:
    """In one file and in several, with a vocabulary that we pad."""
    export(first_published(random_model), tokenizer, home, tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    AutoTokenizer.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "again")
    for shard_size in ("5GB", "60KB"):
        theirs.save_pretrained(tmp_path / "again", max_shard_size=shard_size)
        imported = imports.read(tmp_path / "again")
        (tmp_path / "again" / "model.safetensors").unlink(missing_ok=True)
        model = GPT(imported.config).requires_grad_(False)
        load_tensors(model, imported.tensors)
        ids = tokens(model.config)
        torch.testing.assert_close(model(ids), theirs(ids).logits.detach(), **TOLERANCE)
        assert imported.tokenizer == tokenizer


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"qk_scale": 1.2}, "a factor of 1.2 on q and k"),
        ({"window_pattern": "SL", "short_window_divisor": 3, "short_window_multiple": 1}, "short windows"),
        ({"value_embeddings": True}, "value embeddings"),
        ({"smear": True}, "smear"),
        ({"backout": True}, "backout"),
    ],
)
def test_what_transformers_class_lacks_gets_ours(
    random_model: RandomModel, tokenizer: Tokenizer, home: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    model = first_published(random_model, **change)
    exported = export(model, tokenizer, home, tmp_path / "out")
    assert exported.beyond_nanochat == [said]
    ids = tokens(model.config)
    torch.testing.assert_close(load(tmp_path / "out")(ids).logits.detach(), model(ids), **TOLERANCE)


def test_scales_on_the_residual_stream_are_beyond_transformers_class(
    random_model: RandomModel, tokenizer: Tokenizer, home: Path, tmp_path: Path
) -> None:
    model = first_published(random_model)
    model.resid_lambdas[1], model.x0_lambdas[2] = 1.1, 0.1
    exported = export(model, tokenizer, home, tmp_path / "out")
    assert exported.beyond_nanochat == ["scales on the residual stream", "the embedding added in every layer"]


def test_smear_and_backout_of_nothing_are_not_beyond_it(
    random_model: RandomModel, tokenizer: Tokenizer, home: Path, tmp_path: Path
) -> None:
    model = first_published(random_model, smear=True, backout=True)
    assert model.smear_lambda is not None and model.backout_lambda is not None
    model.smear_lambda.zero_(), model.backout_lambda.zero_()
    assert export(model, tokenizer, home, tmp_path / "out").beyond_nanochat == []
    ids = tokens(model.config)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(theirs(ids).logits.detach(), model(ids), **TOLERANCE)


@pytest.fixture(params=OURS.values(), ids=OURS.keys())
def ours(request: pytest.FixtureRequest, random_model: RandomModel) -> GPT:
    return random_model(request.param).requires_grad_(False)


def test_our_class_gives_our_logits_and_comes_back(ours: GPT, tokenizer: Tokenizer, home: Path, tmp_path: Path) -> None:
    export(ours, tokenizer, home, tmp_path / "out")
    assert (tmp_path / "out" / "modeling_nanochat_gpt.py").read_bytes() == exporter.MODELING_FILE.read_bytes()
    theirs = load(tmp_path / "out")
    ids = tokens(ours.config)
    torch.testing.assert_close(theirs(ids).logits.detach(), ours(ids), **TOLERANCE)
    theirs.save_pretrained(tmp_path / "again")
    AutoTokenizer.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "again")
    assert imports.read(tmp_path / "again").config == ours.config
    imported = imports.read(tmp_path / "out")
    assert imported.config == ours.config
    for name, tensor in named_tensors(ours).items():
        rows = imported.config.vocab_size if "embedding" in name or name == "head" else len(tensor)
        assert torch.equal(imported.tensors[name][:rows], tensor[:rows]), name


def test_our_class_continues_a_cache_in_any_pieces(ours: GPT, tokenizer: Tokenizer, home: Path, tmp_path: Path) -> None:
    export(ours, tokenizer, home, tmp_path / "out")
    theirs, ids = load(tmp_path / "out"), tokens(ours.config)
    cache, found, start = None, [], 0
    for count in (40, 1, 7, 1, 47):
        before = ids[:, start - 1 : start] if start else None
        out = theirs(ids[:, start : start + count], cache=cache, previous_ids=before, use_cache=True)
        cache, start = out.cache, start + count
        assert cache.get_seq_length() == start
        found.append(out.logits.detach())
    torch.testing.assert_close(torch.cat(found, dim=1), ours(ids), **TOLERANCE)


def test_our_class_refuses_a_cache_without_the_token_before(
    random_model: RandomModel, tokenizer: Tokenizer, home: Path, tmp_path: Path
) -> None:
    export(random_model(OURS["one layer"]), tokenizer, home, tmp_path / "out")
    theirs = load(tmp_path / "out")
    cache = theirs(torch.tensor([[1, 2]]), use_cache=True).cache
    with pytest.raises(ValueError, match="previous_ids is missing"):
        theirs(torch.tensor([[3]]), cache=cache)


@pytest.mark.parametrize("use_cache", [True, False])
def test_our_class_generates_what_our_engine_does(
    ours: GPT, tokenizer: Tokenizer, home: Path, tmp_path: Path, use_cache: bool
) -> None:
    """Prompts of different lengths in one batch, padded on the left; beam search too, which reorders the cache."""
    export(ours, tokenizer, home, tmp_path / "out")
    theirs, theirs_tokenizer = load(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    prompts = ["a", "something longer than that", "of middle length"]
    batch = theirs_tokenizer(prompts, return_tensors="pt", padding=True)
    wanted = {"max_new_tokens": 24, "do_sample": False, "use_cache": use_cache, "temperature": None}
    found = theirs.generate(**batch, **wanted)[:, batch["input_ids"].size(1) :]
    engine = Engine.of(ours, tokenizer)
    params = SamplingParams(temperature=0.0, max_tokens=24)
    ends = {tokenizer.bos_id, tokenizer.special_id("<|assistant_end|>")}
    for row, completions in zip(
        found.tolist(), engine.generate([tokenizer.encode(p) for p in prompts], params), strict=True
    ):
        answer = [token for token in row if token not in ends]
        is_sampled_text = [t for t, s in zip(completions[0].token_ids, completions[0].is_sampled, strict=True) if s]
        assert answer == [token for token in is_sampled_text if token not in ends]
    beams = [
        theirs.generate(**batch, **(wanted | {"use_cache": cached, "num_beams": 3})).tolist()
        for cached in (True, False)
    ]
    assert beams[0] == beams[1]


def test_padding_on_either_side_changes_nothing(ours: GPT, tokenizer: Tokenizer, home: Path, tmp_path: Path) -> None:
    export(ours, tokenizer, home, tmp_path / "out")
    theirs, ids = load(tmp_path / "out"), tokens(ours.config, 1)[:, :70]
    alone = theirs(ids).logits.detach()
    padding, present = torch.full((1, 9), 3), torch.ones_like(ids)
    none = torch.zeros_like(padding)
    left = theirs(torch.cat((padding, ids), 1), attention_mask=torch.cat((none, present), 1)).logits[:, 9:]
    right = theirs(torch.cat((ids, padding), 1), attention_mask=torch.cat((present, none), 1)).logits[:, :70]
    torch.testing.assert_close(left.detach(), alone, **TOLERANCE)
    torch.testing.assert_close(right.detach(), alone, **TOLERANCE)


def test_our_class_learns(random_model: RandomModel, tokenizer: Tokenizer, home: Path, tmp_path: Path) -> None:
    model = random_model(OURS["every part"])
    export(model, tokenizer, home, tmp_path / "out")
    theirs, ids = load(tmp_path / "out").train(), tokens(model.config)
    loss = theirs(ids, labels=ids).loss
    loss.backward()
    expected = model(ids[:, :-1], ids[:, 1:].contiguous())
    expected.backward()
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    torch.testing.assert_close(theirs.layer[0].query.weight.grad, model.blocks[0].attention.query.weight.grad)


def test_half_precision_is_a_choice_of_the_export(
    random_model: RandomModel, tokenizer: Tokenizer, home: Path, tmp_path: Path
) -> None:
    model = first_published(random_model)
    export(model, tokenizer, home, tmp_path / "out", precision="bf16")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.dtype == torch.bfloat16
    ids = tokens(model.config)
    assert (theirs(ids).logits.float() - model(ids)).abs().mean() < 0.1


def test_the_tokenizer_of_the_folder_gives_our_ids(
    random_model: RandomModel, tokenizer: Tokenizer, home: Path, tmp_path: Path
) -> None:
    export(random_model(OURS["one layer"]), tokenizer, home, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs("Grüße, 世界!").input_ids == tokenizer.encode("Grüße, 世界!")
    assert [theirs.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS] == list(range(256, 265))
    chat = [{"role": "user", "content": "Hi"}]
    ids = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ids == [256, 257, *b"Hi", 258, tokenizer.special_id(ASSISTANT_START)]
    assert (theirs.bos_token_id, theirs.eos_token_id) == (256, tokenizer.special_id("<|assistant_end|>"))
    assert theirs.model_max_length == 96
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [tokenizer.special_id("<|assistant_end|>"), tokenizer.bos_id]
