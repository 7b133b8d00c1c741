import pytest

from nanochat.errors import InvalidConfig
from nanochat.jobs.plans import new_job_id, plan
from nanochat.jobs.profiles import load_profile, profile_names
from nanochat.protocol.jobs import JobSpec, parse_config, stage_name


def pipeline(**config: object) -> JobSpec:
    return JobSpec(kind="pipeline", config={"profile": "demo", **config})


def test_ids_sort_by_age_and_by_place_in_the_pipeline() -> None:
    ids = [new_job_id(1000.0), new_job_id(1000.0, 1), new_job_id(1000.0, 2), new_job_id(1001.0)]
    assert sorted(ids) == ids


def test_a_job_without_a_name_gets_one_of_its_own() -> None:
    spec = JobSpec(kind="tokenizer")
    names = {plan(spec, 0.0)[0].name for _ in range(10)}
    assert len(names) == 10
    assert all(name.startswith("tokenizer-") for name in names)


def test_the_run_is_the_jobs_name_unless_the_config_says_otherwise() -> None:
    assert plan(JobSpec(kind="pretrain", name="a"), 0.0)[0].config["run"] == "a"
    assert plan(JobSpec(kind="pretrain", name="a", config={"run": "b"}), 0.0)[0].config["run"] == "b"


def test_stages_follow_each_other_and_refer_to_each_other_by_id() -> None:
    parent, *stages = plan(pipeline(), 0.0)
    assert parent.kind == "pipeline"
    assert [stage.kind for stage in stages] == [stage.kind for stage in load_profile("demo").stages]
    assert [stage.predecessor_id for stage in stages] == [None, *(stage.id for stage in stages[:-1])]
    assert {stage.parent_id for stage in stages} == {parent.id}
    assert stages[1].config["tokenizer"] == stages[0].id
    assert stages[2].config["checkpoint"] == stages[1].id
    assert {stage.config.get("run", parent.name) for stage in stages} == {parent.name}


def test_planning_leaves_the_profile_as_it_is() -> None:
    before = load_profile("demo").model_dump()
    plan(pipeline(overrides={"pretrain": {"depth": 2}}), 0.0)
    assert load_profile("demo").model_dump() == before


def test_overrides_replace_single_keys_of_a_stage() -> None:
    stages = plan(pipeline(overrides={"pretrain": {"depth": 2}}), 0.0)[1:]
    assert stages[1].config["depth"] == 2
    assert stages[1].config["max_seq_len"] == load_profile("demo").stages[1].config["max_seq_len"]


@pytest.mark.parametrize(
    ("overrides", "param"),
    [
        ({"pretrain": {"depth": 0}}, "config.overrides.pretrain.depth"),
        ({"pretrain": {"dpth": 4}}, "config.overrides.pretrain.dpth"),
        ({"rl": {}}, "config.overrides.rl"),
        ({"tokenizer": {"dataset": "@sft"}}, "config.overrides.tokenizer.dataset"),
    ],
)
def test_a_bad_override_is_named(overrides: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        plan(pipeline(overrides=overrides), 0.0)
    assert caught.value.param == param
    assert param in caught.value.message


def test_an_unknown_profile_is_answered_with_those_there_are() -> None:
    with pytest.raises(InvalidConfig, match="there is cpu, d12, demo"):
        plan(JobSpec(kind="pipeline", config={"profile": "none"}), 0.0)


def test_only_stages_that_train_or_evaluate_get_several_processes() -> None:
    stages = plan(JobSpec(kind="pipeline", config={"profile": "demo"}, num_processes=4), 0.0)[1:]
    assert [stage.num_processes for stage in stages] == [1, 4, 4, 4, 1]


def series(**config: object) -> JobSpec:
    return JobSpec(kind="pipeline", name="s", config={"profile": "miniseries", **config})


def test_named_stages_are_jobs_and_runs_of_their_own_and_share_the_stage_that_they_refer_to() -> None:
    parent, tokenizer, *stages = plan(series(), 0.0)
    assert parent.name == tokenizer.name == "s"
    assert [stage.name for stage in stages][:2] == ["s-d10", "s-d11"]
    assert [stage.config["run"] for stage in stages] == [stage.name for stage in stages]
    assert {stage.config["tokenizer"] for stage in stages} == {tokenizer.id}
    assert [stage_name(row.kind, row.name, parent.name) for row in (tokenizer, stages[0])] == ["tokenizer", "d10"]


def test_overrides_by_a_stages_name_go_before_those_by_its_kind() -> None:
    overrides = {"pretrain": {"num_iterations": 3, "seed": 1}, "d11": {"num_iterations": 5}}
    by_name = {row.name: row.config for row in plan(series(overrides=overrides), 0.0)}
    assert [by_name[name]["num_iterations"] for name in ("s-d10", "s-d11", "s-d12")] == [3, 5, 3]
    assert by_name["s-d11"]["seed"] == 1


def test_stages_may_be_chosen() -> None:
    rows = plan(series(stages=["d12", "tokenizer"]), 0.0)
    assert [row.name for row in rows] == ["s", "s", "s-d12"]
    assert rows[2].predecessor_id == rows[1].id
    with pytest.raises(InvalidConfig, match="has no stage 'd9'") as caught:
        plan(series(stages=["d9"]), 0.0)
    assert caught.value.param == "config.stages"


def test_a_stage_without_the_one_that_it_refers_to_says_so() -> None:
    with pytest.raises(InvalidConfig, match=r"config\.overrides\.d12\.tokenizer is '@tokenizer', but no earlier stage"):
        plan(series(stages=["d12"]), 0.0)


def test_a_name_too_long_for_its_stages_is_refused() -> None:
    spec = JobSpec(kind="pipeline", name="n" * 98, config={"profile": "miniseries"})
    with pytest.raises(InvalidConfig, match="has 102 characters, 100 are allowed") as caught:
        plan(spec, 0.0)
    assert caught.value.param == "name"


def test_the_number_of_processes_is_the_profiles_unless_one_is_asked_for() -> None:
    assert plan(series(), 0.0)[2].num_processes == 8
    asked = series().model_copy(update={"num_processes": 1})
    assert {row.num_processes for row in plan(asked, 0.0)} == {1}
    assert plan(JobSpec(kind="pretrain"), 0.0)[0].num_processes == 1


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_makes_a_pipeline_of_valid_configs(name: str) -> None:
    for row in plan(JobSpec(kind="pipeline", config={"profile": name}), 0.0)[1:]:
        parse_config(row.kind, row.config)
