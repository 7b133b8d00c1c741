"""The plain names under which parameters are stored: embedding, head, layer.0.query, layer.1.value_embedding, ...

They are part of the file format, so they live here and not in the modules' attribute names, which may change. Files are
checkpoint/store.py's.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from nanochat.errors import InvalidConfig
from nanochat.model.gpt import GPT


def named_parameters(model: GPT) -> dict[str, nn.Parameter]:
    """Every parameter once, by its stored name. Matrices are (out, in)."""
    parameters: dict[str, nn.Parameter] = {
        "embedding": model.embedding.weight,
        "head": model.head.weight,
        "resid_lambdas": model.resid_lambdas,
        "x0_lambdas": model.x0_lambdas,
    }
    if model.smear_gate is not None and model.smear_lambda is not None:
        parameters["smear_gate"] = model.smear_gate.weight
        parameters["smear_lambda"] = model.smear_lambda
    if model.backout_lambda is not None:
        parameters["backout_lambda"] = model.backout_lambda
    for i, block in enumerate(model.blocks):
        attention, mlp = block.attention, block.mlp
        parameters[f"layer.{i}.query"] = attention.query.weight
        parameters[f"layer.{i}.key"] = attention.key.weight
        parameters[f"layer.{i}.value"] = attention.value.weight
        parameters[f"layer.{i}.attention_out"] = attention.out.weight
        parameters[f"layer.{i}.mlp_up"] = mlp.up.weight
        parameters[f"layer.{i}.mlp_down"] = mlp.down.weight
        if attention.value_gate is not None and attention.value_embedding is not None:
            parameters[f"layer.{i}.value_gate"] = attention.value_gate.weight
            parameters[f"layer.{i}.value_embedding"] = attention.value_embedding.weight
    return parameters


def named_tensors(model: GPT) -> dict[str, Tensor]:
    """The weights themselves (no copies, no gradients), by stored name."""
    return {name: parameter.detach() for name, parameter in named_parameters(model).items()}


@torch.no_grad()
def load_tensors(model: GPT, tensors: Mapping[str, Tensor], on_progress: Callable[[], None] = lambda: None) -> None:
    """Copy stored weights in, converting to each parameter's dtype and device. on_progress is called for each.

    Raises InvalidConfig, naming the tensor, where one is missing, unknown or of another shape; nothing is changed then.
    """
    parameters = named_parameters(model)
    missing, unknown = sorted(parameters.keys() - tensors.keys()), sorted(tensors.keys() - parameters.keys())
    if missing or unknown:
        raise InvalidConfig(
            f"the weights do not belong to this model config: missing {missing[:5]}, unknown {unknown[:5]}. "
            "Load them with the config.json of their own checkpoint."
        )
    for name, parameter in parameters.items():
        if tensors[name].shape != parameter.shape:
            raise InvalidConfig(
                f"weight {name} has shape {tuple(tensors[name].shape)}; this model config needs "
                f"{tuple(parameter.shape)}. Load it with the config.json of its own checkpoint."
            )
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
        on_progress()
