"""The optimizer of the whole model: walks the parts of its groups, and gives their state by parameter name.

Rates are set on the groups by the training loop (schedule.py); who owns what is parts.py; the rules are adamw.py and
muon.py.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from nanochat.collectives import ALONE, Peers
from nanochat.errors import InvalidConfig
from nanochat.optim.groups import Group
from nanochat.optim.parts import Moment, Saved, make_parts


class MuonAdamW:
    """Two moments a parameter, float32: AdamW's first and second, or Muon's momentum buffer and row or column variance.

    Gradients may differ between ranks: the average moves the weights, which must be equal at first and stay so. Each
    rank holds 1 / world_size of the moments. matrix_dtype is that of Muon's orthogonalisation: the compute dtype if
    bfloat16, else float32.
    """

    def __init__(self, groups: list[Group], matrix_dtype: torch.dtype = torch.float32, peers: Peers = ALONE) -> None:
        self.groups = groups
        self.num_steps = 0
        self._parts = [part for group in groups for part in make_parts(group, peers, matrix_dtype)]
        self._is_first = peers.rank == 0

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter by its gradient, which may be overwritten. All must have one. Raises PeerLost."""
        self.num_steps += 1
        for part in self._parts:
            part.start_reduce()
        for part in self._parts:
            part.update(self.num_steps)
        for part in self._parts:
            part.finish()

    def zero_grad(self) -> None:
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    def state(self) -> dict[str, Moment]:
        """`<name>.first`, `<name>.second` and `num_steps`: views of what this rank holds; all ranks' make the whole."""
        steps = torch.tensor(self.num_steps)
        held = {"num_steps": Moment(tensor=steps, shape=steps.shape, is_common=True)}
        held |= {name: moment for part in self._parts for name, moment in part.moments()}
        return {name: moment for name, moment in held.items() if self._is_first or not moment.is_common}

    def state_tensors(self) -> dict[str, Tensor]:
        """state() without saying which rows they are: the whole state where there is one rank."""
        return {name: moment.tensor for name, moment in self.state().items()}

    def load_state_tensors(self, saved: Mapping[str, Saved]) -> None:
        """Copy in what is this rank's of a whole state, saved by any number of ranks.

        Raises InvalidConfig, changing nothing, unless it is that of the same parameters.
        """
        shapes = {name: shape for part in self._parts for name, shape in part.moment_shapes().items()}
        shapes["num_steps"] = torch.Size()
        if shapes.keys() != saved.keys():
            missing, unknown = sorted(shapes.keys() - saved.keys()), sorted(saved.keys() - shapes.keys())
            raise InvalidConfig(
                f"the optimizer state does not belong to this model: missing {missing[:5]}, unknown {unknown[:5]}. "
                "Use the state saved beside these weights."
            )
        for name, shape in shapes.items():
            if shape != saved[name].shape:
                raise InvalidConfig(
                    f"optimizer state {name} has shape {tuple(saved[name].shape)}; this model needs "
                    f"{tuple(shape)}. Use the state saved beside these weights."
                )
        for part in self._parts:
            for name, moment in part.moments():
                moment.load(saved[name])
        self.num_steps = int(saved["num_steps"][...])
