"""Pipelines before they run: golden sizes, what stages hand on, and what nobody can know yet."""

import json
from pathlib import Path
from typing import Any

import pytest

from nanochat.errors import InvalidConfig
from nanochat.jobs.plans import plan
from nanochat.jobs.views import to_job
from nanochat.planning.stages import StagePlan, plan_stages
from nanochat.protocol.jobs import JobKind, JobSpec


def stages_of(kind: JobKind, config: dict[str, Any], num_processes: int | None = None) -> list[StagePlan]:
    spec = JobSpec(kind=kind, name="x", config=config, num_processes=num_processes)
    return plan_stages([to_job(row) for row in plan(spec, 0.0)], lambda name: 32768)


def test_plans_have_the_golden_sizes(test_data: Path) -> None:
    for row in json.loads((test_data / "golden" / "sizes.json").read_text()):
        (stage,) = stages_of("pretrain", {"depth": row["depth"]})
        assert stage.model is not None
        assert (stage.batch_tokens, stage.num_steps) == (row["batch_tokens"], row["steps"])
        assert stage.tokens == row["steps"] * row["batch_tokens"]
        assert stage.flops == row["flops_per_token"] * stage.tokens


def test_the_speedrun_is_as_it_is_told() -> None:
    stages = {stage.name: stage for stage in stages_of("pipeline", {"profile": "speedrun"})}
    pretrain = stages["pretrain"]
    assert pretrain.model is not None and pretrain.model.n_layer == 24
    assert (pretrain.precision, pretrain.num_ranks, stages["tokenizer"].num_ranks) == ("fp8", 8, 1)
    # 8 ranks x 16 rows x 2048 tokens go four times into a batch of 2^20.
    assert (pretrain.device_batch_size, pretrain.num_micro_steps, pretrain.batch_tokens) == (16, 4, 2**20)
    assert stages["sft"].model == pretrain.model
    assert stages["sft"].flops is None  # one pass over conversations that nobody has counted
    assert stages["chat-eval"].model is None
    memory = pretrain.memory(2)
    assert memory is not None and memory.total < 80 * 2**30


def test_a_vocabulary_is_that_of_the_stage_that_trains_it() -> None:
    overrides = {"tokenizer": {"vocab_size": 4096}}
    pretrain = stages_of("pipeline", {"profile": "d12", "overrides": overrides})[1]
    assert pretrain.model is not None and pretrain.model.vocab_size == 4096


def test_fine_tuning_takes_its_bases_batch_unless_it_has_its_own() -> None:
    stages = {stage.name: stage for stage in stages_of("pipeline", {"profile": "demo"})}
    assert stages["sft"].batch_tokens == stages["pretrain"].batch_tokens == 4096
    assert stages["sft"].tokens == 340 * 4096
    cpu = {stage.name: stage for stage in stages_of("pipeline", {"profile": "cpu"})}
    assert cpu["sft"].tokens == 1500 * 16384


def test_every_budget_of_the_scaling_laws_is_spent_within_a_hundredth() -> None:
    stages = [stage for stage in stages_of("pipeline", {"profile": "scaling_laws"}) if stage.kind == "pretrain"]
    assert len(stages) == 28
    for stage in stages:
        assert stage.flops == pytest.approx(float(stage.name.split("-")[0]), rel=0.01)


def test_a_batch_that_ranks_cannot_share_is_refused_by_the_stages_name() -> None:
    config = {"profile": "miniseries", "overrides": {"d12": {"total_batch_size": 100_000}}}
    with pytest.raises(InvalidConfig, match=r"stage d12: a batch of 100000 tokens is no multiple .* x 8 ranks"):
        stages_of("pipeline", config)


def test_reinforcement_learning_has_the_memory_of_its_longest_answers_and_tokens_that_nobody_knows() -> None:
    overrides = {"rl": {"device_batch_size": 12}, "pretrain": {"device_batch_size": 4}}
    stages = {stage.name: stage for stage in stages_of("pipeline", {"profile": "demo_rl", "overrides": overrides}, 2)}
    rl = stages["rl"]
    assert rl.model == stages["sft"].model
    # 16 x 16 answers on two ranks, twelve at a time; questions of 96 tokens and answers of 64.
    assert (rl.device_batch_size, rl.num_micro_steps, rl.sequence_len) == (12, 11, 160)
    assert rl.num_steps is not None and rl.flops is None
    memory, of_sft = rl.memory(4), stages["sft"].memory(4)
    assert memory is not None and of_sft is not None and 0 < memory.activations < of_sft.activations
