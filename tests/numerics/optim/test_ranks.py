"""Several ranks against one: the same weights, and each holds its share of the moments and no more."""

import json
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from nanochat.collectives import ALONE, Peers
from nanochat.model.names import named_tensors
from nanochat.optim.groups import param_groups
from nanochat.optim.optimizer import MuonAdamW
from tests.gpus import NEEDS_GPUS

from .train_in_ranks import NUM_STEPS, run

# Of how far a group's weights have moved in 20 steps. Ranks add up gradients in another order, which AdamW makes
# most of where a gradient is almost nothing: an embedding's rows differ by 1e-3 of it, matrices by 1e-5.
TOLERANCE = 1e-2


@dataclass(frozen=True)
class Rank:
    weights: dict[str, Tensor]
    state: dict[str, Tensor]
    splits: dict[str, list[int]]  # name: first row, then the whole shape
    held_bytes: int


@dataclass(frozen=True)
class Ranks:
    members: list[Rank]
    device: str

    def whole_state(self) -> dict[str, Tensor]:
        """Put together again. Fails where two ranks hold the same rows, or nobody does."""
        whole: dict[str, Tensor] = {}
        for rank in self.members:
            for name, tensor in rank.state.items():
                if name not in rank.splits:
                    assert name not in whole, f"two ranks hold {name}"
                    whole[name] = tensor
                    continue
                start, *shape = rank.splits[name]
                target = whole.setdefault(name, torch.full(shape, float("nan")))
                assert target[start : start + len(tensor)].isnan().all(), f"two ranks hold the same rows of {name}"
                target[start : start + len(tensor)] = tensor
        assert not [name for name, tensor in whole.items() if tensor.isnan().any()]
        return whole


@pytest.fixture(
    scope="module",
    params=[(2, "cpu"), (3, "cpu"), pytest.param((2, "cuda"), marks=NEEDS_GPUS)],
    ids=["2", "3", "2 GPUs"],
)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    num_ranks, device = request.param
    folder = tmp_path_factory.mktemp("ranks")
    options = ["--standalone", f"--nproc-per-node={num_ranks}", "--log-dir=/dev/null"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *options]
    subprocess.run([*torchrun, "-m", "tests.numerics.optim.train_in_ranks", str(folder), device], check=True)
    members = []
    for rank in range(num_ranks):
        path = folder / f"rank_{rank}.safetensors"
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata())
        held_bytes = int(metadata.pop("bytes"))
        splits = {name: json.loads(value) for name, value in metadata.items()}
        members.append(Rank(load_file(folder / f"weights_{rank}.safetensors"), load_file(path), splits, held_bytes))
    return Ranks(members, device)


@pytest.fixture(scope="module")
def one(ranks: Ranks) -> tuple[dict[str, Tensor], MuonAdamW]:
    """Weights, on the CPU, and optimizer."""
    torch.set_num_threads(1)
    model, optimizer = run(ALONE, device=ranks.device)
    return {name: tensor.cpu() for name, tensor in named_tensors(model).items()}, optimizer


def test_weights_of_every_group_equal_those_of_one_rank(ranks: Ranks, one: tuple[dict[str, Tensor], MuonAdamW]) -> None:
    weights, optimizer = one
    before = named_tensors(run(ALONE, num_steps=0)[0])
    for group in optimizer.groups:
        moved = max(float((weights[name] - before[name]).abs().max()) for name in group.names)
        assert moved > 0
        for name in group.names:
            torch.testing.assert_close(
                ranks.members[0].weights[name], weights[name], rtol=0, atol=TOLERANCE * moved, msg=name
            )


def test_all_ranks_end_with_the_same_bits(ranks: Ranks) -> None:
    first, *others = (rank.weights for rank in ranks.members)
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


def test_the_ranks_states_make_up_that_of_one(ranks: Ranks, one: tuple[dict[str, Tensor], MuonAdamW]) -> None:
    whole = ranks.whole_state()
    expected = {name: tensor.cpu() for name, tensor in one[1].state_tensors().items()}
    assert whole.keys() == expected.keys()
    assert whole["num_steps"] == NUM_STEPS
    for name, tensor in expected.items():
        largest = max(float(tensor.abs().max()), 1e-12)
        torch.testing.assert_close(whole[name], tensor, rtol=0, atol=1e-3 * largest, msg=name)


def test_a_rank_holds_its_share_of_the_moments(ranks: Ranks, one: tuple[dict[str, Tensor], MuonAdamW]) -> None:
    """By bytes: what is split is held once, and by nobody more than a chunk of each parameter or stack."""
    optimizer, n = one[1], len(ranks.members)
    sizes = {name: tensor.nbytes for name, tensor in optimizer.state_tensors().items()}
    small, split, most = 0, 0, 0
    for group in optimizer.groups:
        by_parameter = [sizes[f"{name}.first"] + sizes[f"{name}.second"] for name in group.names]
        if group.rule == "muon":
            split += sum(by_parameter)
            most += -(-len(by_parameter) // n) * by_parameter[0]
            continue
        for parameter, size in zip(group.parameters, by_parameter, strict=True):
            if parameter.numel() < 1024:
                small += size
            else:
                split += size
                most += -(-len(parameter) // n) * size // len(parameter)
    held = [rank.held_bytes for rank in ranks.members]
    assert sum(held) == split + n * small
    assert max(held) == most + small
    assert small < split / 20


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2), (2, 3), (4, 5)])
def test_a_state_loads_on_another_number_of_ranks(ranks: Ranks, rank: int, world_size: int) -> None:
    whole = ranks.whole_state()
    model, _ = run(ALONE, num_steps=0)
    optimizer = MuonAdamW(param_groups(model), peers=Peers(rank=rank, world_size=world_size))
    optimizer.load_state_tensors(whole)
    assert optimizer.num_steps == NUM_STEPS
    loaded = optimizer.state()
    assert any(moment.is_split for moment in loaded.values()) is (world_size > 1)
    for name, moment in loaded.items():
        rows = whole[name][moment.start : moment.start + len(moment.tensor)] if moment.is_split else whole[name]
        assert torch.equal(moment.tensor, rows), name
