"""Fine-tuning and reinforcement learning that go on with another number of ranks: alone, then two, then alone again.

Pretraining is in test_ranks.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from nanochat.checkpoint import manifest, store
from nanochat.model.gpt import GPT
from nanochat.optim.groups import param_groups
from nanochat.protocol.jobs import RunSpec
from nanochat.protocol.progress import Line, Metric, Progress

from .conftest import Ran, Workshop
from .easy_rewards import make_easy

pytestmark = pytest.mark.slow

BASE = "base/pretrain/step_000008"
# Of how far a group's weights have moved. Sums in another order make up to 1e-4 of it, but for the smear gate, whose
# gradient is hardly more than rounding, which AdamW makes as large as any other: 4e-2 there.
TOLERANCE = 1e-3
TOLERANCE_OF_SMEAR = 0.2


@dataclass(frozen=True)
class Relay:
    """A run that was alone to its end, and what became of it where two ranks took it up at an earlier step, and where
    one took it up from them again. Folders of checkpoints, at the last step, and what each of the three wrote."""

    home: Path
    folders: list[Path]
    ran: list[Ran]

    def first_steps(self) -> list[int]:
        return [next(line.step for line in ran.lines if isinstance(line, Progress)) for ran in self.ran]

    def optimizer_steps(self) -> list[int]:
        found = []
        for folder in self.folders:
            tensors = store.load(folder, with_optimizer=True).optimizer_tensors
            assert tensors is not None
            found.append(int(tensors["num_steps"][...]))
        return found

    def num_ranks(self) -> list[int]:
        return [len(list((folder / "optimizer").iterdir())) for folder in self.folders]


def hand_over(workshop: Workshop, make: Callable[..., RunSpec], module: str, first: int, second: int) -> Relay:
    """Two ranks go on from the step `first`, and one from their step `second`."""
    spec = make()
    ran = [workshop.run(spec)]
    last = workshop.home / "checkpoints" / str(ran[0].result.output)
    aside = workshop.home / "aside" / spec.name
    aside.mkdir(parents=True)
    folders = [last.rename(aside / "alone")]
    last.with_name(f"step_{second:06d}").rename(aside / "alone-before")
    assert manifest.find(workshop.home, f"{spec.name}/{spec.kind}").step == first
    again = make(attempt=2)
    num_before = len(workshop.lines(again))
    finished = workshop.finish(again, workshop.start(again, ranks=2, module=module))
    ran.append(Ran(finished.exit_code, finished.lines[num_before:]))
    assert ran[1].result.output == ran[0].result.output
    folders.append(last.rename(aside / "two"))
    assert manifest.find(workshop.home, f"{spec.name}/{spec.kind}").step == second
    ran.append(workshop.run(make(attempt=3)))
    assert ran[2].result.output == ran[0].result.output
    folders.append(last)
    return Relay(workshop.home, folders, ran)


def num_packed(state: dict[str, Any]) -> int:
    """Conversations that a checkpoint's loaders have put into rows: those read, less those that wait for one."""
    return sum(
        len(range(one["rank"], one["cursor"]["position"], one["world_size"])) - len(one["waiting"])
        for one in state["loader"]
    )


def test_fine_tuning_is_handed_over_without_a_conversation_lost(workshop: Workshop) -> None:
    """Each rank packs rows of its own, so what is learnt is nearly the same, and not exactly."""
    config = {"num_iterations": 6, "save_every": 2}

    def make(attempt: int = 1) -> RunSpec:
        return workshop.sft("relay-sft", attempt=attempt, **config)

    relay = hand_over(workshop, make, "nanochat.recipes", 2, 4)
    assert relay.first_steps() == [0, 2, 4]
    assert relay.optimizer_steps() == [8 + 6] * 3
    assert relay.num_ranks() == [1, 2, 1]
    steps = [workshop.state(f"relay-sft/sft/step_{step:06d}") for step in (2, 4, 6)]
    packed = [num_packed(state) for state in steps]
    alone = num_packed(manifest.read_state(relay.folders[0]))
    # Of each eight rows, while a thousand conversations and more wait for theirs.
    assert 0 < packed[0] < packed[1] < packed[2]
    assert packed[2] == pytest.approx(alone, rel=0.2)
    straight, *others = (ran.result.values for ran in relay.ran)
    for values in others:
        assert values["val_bpb"] == pytest.approx(straight["val_bpb"], rel=0.05)
        assert values["train_loss"] == pytest.approx(straight["train_loss"], rel=0.05)


def test_reinforcement_learning_is_handed_over_with_its_questions_and_answers(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step's questions and seeds are its own, so two ranks learn what one learns but for the order of sums."""
    make_easy(monkeypatch)
    config = {"num_iterations": 3, "save_every": 1, "eval_samples": 0}

    def make(attempt: int = 1) -> RunSpec:
        return workshop.rl("relay-rl", attempt=attempt, **config)

    relay = hand_over(workshop, make, "tests.integration.recipes.easy_rewards", 1, 2)
    assert relay.first_steps() == [0, 1, 2]
    assert relay.optimizer_steps() == [3] * 3
    assert relay.num_ranks() == [1, 2, 1]
    straight, *others = (ran.lines for ran in relay.ran)
    for name in ("reward", "answer_tokens", "cut_ratio", "pass_ratio", "mixed_ratio", "counting_accuracy"):
        expected = told(straight, name)
        for lines in others:
            found = told(lines, name)
            assert found and found == {step: expected[step] for step in found}, name
    assert told(straight, "mixed_ratio")[1] > 0 and told(straight, "mixed_ratio")[2] > 0
    base = load_file(workshop.home / "checkpoints" / BASE / "model.safetensors")
    one, *taken_over = (load_file(folder / "model.safetensors") for folder in relay.folders)
    for group in param_groups(GPT(manifest.find(workshop.home, BASE).config)):
        moved = max(float((one[name] - base[name]).abs().max()) for name in group.names)
        assert moved > 0
        for weights in taken_over:
            far = max(float((one[name] - weights[name]).abs().max()) for name in group.names)
            tolerance = TOLERANCE_OF_SMEAR if "smear_gate" in group.names else TOLERANCE
            assert far <= tolerance * moved, group.names


def told(lines: list[Line], name: str) -> dict[int, float]:
    return {line.step: line.values[name] for line in lines if isinstance(line, Metric) and name in line.values}
