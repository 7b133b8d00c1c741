"""What a rank owns of the parameters and their moments, and how gradients come to it and weights go back.

    Small      an AdamW parameter that every rank moves alike: a small one, or any where there is one rank
    Rows       an AdamW parameter split along dim 0, a part a rank
    Matrices   a Muon group, whole matrices shared out

A step is in three parts, so that what is sent overlaps what is computed: every part starts to send its gradients; each
in turn waits for its own, moves its weights and starts to send them; at last all wait. With one rank nothing is sent,
and nothing is copied for it. A split that does not come out even is padded while it travels; moments have no padding.
Source: the optimizer part of ZeRO, arXiv 1910.02054. The rules are adamw.py and muon.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Protocol

import torch
from torch import Tensor, nn

from nanochat.collectives import Peers, Pending
from nanochat.optim.adamw import adamw_step
from nanochat.optim.groups import Group
from nanochat.optim.muon import muon_step, second_shape

# A smaller parameter costs less to move on every rank than to split.
MIN_SPLIT_ELEMENTS = 1024


class Saved(Protocol):
    """A tensor as a checkpoint has it, of which some rows can be read alone. A Tensor is one."""

    @property
    def shape(self) -> torch.Size: ...

    def __getitem__(self, rows: slice | EllipsisType, /) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What this rank holds of one moment of one parameter: `tensor` is rows `start` and on of `shape`, or all of it.

    `is_common`: every rank holds the same, all of it.
    """

    tensor: Tensor
    shape: torch.Size
    start: int = 0
    is_split: bool = False
    is_common: bool = False

    def load(self, saved: Saved) -> None:
        rows: slice | EllipsisType = slice(self.start, self.start + len(self.tensor)) if self.is_split else ...
        self.tensor.copy_(saved[rows])


class Part(Protocol):
    def start_reduce(self) -> None: ...
    def update(self, num_steps: int) -> None:
        """Wait for the gradients, move the weights that are this rank's, start to send them. Steps count from 1."""

    def finish(self) -> None:
        """Wait until every weight is what its owner made of it."""

    def moments(self) -> Iterator[tuple[str, Moment]]:
        """`<name>.first` and `<name>.second` of what is this rank's."""

    def moment_shapes(self) -> Mapping[str, torch.Size]:
        """Of every moment, whoever holds it."""


def make_parts(group: Group, peers: Peers, matrix_dtype: torch.dtype) -> list[Part]:
    """A part for each AdamW parameter, or one for the whole Muon group."""
    if group.rule == "muon":
        return [Matrices(group, peers, matrix_dtype)]
    parts: list[Part] = []
    for name, parameter in zip(group.names, group.parameters, strict=True):
        is_small = peers.is_alone or parameter.numel() < MIN_SPLIT_ELEMENTS
        parts.append((Small if is_small else Rows)(group, name, parameter, peers))
    return parts


class Small:
    def __init__(self, group: Group, name: str, parameter: nn.Parameter, peers: Peers) -> None:
        self._group, self._name, self._parameter, self._peers = group, name, parameter, peers
        self._first = torch.zeros_like(parameter, dtype=torch.float32)
        self._second = torch.zeros_like(self._first)
        self._pending = Pending()

    def start_reduce(self) -> None:
        self._pending = self._peers.start_mean(_grad(self._parameter, self._name))

    def update(self, num_steps: int) -> None:
        self._pending.wait()
        grad = _grad(self._parameter, self._name)
        _move(self._group, self._parameter, grad, self._first, self._second, num_steps)

    def finish(self) -> None:
        """Every rank has done the same."""

    def moments(self) -> Iterator[tuple[str, Moment]]:
        yield f"{self._name}.first", Moment(tensor=self._first, shape=self._first.shape, is_common=True)
        yield f"{self._name}.second", Moment(tensor=self._second, shape=self._second.shape, is_common=True)

    def moment_shapes(self) -> Mapping[str, torch.Size]:
        return {name: moment.shape for name, moment in self.moments()}


class Rows:
    def __init__(self, group: Group, name: str, parameter: nn.Parameter, peers: Peers) -> None:
        self._group, self._name, self._parameter, self._peers = group, name, parameter, peers
        self._chunk = -(-len(parameter) // peers.world_size)  # rows a rank, with padding
        self._is_even = self._chunk * peers.world_size == len(parameter)
        self._owned = _owned(len(parameter), self._chunk, peers.rank)
        self._first = torch.zeros_like(parameter.detach()[self._owned], dtype=torch.float32)
        self._second = torch.zeros_like(self._first)
        self._pending = Pending()
        self._grad = self._whole = self._sent = parameter.new_empty(0)  # what a step holds while it is sent

    def start_reduce(self) -> None:
        self._whole = _padded(_grad(self._parameter, self._name), self._chunk * self._peers.world_size)
        self._grad = self._whole.new_empty((self._chunk, *self._whole.shape[1:]))
        self._pending = self._peers.start_mean_part(self._grad, self._whole)

    def update(self, num_steps: int) -> None:
        self._pending.wait()
        own = self._parameter.detach()[self._owned]
        _move(self._group, own, self._grad[: len(own)], self._first, self._second, num_steps)
        self._sent = own.clone() if self._is_even else _padded(own, self._chunk)
        if self._is_even:
            self._whole = self._parameter.detach()
        self._pending = self._peers.start_gather(self._whole, self._sent)

    def finish(self) -> None:
        self._pending.wait()
        if not self._is_even:
            self._parameter.copy_(self._whole[: len(self._parameter)])
        self._grad = self._whole = self._sent = self._parameter.new_empty(0)

    def moments(self) -> Iterator[tuple[str, Moment]]:
        if self._owned.stop > self._owned.start:
            shape, start = self._parameter.shape, self._owned.start
            yield f"{self._name}.first", Moment(tensor=self._first, shape=shape, start=start, is_split=True)
            yield f"{self._name}.second", Moment(tensor=self._second, shape=shape, start=start, is_split=True)

    def moment_shapes(self) -> Mapping[str, torch.Size]:
        return {f"{self._name}.{moment}": self._parameter.shape for moment in ("first", "second")}


class Matrices:
    """Moments are one stack, (n, rows, cols) and (n, rows, 1) or (n, 1, cols): a step is a few large products."""

    def __init__(self, group: Group, peers: Peers, dtype: torch.dtype) -> None:
        self._group, self._peers, self._dtype = group, peers, dtype
        self._chunk = -(-len(group.parameters) // peers.world_size)  # matrices a rank, with padding
        self._owned = _owned(len(group.parameters), self._chunk, peers.rank)
        self._parameters = group.parameters[self._owned]
        rows, cols = group.parameters[0].shape
        n, device = len(self._parameters), group.parameters[0].device
        self._first = torch.zeros((n, rows, cols), device=device)
        self._second = torch.zeros((n, *second_shape(rows, cols)), device=device)
        self._pending = Pending()
        self._grads = self._whole = self._sent = torch.empty(0, device=device)

    def start_reduce(self) -> None:
        if not self._peers.is_alone:
            self._whole = _padded(self._stacked_grads(), self._chunk * self._peers.world_size)
            self._grads = self._whole.new_empty((self._chunk, *self._whole.shape[1:]))
            self._pending = self._peers.start_mean_part(self._grads, self._whole)

    def update(self, num_steps: int) -> None:
        if self._peers.is_alone:
            self._put(self._moved(self._stacked_grads()))
            return
        self._pending.wait()
        moved = self._moved(self._grads[: len(self._parameters)]) if self._parameters else self._grads[:0]
        self._sent = _padded(moved, self._chunk)
        self._pending = self._peers.start_gather(self._whole, self._sent)

    def finish(self) -> None:
        if not self._peers.is_alone:
            self._pending.wait()
            self._put(self._whole[: len(self._group.parameters)])
            self._grads = self._whole = self._sent = self._whole.new_empty(0)

    def moments(self) -> Iterator[tuple[str, Moment]]:
        names = self._group.names[self._owned]
        for name, first, second in zip(names, self._first.unbind(), self._second.unbind(), strict=True):
            yield f"{name}.first", Moment(tensor=first, shape=first.shape)
            yield f"{name}.second", Moment(tensor=second, shape=second.shape)

    def moment_shapes(self) -> Mapping[str, torch.Size]:
        shapes = {"first": self._first.shape[1:], "second": self._second.shape[1:]}
        return {f"{name}.{moment}": shape for name in self._group.names for moment, shape in shapes.items()}

    def _moved(self, grads: Tensor) -> Tensor:
        """This rank's matrices (n, rows, cols) after the step; the parameters are not changed. grads is overwritten."""
        weights = torch.stack(list(self._parameters))  # n x (rows, cols) -> (n, rows, cols)
        muon_step(
            weights,
            grads,
            self._first,
            self._second,
            lr=self._group.lr,
            momentum=self._group.momentum,
            beta2=self._group.beta2,
            weight_decay=self._group.weight_decay,
            dtype=self._dtype,
            is_light=self._group.is_light,
        )
        return weights

    def _put(self, weights: Tensor) -> None:
        torch._foreach_copy_(list(self._group.parameters), list(weights.unbind()))

    def _stacked_grads(self) -> Tensor:
        pairs = zip(self._group.parameters, self._group.names, strict=True)
        return torch.stack([_grad(parameter, name) for parameter, name in pairs]).float()


def _owned(num: int, chunk: int, rank: int) -> slice:
    return slice(min(rank * chunk, num), min((rank + 1) * chunk, num))


def _grad(parameter: nn.Parameter, name: str) -> Tensor:
    assert parameter.grad is not None, f"{name} has no gradient"
    return parameter.grad


def _move(group: Group, weights: Tensor, grad: Tensor, first: Tensor, second: Tensor, num_steps: int) -> None:
    adamw_step(
        weights,
        grad,
        first,
        second,
        step=num_steps,
        lr=group.lr,
        betas=group.betas,
        eps=group.eps,
        weight_decay=group.weight_decay,
    )


def _padded(tensor: Tensor, num_rows: int) -> Tensor:
    """With zeros behind, up to num_rows; the tensor itself where it has as many."""
    if len(tensor) == num_rows:
        return tensor
    return torch.cat([tensor, tensor.new_zeros((num_rows - len(tensor), *tensor.shape[1:]))])
