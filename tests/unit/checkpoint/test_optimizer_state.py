"""Files of ranks as whole tensors, read by rows."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nanochat.checkpoint import optimizer_state
from nanochat.optim.parts import Moment

WHOLE = torch.arange(14.0).view(7, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven rows cut 3, 3, 1; a whole tensor of the second rank; a number of the first."""
    for rank, (start, stop) in enumerate([(0, 3), (3, 6), (6, 7)]):
        rows = Moment(tensor=WHOLE[start:stop], shape=WHOLE.shape, start=start, is_split=True)
        state = {"split.first": rows}
        if rank == 0:
            state["num_steps"] = Moment(tensor=torch.tensor(5), shape=torch.Size())
        if rank == 1:
            state["own.first"] = Moment(tensor=WHOLE.T, shape=WHOLE.T.shape)
        optimizer_state.write(tmp_path, rank, state)
    return tmp_path


def test_a_file_a_rank(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [f"rank_0000{rank}.safetensors" for rank in range(3)]


def test_tensors_come_back_whole(folder: Path) -> None:
    saved = optimizer_state.read(folder)
    assert saved.keys() == {"split.first", "own.first", "num_steps"}
    assert {name: tuple(tensor.shape) for name, tensor in saved.items()} == {
        "split.first": (7, 2),
        "own.first": (2, 7),
        "num_steps": (),
    }
    assert saved["split.first"][...].equal(WHOLE)
    assert saved["own.first"][...].equal(WHOLE.T)
    assert int(saved["num_steps"][...]) == 5


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (0, 4), (2, 7), (4, 6), (5, 5), (7, 7)])
def test_rows_are_cut_anew(folder: Path, start: int, stop: int) -> None:
    assert optimizer_state.read(folder)["split.first"][start:stop].equal(WHOLE[start:stop])


def test_what_the_disk_refuses_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="could not be written"):
        optimizer_state.write(tmp_path / "not made", 0, {})


def test_one_file_of_an_earlier_version_is_read_alike(tmp_path: Path) -> None:
    save_file({"split.first": WHOLE}, tmp_path / "state.safetensors")
    assert optimizer_state.read(tmp_path)["split.first"][1:3].equal(WHOLE[1:3])
