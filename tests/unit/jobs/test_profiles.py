"""Profiles as data: stages written once for many values, names that tell them apart, and mistakes in a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from nanochat.errors import InvalidConfig
from nanochat.jobs.profiles import load_profile, profile_names, read_profile
from nanochat.protocol.jobs import CONFIG_BY_KIND, PretrainConfig

ROOT = Path(__file__).parents[3]


def written(*stages: dict[str, Any]) -> str:
    return json.dumps({"description": "d", "stages": stages})


def test_a_stage_is_written_once_for_every_combination() -> None:
    each = {"target_flops": [1e18, 2.15e18], "depth": [8, 10]}
    profile = read_profile(written({"kind": "pretrain", "name": "{target_flops}-d{depth}", "for_each": each}))
    assert [stage.name for stage in profile.stages] == ["1e18-d8", "1e18-d10", "2.15e18-d8", "2.15e18-d10"]
    assert profile.stages[3].config == {"target_flops": 2.15e18, "depth": 10}


def test_a_stages_name_is_its_kind_unless_it_has_one() -> None:
    profile = read_profile(written({"kind": "tokenizer"}, {"kind": "pretrain", "name": "small"}))
    assert [stage.name for stage in profile.stages] == ["tokenizer", "small"]


@pytest.mark.parametrize(
    ("stages", "reason"),
    [
        ([{"kind": "pretrain"}, {"kind": "pretrain"}], "2 stages are called 'pretrain'"),
        ([{"kind": "pretrain", "for_each": {"depth": [1, 2]}}], "2 stages are called 'pretrain'"),
        ([{"kind": "pretrain", "name": "a/b"}], "name is 'a/b'"),
        ([{"kind": "train"}], "stages.0.kind is 'train'"),
        ([], "stages is"),
    ],
)
def test_a_file_that_makes_no_pipeline_says_why(stages: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        read_profile(written(*stages))
    assert reason in caught.value.message


def test_no_profile_is_called_as_a_kind_of_job() -> None:
    assert not set(profile_names()) & set(CONFIG_BY_KIND)


def test_the_page_offers_every_profile() -> None:
    form = (ROOT / "services/gateway/web/src/train/StartForm.tsx").read_text()
    line = next(line for line in form.splitlines() if line.startswith("const PROFILES"))
    assert sorted(json.loads(line.split("=")[1].strip().rstrip(";"))) == profile_names()


def test_the_miniseries_has_a_model_of_each_depth() -> None:
    stages = load_profile("miniseries").stages[1:]
    assert [stage.config["depth"] for stage in stages] == list(range(10, 21))
    assert all(stage.config["tokenizer"] == "@tokenizer" for stage in stages)


def test_the_quick_profile_is_one_that_pretraining_takes() -> None:
    (tokenizer, pretrain) = load_profile("quick").stages
    config = PretrainConfig.model_validate({**pretrain.config, "tokenizer": "quick"})
    assert (config.depth, config.max_seq_len, tokenizer.config["vocab_size"]) == (4, 512, 4096)
    assert config.muon == "light"


def test_a_pretraining_that_asks_for_nothing_is_the_reference_recipe() -> None:
    """Constants of the reference; what trains small models sooner is asked for (profile quick)."""
    config = PretrainConfig()
    assert config.muon == "full"
    assert (config.warmup_steps, config.warmdown_ratio, config.final_lr_frac) == (40, 0.65, None)
    assert (config.weight_decay, config.batch_lr_factor, config.lr_scale) == (None, None, 1.0)
    assert (config.matrix_lr, config.embedding_lr, config.unembedding_lr, config.scalar_lr) == (None, None, None, None)
