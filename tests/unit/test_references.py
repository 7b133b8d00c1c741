"""Names, job ids and paths, as the trainer checks them and the worker resolves them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanochat.checkpoint import manifest
from nanochat.config import GPTConfig
from nanochat.errors import DataError, InvalidConfig, NotFound
from nanochat.protocol.jobs import Job, JobKind
from nanochat.references import References


def job(job_id: str, kind: str, **fields: Any) -> Job:
    return Job.model_validate(
        {"id": job_id, "kind": kind, "name": "n", "status": "succeeded", "created_at": 0.0, **fields}
    )


JOBS = {
    "job_tok": job("job_tok", "tokenizer", output="t"),
    "job_gone": job("job_gone", "tokenizer", output="deleted"),
    "job_failed": job("job_failed", "tokenizer", status="failed"),
    "job_half": job("job_half", "pretrain", status="failed", checkpoint="r/pretrain/step_000005"),
    "job_eval": job("job_eval", "evaluate"),
}


@pytest.fixture
def references(home: Path) -> References:
    for name in ("datasets/d", "tokenizers/t", "allowed"):
        (home / name).mkdir(parents=True)
    for index in range(2):
        (home / "datasets" / "d" / f"shard_{index}.parquet").write_bytes(b"PAR1" + b"\0" * 16 + b"PAR1")
    (home / "tokenizers" / "t" / "tokenizer.json").write_text("{}")
    (home / "allowed" / "talk.jsonl").write_text("[]\n")
    roots = [home / name for name in ("datasets", "tokenizers", "checkpoints", "allowed")]

    def find_job(job_id: str) -> Job:
        if job_id not in JOBS:
            raise NotFound(f"no job {job_id!r}.")
        return JOBS[job_id]

    return References(home, [root.resolve() for root in roots], find_job)


def test_names_become_paths_and_the_rest_stays(references: References, home: Path) -> None:
    resolved = references.resolve("pretrain", {"dataset": "d", "tokenizer": "t", "depth": 4})
    assert resolved == {
        "dataset": str(home / "datasets" / "d"),
        "tokenizer": str(home / "tokenizers" / "t" / "tokenizer.json"),
        "depth": 4,
    }


def test_a_default_that_is_a_name_is_resolved_too(references: References) -> None:
    with pytest.raises(InvalidConfig, match=r"config\.tokenizer: tokenizer 'default' is not there"):
        references.resolve("pretrain", {"dataset": "d"})


@pytest.mark.parametrize("name", ["job_tok", "{home}/tokenizers/t", "{home}/tokenizers/t/tokenizer.json"])
def test_a_tokenizer_is_named_by_its_job_or_its_path_as_well(references: References, home: Path, name: str) -> None:
    values = {"dataset": "d", "tokenizer": name.format(home=home)}
    assert references.resolve("pretrain", values)["tokenizer"] == str(home / "tokenizers" / "t" / "tokenizer.json")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("job_none", "no job"),
        ("job_failed", "is failed, so it has no output"),
        ("job_half", "a tokenizer is needed here"),
        ("job_eval", "leaves nothing"),
        ("job_gone", "no file"),
        ("../t", "neither a name nor an absolute path"),
        (".t", "neither a name nor an absolute path"),
        ("/etc/passwd", "outside the allowed folders"),
    ],
)
def test_what_is_no_tokenizer_is_refused_by_its_key(references: References, name: str, words: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        references.resolve("pretrain", {"dataset": "d", "tokenizer": name})
    assert caught.value.param == "config.tokenizer"
    assert words in caught.value.message


def test_a_failed_jobs_last_checkpoint_is_offered(references: References) -> None:
    with pytest.raises(InvalidConfig, match="Its last checkpoint is r/pretrain/step_000005"):
        references.resolve("evaluate", {"checkpoint": "job_half"})


def test_an_earlier_stage_is_taken_as_it_is_if_it_will_make_the_right_thing(references: References) -> None:
    pending = [job("job_a", "tokenizer", status="queued")]
    values = {"dataset": "d", "tokenizer": "job_a"}
    assert references.resolve("pretrain", values, pending)["tokenizer"] == "job_a"
    with pytest.raises(InvalidConfig, match="a dataset is needed here"):
        references.resolve("pretrain", {"dataset": "job_a", "tokenizer": "t"}, pending)


def test_a_builtin_dataset_need_not_be_there_yet(references: References, home: Path) -> None:
    assert references.resolve("tokenizer", {"dataset": "python-docs"})["dataset"].endswith("datasets/python-docs")


def test_conversations_are_a_file_or_a_folder_with_some(references: References, home: Path) -> None:
    folder = home / "allowed"
    for path in (folder, folder / "talk.jsonl"):
        assert references.conversations(str(path)) == path
    (folder / "empty").mkdir()
    for path in (folder / "none.jsonl", folder / "empty"):
        with pytest.raises(DataError):
            references.conversations(str(path))


@pytest.mark.parametrize("key", ["dataset", "tokenizer", "checkpoint", "mixture.0.file"])
@pytest.mark.parametrize("reference", ["/a\0b", "a\0b", "{home}/allowed/" + "x" * 4000, "{home}/allowed/circle/x"])
def test_a_path_that_the_file_system_refuses_is_refused_by_its_key(
    references: References, home: Path, key: str, reference: str
) -> None:
    (home / "allowed" / "circle").symlink_to(home / "allowed" / "circle")
    named = reference.format(home=home)
    kind, values = PLACES[key](named)
    with pytest.raises((InvalidConfig, DataError)) as caught:
        references.resolve(kind, values, [job("job_p", "pretrain")])
    assert caught.value.param == f"config.{key}"


PLACES: dict[str, Callable[[str], tuple[JobKind, dict[str, Any]]]] = {
    "dataset": lambda name: ("tokenizer", {"dataset": name}),
    "tokenizer": lambda name: ("pretrain", {"dataset": "d", "tokenizer": name}),
    "checkpoint": lambda name: ("evaluate", {"checkpoint": name}),
    "mixture.0.file": lambda name: ("sft", {"checkpoint": "job_p", "mixture": [{"file": name}]}),
}


def test_a_link_among_the_conversations_that_leads_outside_is_refused(references: References, home: Path) -> None:
    (home / "secret.jsonl").write_text("[]\n")
    (home / "allowed" / "more.jsonl").symlink_to(home / "secret.jsonl")
    mixture = [{"file": str(home / "allowed")}]
    with pytest.raises(InvalidConfig, match="outside the allowed folders") as caught:
        references.resolve("sft", {"checkpoint": "job_p", "mixture": mixture}, [job("job_p", "pretrain")])
    assert caught.value.param == "config.mixture.0.file"


def test_the_dataset_that_a_checkpoint_records_is_held_to_the_same_folders(references: References, home: Path) -> None:
    folder = home / "checkpoints" / "r" / "pretrain" / "step_000001"
    values = {"checkpoint": "r"}

    def record(dataset: str | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").unlink(missing_ok=True)
        (folder / "config.json").write_text(json.dumps(GPTConfig().to_dict()))
        (folder / "state.json").write_text(json.dumps({"dataset": dataset}))
        manifest.write(folder, run="r", stage="pretrain", step=1, created=0.0)

    record(str(home / "datasets" / "d"))
    assert references.resolve("evaluate", values)["dataset"] == str(home / "datasets" / "d")
    record("/etc")
    with pytest.raises(DataError, match=r"outside the allowed folders.*The checkpoint was trained on it") as caught:
        references.resolve("evaluate", values)
    assert caught.value.param == "config.dataset"
    assert "dataset" not in references.resolve("evaluate", {**values, "evals": ["sample"]})
    record(None)
    assert references.resolve("evaluate", values)["dataset"] is None


def test_a_mixtures_bad_file_is_named_by_its_place(references: References, home: Path) -> None:
    mixture = [{"task": "spelling"}, {"file": "/etc/hosts"}]
    with pytest.raises(InvalidConfig) as caught:
        references.resolve("sft", {"checkpoint": "job_a", "mixture": mixture}, [job("job_a", "pretrain")])
    assert caught.value.param == "config.mixture.1.file"
