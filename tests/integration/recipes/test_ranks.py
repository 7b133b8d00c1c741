"""A run on several processes under torchrun: one word to the outside, the numbers of one, stopped together."""

import shutil
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from nanochat.checkpoint import manifest, store
from nanochat.protocol.progress import CheckpointWritten, Failure, Progress, Result

from .conftest import Workshop, write_dataset
from .test_resume import LONG, wait, wait_for_steps

pytestmark = pytest.mark.slow


def weights_of(workshop: Workshop, checkpoint: str | None) -> Path:
    return workshop.home / "checkpoints" / str(checkpoint) / "model.safetensors"


@pytest.fixture(scope="module")
def pair(workshop: Workshop) -> str:
    """Nine steps on two ranks; the checkpoint's id."""
    ran = workshop.run_ranks(workshop.pretrain("pair", num_iterations=9, device_batch_size=2), 2)
    assert ran.result.output == "pair/pretrain/step_000009"
    return ran.result.output


def test_one_rank_speaks_and_the_state_is_shared_out(workshop: Workshop, pair: str) -> None:
    lines = workshop.lines(workshop.pretrain("pair"))
    kinds = Counter(type(line) for line in lines)
    assert kinds[Result] == kinds[CheckpointWritten] == 1
    steps = [line.step for line in lines if isinstance(line, Progress)]
    assert steps == sorted(steps)
    last = next(line for line in reversed(lines) if isinstance(line, Progress))
    assert (last.step, last.tokens) == (9, 9 * 512)  # the batch is that of all ranks together
    folder = workshop.home / "checkpoints" / pair / "optimizer"
    sizes = [path.stat().st_size for path in sorted(folder.iterdir())]
    assert len(sizes) == 2 and max(sizes) < 0.6 * sum(sizes)
    assert len(workshop.state(pair)["loader"]) == 2


def test_two_ranks_learn_what_one_learns(workshop: Workshop, pair: str) -> None:
    """From other rows of the same text, so nearly and not exactly."""
    one = workshop.run(workshop.pretrain("single", num_iterations=9)).result.values
    two = manifest.find(workshop.home, pair).metrics
    assert two["val_bpb"] == pytest.approx(one["val_bpb"], rel=0.02)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=0.02)


def test_an_evaluation_by_two_ranks_gives_the_numbers_of_one(workshop: Workshop, pair: str) -> None:
    config = {"evals": ["bpb", "chat"], "tasks": ["spelling"], "max_per_task": 3}
    one = workshop.run(workshop.evaluate("judge-one", checkpoint=pair, **config)).result.values
    two = workshop.run_ranks(workshop.evaluate("judge-two", checkpoint=pair, **config), 2).result.values
    timeless = {name: value for name, value in two.items() if not name.endswith("_seconds")}
    assert two.keys() == one.keys()
    assert timeless == {name: pytest.approx(one[name], rel=1e-12) for name in timeless}
    assert one["val_bpb"] == pytest.approx(manifest.find(workshop.home, pair).metrics["val_bpb"], rel=1e-6)


def test_a_signal_to_one_rank_stops_all_at_one_step(workshop: Workshop) -> None:
    long = workshop.pretrain("signalled", num_iterations=LONG, eval_every=0, device_batch_size=2)
    process = workshop.start(long, ranks=2)
    wait_for_steps(workshop, long)
    by_rank: dict[int, psutil.Process] = {}

    def both_are_found() -> bool:
        ranks = psutil.Process(process.pid).children(recursive=True)
        by_rank.update({int(rank.environ()["RANK"]): rank for rank in ranks if "RANK" in rank.environ()})
        return by_rank.keys() == {0, 1}

    wait(both_are_found)
    by_rank[1].send_signal(signal.SIGTERM)
    stopped = workshop.finish(long, process)
    assert len(stopped.checkpoints) == 1
    assert not [line for line in stopped.lines if isinstance(line, Failure | Result)]
    info = manifest.find(workshop.home, stopped.checkpoints[0])
    manifest.verify(info.folder)
    assert len(store.load(info.folder).state["loader"]) == 2


def test_a_run_of_two_ranks_that_was_stopped_ends_with_the_bits_of_one_that_was_not(
    workshop: Workshop, pair: str
) -> None:
    config = {"num_iterations": 9, "save_every": 4, "device_batch_size": 2}
    half = workshop.run_ranks(workshop.pretrain("half", **config), 2)
    assert len(half.checkpoints) == 3
    last = workshop.home / "checkpoints" / half.checkpoints[-1]
    last.rename(last.with_name(".gone"))  # as if it had ended between the checkpoints of steps 8 and 9
    resumed = workshop.run_ranks(workshop.pretrain("half", **config, attempt=2), 2)
    assert first_step(resumed.lines) == 8
    one, other = (load_file(weights_of(workshop, name)) for name in (pair, resumed.result.output))
    assert all(one[name].equal(other[name]) for name in one)


def first_step(lines: list[object]) -> int:
    return next(line.step for line in lines if isinstance(line, Progress))


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_run_goes_on_with_another_number_of_ranks(workshop: Workshop, pair: str, ranks: int) -> None:
    """With the whole of its optimizer's state, which is cut for these ranks."""
    name = f"other-{ranks}"
    config = {"run": "pair", "resume": True, "num_iterations": 10, "total_batch_size": 1536}
    ran = workshop.run_ranks(workshop.pretrain(name, **config), ranks)
    assert first_step(ran.lines) == 9
    folder = workshop.home / "checkpoints" / str(ran.result.output)
    try:
        held = [path.name for path in sorted((folder / "optimizer").iterdir())]
        assert held == [f"rank_{rank:05d}.safetensors" for rank in range(ranks)]
        loaded = store.load(folder, with_optimizer=True).optimizer_tensors
        assert loaded is not None and int(loaded["num_steps"][...]) == 10
    finally:
        folder.rename(folder.with_name(f".{name}"))  # the next goes on from the pair's own too


def test_fine_tuning_runs_on_two_ranks_with_the_momenta_of_its_base(workshop: Workshop, pair: str) -> None:
    base = str(workshop.home / "checkpoints" / pair)
    ran = workshop.run_ranks(workshop.sft("pair-chat", checkpoint=base, num_iterations=3), 2)
    assert ran.result.output == "pair-chat/sft/step_000003"
    assert ran.result.values["val_bpb"] > 0
    folder = workshop.home / "checkpoints" / str(ran.result.output) / "optimizer"
    with safe_open(folder / "rank_00000.safetensors", framework="pt") as file:
        assert int(file.get_tensor("num_steps")) == 12  # nine of the base, three of its own


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"device_batch_size": 4}, "no multiple of 1024 (device_batch_size 4 x 128 tokens x 2 ranks)"),
        ({"dataset": "tiny"}, "has 1 row groups to train on, and there are 2 ranks"),
    ],
)
def test_what_ranks_cannot_share_is_said_once(workshop: Workshop, config: dict[str, object], reason: str) -> None:
    if "dataset" in config:
        config = {"dataset": str(write_dataset(workshop.home / "datasets" / "tiny", num_documents=12, num_shards=2))}
    ran = workshop.run_ranks(workshop.pretrain("refused", **{"device_batch_size": 2, **config}), 2)
    assert reason in ran.failure.message


def test_what_fails_on_one_rank_alone_is_told_by_it(workshop: Workshop) -> None:
    """A shard that only the second rank reads is no parquet."""
    dataset = workshop.home / "datasets" / "torn"
    shutil.copytree(workshop.dataset, dataset)
    path = dataset / "shard_00000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    ran = workshop.run_ranks(workshop.pretrain("torn", dataset=str(dataset), device_batch_size=2), 2)
    assert ran.failure.code == "data_error"
    assert str(path) in ran.failure.message
