"""The optimizer of the whole model: walks the groups, holds their state, and gives it to checkpoints by parameter name.

Rates are set on the groups by the training loop (schedule.py); the rules are adamw.py and muon.py.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from nanochat.errors import InvalidConfig
from nanochat.optim.adamw import adamw_step
from nanochat.optim.groups import Group
from nanochat.optim.muon import muon_step, second_shape


class MuonAdamW:
    """Two moments a parameter, float32: AdamW's first and second, or Muon's momentum buffer and row or column variance.

    A Muon group's moments are one stack, (n, rows, cols) and (n, rows, 1) or (n, 1, cols), so that a step is a few
    large products. matrix_dtype is that of Muon's orthogonalisation: the compute dtype if bfloat16, else float32.
    """

    def __init__(self, groups: list[Group], matrix_dtype: torch.dtype = torch.float32) -> None:
        self.groups = groups
        self.matrix_dtype = matrix_dtype
        self.num_steps = 0
        self._moments: dict[str, tuple[list[Tensor], list[Tensor]]] = {}  # by group: a tensor a parameter
        self._stacks: dict[str, tuple[Tensor, Tensor]] = {}  # by Muon group: what those tensors are views of
        for group in groups:
            if group.rule == "muon":
                self._add_stack(group)
            else:
                self._moments[group.name] = (_zeros_like(group), _zeros_like(group))

    def _add_stack(self, group: Group) -> None:
        rows, cols = group.parameters[0].shape
        n, device = len(group.parameters), group.parameters[0].device
        buffer = torch.zeros((n, rows, cols), device=device)
        second = torch.zeros((n, *second_shape(rows, cols)), device=device)
        self._stacks[group.name] = buffer, second
        self._moments[group.name] = list(buffer.unbind()), list(second.unbind())

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter by its gradient. All must have one."""
        self.num_steps += 1
        for group in self.groups:
            if group.rule == "muon":
                self._step_muon(group)
            else:
                self._step_adamw(group)

    def zero_grad(self) -> None:
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """The whole state by parameter name: `<name>.first`, `<name>.second`, and `num_steps`. Views, not copies."""
        tensors = {"num_steps": torch.tensor(self.num_steps)}
        for group in self.groups:
            for name, first, second in zip(group.names, *self._moments[group.name], strict=True):
                tensors[f"{name}.first"] = first
                tensors[f"{name}.second"] = second
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy a saved state in. Raises InvalidConfig, changing nothing, unless it is that of the same parameters."""
        own = self.state_tensors()
        if own.keys() != tensors.keys():
            missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
            raise InvalidConfig(
                f"the optimizer state does not belong to this model: missing {missing[:5]}, unknown {unknown[:5]}. "
                "Use the state saved beside these weights."
            )
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise InvalidConfig(
                    f"optimizer state {name} has shape {tuple(tensors[name].shape)}; this model needs "
                    f"{tuple(tensor.shape)}. Use the state saved beside these weights."
                )
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
        self.num_steps = int(own["num_steps"])

    def _step_adamw(self, group: Group) -> None:
        for parameter, first, second in zip(group.parameters, *self._moments[group.name], strict=True):
            assert parameter.grad is not None, f"a parameter of {group.name} has no gradient"
            adamw_step(
                parameter,
                parameter.grad,
                first,
                second,
                step=self.num_steps,
                lr=group.lr,
                betas=group.betas,
                eps=group.eps,
                weight_decay=group.weight_decay,
            )

    def _step_muon(self, group: Group) -> None:
        grads = [parameter.grad for parameter in group.parameters if parameter.grad is not None]
        assert len(grads) == len(group.parameters), f"a matrix of {group.name} has no gradient"
        weights = torch.stack(list(group.parameters))  # n x (rows, cols) -> (n, rows, cols)
        buffer, second = self._stacks[group.name]
        muon_step(
            weights,
            torch.stack(grads).float(),
            buffer,
            second,
            lr=group.lr,
            momentum=group.momentum,
            beta2=group.beta2,
            weight_decay=group.weight_decay,
            dtype=self.matrix_dtype,
        )
        torch._foreach_copy_(list(group.parameters), list(weights.unbind()))


def _zeros_like(group: Group) -> list[Tensor]:
    return [torch.zeros_like(parameter, dtype=torch.float32) for parameter in group.parameters]
