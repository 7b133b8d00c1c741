"""Public datasets, and names on the hub."""

import pytest

from nanochat.data.catalogue import public_dataset, public_datasets
from nanochat.errors import InvalidConfig, NotFound
from nanochat.protocol.hub import HubReference
from nanochat.protocol.jobs import DatasetConfig, parse_config
from nanochat.tasks.benchmark import Benchmark
from nanochat.tasks.registry import TASKS


def test_the_public_datasets_are_those_of_the_specification() -> None:
    texts = {name: dataset for name, dataset in public_datasets().items() if not dataset.is_benchmark}
    found = {name: (dataset.source, dataset.num_shards) for name, dataset in texts.items()}
    assert found == {
        "climbmix": ("hf://karpathy/climbmix-400b-shuffle", 6542),
        "fineweb-edu": ("hf://karpathy/fineweb-edu-100b-shuffle", 1822),
    }
    with pytest.raises(NotFound, match=r"known are climbmix, fineweb-edu, mmlu"):
        public_dataset("wikipedia")


def test_every_benchmark_can_be_downloaded_by_its_tasks_name() -> None:
    benchmarks = {name for name, task in TASKS.items() if issubclass(task, Benchmark)}
    assert {name for name, dataset in public_datasets().items() if dataset.is_benchmark} == benchmarks


@pytest.mark.parametrize(
    ("text", "parts", "folder_name"),
    [
        ("hf://acme/text", ("acme", "text", "main", ""), "acme--text"),
        ("hf://datasets/acme/text/", ("acme", "text", "main", ""), "acme--text"),
        ("hf://acme/text@v1.0", ("acme", "text", "v1.0", ""), "acme--text--v1.0"),
        ("hf://acme/text/en/a b.parquet", ("acme", "text", "main", "en/a b.parquet"), "acme--text--en--a-b.parquet"),
        (
            "hf://acme/text@refs/convert/parquet/default/train",
            ("acme", "text", "refs/convert/parquet", "default/train"),
            "acme--text--refs--convert--parquet--default--train",
        ),
    ],
)
def test_a_name_on_the_hub_is_taken_apart(text: str, parts: tuple[str, ...], folder_name: str) -> None:
    reference = HubReference.parse(text)
    assert (reference.owner, reference.dataset, reference.revision, reference.path) == parts
    assert reference.folder_name == folder_name
    assert HubReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "hf://acme",
        "hf:/acme/text",
        "acme/text",
        "hf://acme/text/../other",
        "hf://acme/text/a//b",
        "hf://acme/text/%2e%2e/x",
        "hf://../text",
        "hf://acme/te xt",
        "hf://acme/text@",
        "hf://acme/text/a\nb",
        "hf://" + "a" * 5000 + "/text",
    ],
)
def test_what_is_no_name_on_the_hub_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="names no dataset of the hub"):
        HubReference.parse(text)


def test_parts_of_an_address_are_quoted() -> None:
    reference = HubReference.parse("hf://acme/text@refs/pr/1")
    assert reference.url("tree", reference.revision, path="a b/c?d#e") == "tree/refs%2Fpr%2F1/a%20b/c%3Fd%23e"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "give the name of a public dataset, a source, or both"),
        ({"source": "/data/x"}, "give the name of the dataset"),
        ({"source": "x", "name": "y"}, "neither hf://owner/dataset nor an absolute path"),
        ({"source": "hf://acme/text", "seed": 1}, "seed is for repackaging alone"),
        ({"name": "climbmix", "column": "body"}, "column is for repackaging alone"),
        ({"source": "hf://acme/" + "x" * 96 + "/yyyyy"}, "give a name"),
        ({"name": "../x"}, "config.name"),
        ({"name": "x", "num_shards": 0}, "config.num_shards"),
    ],
)
def test_a_job_that_could_not_run_is_refused(config: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        parse_config("dataset", config)


def test_a_dataset_of_the_hub_has_a_name_without_being_given_one() -> None:
    config = parse_config("dataset", {"source": "hf://acme/text@v1"})
    assert isinstance(config, DatasetConfig)
    assert (config.folder_name, config.is_repackaging) == ("acme--text--v1", False)
