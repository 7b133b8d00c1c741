"""Stored names: every parameter once, and clear refusals of weights that do not fit."""

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.errors import InvalidConfig
from nanochat.model.gpt import GPT
from nanochat.model.names import load_tensors, named_parameters, named_tensors

CONFIG = GPTConfig(sequence_len=16, vocab_size=70, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)
BARE = GPTConfig.from_dict(CONFIG.to_dict() | {"value_embeddings": False, "smear": False, "backout": False})


def test_every_parameter_has_one_name() -> None:
    model = GPT(CONFIG)
    named = {id(parameter) for parameter in named_parameters(model).values()}
    assert named == {id(parameter) for parameter in model.parameters()}
    assert len(named_parameters(model)) == len(named)


def test_names_are_those_of_the_format() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(GPT(CONFIG)).items()}
    layer = {
        "query": (32, 32),
        "key": (16, 32),
        "value": (16, 32),
        "attention_out": (32, 32),
        "mlp_up": (128, 32),
        "mlp_down": (32, 128),
    }
    assert shapes == {
        "embedding": (128, 32),
        "head": (128, 32),
        "resid_lambdas": (2,),
        "x0_lambdas": (2,),
        "smear_gate": (1, 24),
        "smear_lambda": (1,),
        "backout_lambda": (1,),
        **{f"layer.0.{name}": shape for name, shape in layer.items()},
        **{f"layer.1.{name}": shape for name, shape in layer.items()},
        "layer.1.value_gate": (1, 12),
        "layer.1.value_embedding": (128, 16),
    }


def test_a_model_of_an_earlier_version_has_no_newer_parts() -> None:
    assert not {"smear_gate", "smear_lambda", "backout_lambda", "layer.1.value_gate"} & named_tensors(GPT(BARE)).keys()


def test_loading_copies_and_converts() -> None:
    model, other = GPT(CONFIG), GPT(CONFIG, torch.bfloat16)
    for tensor in named_tensors(model).values():
        tensor.normal_(generator=torch.Generator().manual_seed(0))
    load_tensors(other, named_tensors(model))
    assert other.embedding.weight.dtype == torch.bfloat16
    assert other.head.weight.dtype == torch.float32
    assert torch.equal(other.embedding.weight, model.embedding.weight.bfloat16())
    named_tensors(model)["head"].zero_()
    assert other.head.weight.abs().sum() > 0


def test_weights_of_another_model_are_refused_and_nothing_changes() -> None:
    model = GPT(CONFIG)
    for tensor in named_tensors(model).values():
        tensor.fill_(1.0)
    good = {name: torch.zeros_like(tensor) for name, tensor in named_tensors(model).items()}
    with pytest.raises(InvalidConfig, match=r"missing \['head'\], unknown \['other'\]"):
        load_tensors(model, {name: tensor for name, tensor in good.items() if name != "head"} | {"other": good["head"]})
    with pytest.raises(
        InvalidConfig, match=r"weight smear_gate has shape \(1, 23\); this model config needs \(1, 24\)"
    ):
        load_tensors(model, good | {"smear_gate": torch.zeros(1, 23)})
    assert all(bool((tensor == 1).all()) for tensor in named_tensors(model).values())
