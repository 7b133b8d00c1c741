"""Which parameter is moved by which rule, at which rate: the table of the training recipe.

Knows the model's parameters by their stored names; the rules themselves are muon.py and adamw.py.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from torch import nn

from nanochat.model.gpt import GPT
from nanochat.model.names import named_parameters

REFERENCE_WIDTH = 768  # rates of embeddings and head were tuned at this C and go as 1 / sqrt(C)


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """Base rates, before the factors of width and batch.

    `adamw_factor` multiplies every AdamW rate. `batch_factor` (horizon.py) multiplies all rates but those of smear and
    backout. `weight_decay` is that of matrices.
    """

    embedding_lr: float = 0.3
    unembedding_lr: float = 0.008
    value_embedding_lr: float | None = None  # None: half of embedding_lr
    matrix_lr: float = 0.02
    scalar_lr: float = 0.5
    gate_lr: float = 0.2
    weight_decay: float = 0.0
    batch_factor: float = 1.0
    adamw_factor: float = 1.0


@dataclass(kw_only=True, eq=False)
class Group:
    """Parameters that share a rule and its rates. lr, momentum and weight_decay are set by the training loop."""

    name: str
    rule: Literal["adamw", "muon"]
    names: list[str]  # as stored in checkpoints, in step with parameters
    parameters: list[nn.Parameter]
    lr: float
    initial_lr: float
    weight_decay: float
    initial_weight_decay: float
    betas: tuple[float, float] = (0.9, 0.95)  # adamw
    eps: float = 1e-10  # adamw
    momentum: float = 0.95  # muon
    beta2: float = 0.9  # muon
    is_light: bool = False  # muon: orthogonalises cheaply


def param_groups(model: GPT, rates: LearningRates | None = None, *, light_muon: bool = False) -> list[Group]:
    """Every parameter of the model in exactly one group; matrices of the blocks in one Muon group a shape."""
    rates = rates or LearningRates()
    parameters = named_parameters(model)
    width = (model.config.n_embd / REFERENCE_WIDTH) ** -0.5
    value_embedding_lr = rates.embedding_lr / 2 if rates.value_embedding_lr is None else rates.value_embedding_lr
    groups: list[Group] = []

    def adamw(name: str, members: list[str], lr: float, betas: tuple[float, float], decay: float) -> None:
        members = [member for member in members if member in parameters]
        lr *= rates.adamw_factor
        if members:
            chosen = [parameters.pop(member) for member in members]
            groups.append(
                Group(
                    name=name,
                    rule="adamw",
                    names=members,
                    parameters=chosen,
                    lr=lr,
                    initial_lr=lr,
                    weight_decay=decay,
                    initial_weight_decay=decay,
                    betas=betas,
                )
            )

    batch = rates.batch_factor
    value_embeddings = [name for name in parameters if name.endswith(".value_embedding")]
    adamw("head", ["head"], rates.unembedding_lr * width * batch, (0.8, 0.96), 0.01)
    adamw("embedding", ["embedding"], rates.embedding_lr * width * batch, (0.8, 0.995), 0.001)
    adamw("value_embeddings", value_embeddings, value_embedding_lr * width * batch, (0.8, 0.995), 0.01)
    # Small steps: these factors multiply through all the layers.
    adamw("resid_lambdas", ["resid_lambdas"], rates.scalar_lr * 0.01 * batch, (0.8, 0.95), 0.05)
    adamw("x0_lambdas", ["x0_lambdas"], rates.scalar_lr * batch, (0.96, 0.95), 0.0)
    adamw("smear_backout", ["smear_gate", "smear_lambda", "backout_lambda"], rates.gate_lr, (0.8, 0.95), 0.0)
    return groups + _muon_groups(parameters, rates, light_muon)


def _muon_groups(parameters: dict[str, nn.Parameter], rates: LearningRates, is_light: bool) -> list[Group]:
    by_shape: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for name, parameter in parameters.items():
        assert name.startswith("layer.") and parameter.ndim == 2, f"{name} belongs to no group"
        by_shape[parameter.size(0), parameter.size(1)].append(name)
    lr = rates.matrix_lr * rates.batch_factor
    return [
        Group(
            name=f"matrices {rows}x{cols}",
            rule="muon",
            names=names,
            parameters=[parameters[name] for name in names],
            lr=lr,
            initial_lr=lr,
            weight_decay=rates.weight_decay,
            initial_weight_decay=rates.weight_decay,
            is_light=is_light,
        )
        for (rows, cols), names in sorted(by_shape.items())
    ]
