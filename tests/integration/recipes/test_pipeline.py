"""The four stages under a real torchrun, one after the other, each from its spec file."""

import json
from pathlib import Path

import pytest

from nanochat.checkpoint import manifest
from nanochat.evals.samples import TEXT_PROMPTS
from nanochat.optim.horizon import plan_horizon
from nanochat.protocol.progress import Metric, Progress, Sample
from nanochat.tools.sandbox import probe

from .conftest import Workshop
from .test_resume import assert_equal_checkpoints


@pytest.fixture
def fresh(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture(scope="module")
def with_core(workshop: Workshop) -> Workshop:
    """With the file of one of CORE's tasks in its home."""
    folder = workshop.home / "datasets" / "core" / "commonsense_reasoning"
    folder.mkdir(parents=True)
    line = '{"query": "A cat is", "choices": ["an animal", "a stone"], "gold": 0}\n'
    (folder / "copa.jsonl").write_text(line * 4)
    return workshop


@pytest.mark.slow
def test_tokenizer_pretrain_sft_and_evaluate_run_under_torchrun(fresh: Workshop) -> None:
    outputs, values = [], {}
    specs = [fresh.tokenizer(), fresh.pretrain(), fresh.sft(), fresh.evaluate(checkpoint="chat/sft/step_000008")]
    for spec in specs:
        ran = fresh.finish(spec, fresh.start(spec, ranks=1))
        outputs.append(ran.result.output)
        values = ran.result.values
        assert any(isinstance(line, Progress) and line.ratio == 1 for line in ran.lines)
    assert outputs == ["tok", "base/pretrain/step_000008", "chat/sft/step_000008", None]
    assert (fresh.home / "tokenizers" / "tok" / "tokenizer.json").is_file()
    manifest.verify(fresh.home / "checkpoints" / "chat/sft/step_000008")
    assert {"val_bpb", "spelling_accuracy", "counting_stderr", "arithmetic_count"} <= values.keys()


def test_training_reports_loss_validation_and_speed(workshop: Workshop) -> None:
    lines = workshop.lines(workshop.pretrain())
    losses = [line.values["train_loss"] for line in lines if isinstance(line, Metric) and "train_loss" in line.values]
    assert len(losses) == 8 and losses[-1] < losses[0]
    assert any("val_bpb" in line.values for line in lines if isinstance(line, Metric))
    tokens = [line.tokens for line in lines if isinstance(line, Progress)]
    assert tokens[0] == 0 and tokens[-1] == 8 * 512


def test_a_checkpoint_says_what_it_was_made_from(workshop: Workshop) -> None:
    ran = workshop.run(workshop.sft("origin", num_iterations=2))
    assert ran.result.output is not None
    state = workshop.state(ran.result.output)
    assert state["base"] == "base/pretrain/step_000008"
    assert state["dataset"] == str(workshop.dataset)
    assert state["batch"] == workshop.state("base/pretrain/step_000008")["batch"]
    assert state["config"]["mixture"][0]["task"] == "spelling"


def test_sft_without_a_number_of_steps_takes_one_pass(workshop: Workshop, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text('[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]\n' * 200)
    ran = workshop.run(workshop.sft("pass", mixture=[{"file": str(file)}], num_iterations=None))
    assert ran.result.output is not None
    step = manifest.find(workshop.home, ran.result.output).step
    # 190 conversations of at most 15 tokens fill about 20 rows of 129, 4 rows a step.
    assert 4 <= step <= 6


def test_a_batch_that_is_not_given_is_worked_out_from_the_models_size(workshop: Workshop) -> None:
    spec = workshop.pretrain("auto", total_batch_size=None, device_batch_size=None, num_iterations=1)
    output = workshop.run(spec).result.output
    batch = workshop.state(str(output))["batch"]
    horizon = plan_horizon(manifest.find(workshop.home, str(output)).config, aspect_ratio=16)
    assert batch["sequence_len"] * batch["device_batch_size"] * batch["num_micro_steps"] == horizon.batch_tokens


def test_core_reads_the_files_that_are_there(with_core: Workshop) -> None:
    ran = with_core.run(with_core.evaluate("core", evals=["core", "sample"]))
    beside = {f"{name}_{what}" for name in ("core_copa", "core") for what in ("stderr", "count", "seconds")}
    assert ran.result.values.keys() == {"core_copa", "core_metric", "core_num_tasks"} | beside
    assert ran.result.values["core_copa_count"] == ran.result.values["core_count"] == 2


def test_core_and_samples_are_taken_at_their_steps_and_leave_training_as_it_is(with_core: Workshop) -> None:
    """Every third step, or every fifth, and at the end; the weights and moments are those of the run without them."""
    plain = with_core.run(with_core.pretrain("unwatched", save_every=3))
    ran = with_core.run(with_core.pretrain("watched", save_every=3, core_metric_every=3, sample_every=5))
    told = [line for line in ran.lines if isinstance(line, Metric)]
    measured = {line.step: line.values for line in told if "core_metric" in line.values}
    assert list(measured) == [3, 6, 8]
    for values in measured.values():
        assert values["core_copa"] == values["core_metric"] in (-1.0, 1.0)  # four times the same question
        assert (values["core_copa_count"], values["core_num_tasks"]) == (4, 1)
    samples = [line for line in ran.lines if isinstance(line, Sample)]
    assert [(line.step, line.prompt) for line in samples] == [(step, text) for step in (5, 8) for text in TEXT_PROMPTS]
    assert any(line.text for line in samples)
    assert ran.result.values["core_metric"] == measured[8]["core_metric"]
    assert manifest.find(with_core.home, "watched/pretrain/step_000006").metrics["core_metric"] in (-1.0, 1.0)
    for step in (3, 6, 8):
        names = [f"{run}/pretrain/step_{step:06d}" for run in ("unwatched", "watched")]
        assert_equal_checkpoints(*(manifest.find(with_core.home, name).folder for name in names))
    assert plain.result.values["val_bpb"] == ran.result.values["val_bpb"]


def test_programs_that_a_model_writes_are_judged_in_the_sandbox(workshop: Workshop) -> None:
    if probe() is not None:
        pytest.skip(str(probe()))
    folder = workshop.home / "datasets" / "humaneval"
    folder.mkdir(parents=True)
    names = ["task_id", "prompt", "entry_point", "canonical_solution", "test"]
    # Any program with such a function passes, and a model of eight steps writes none.
    problem = dict(zip(names, ["T/0", "def f():\n", "f", "    return 1\n", "def check(f): pass\n"], strict=True))
    (folder / "test.jsonl").write_text((json.dumps(problem) + "\n") * 3)
    ran = workshop.run(workshop.evaluate("programs", evals=["chat"], tasks=["humaneval"]))
    values = ran.result.values
    assert (values["humaneval_accuracy"], values["humaneval_stderr"], values["humaneval_count"]) == (0.0, 0.0, 2.0)
    assert values["humaneval_seconds"] > 0 and values["chatcore_metric"] == 0.0


def test_chat_tasks_are_measured_while_fine_tuning(workshop: Workshop) -> None:
    given = {"chatcore_every": 2, "chatcore_tasks": ["spelling"], "chatcore_max_per_task": 4}
    ran = workshop.run(workshop.sft("judged", num_iterations=4, **given))
    measured = [line for line in workshop.lines(workshop.sft("judged")) if isinstance(line, Metric)]
    steps = [line.step for line in measured if "chatcore_metric" in line.values]
    assert steps == [2, 4]
    assert ran.result.values["spelling_count"] == ran.result.values["chatcore_count"] == 4
    assert ran.result.values["chatcore_num_tasks"] == 1
