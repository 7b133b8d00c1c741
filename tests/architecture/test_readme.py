"""The README is true: its settings are those of the code, its requests are valid, its paths and commands exist."""

import ast
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import AliasChoices, SecretStr
from pydantic_settings import BaseSettings

import nanochat
import nanochat_gateway
import nanochat_inference
import nanochat_trainer
import nanochat_worker
from nanochat.cli.main import app
from nanochat.cli.settings import StackSettings
from nanochat.data.registry import resolve_dataset
from nanochat.jobs.plans import plan
from nanochat.jobs.profiles import load_profile, profile_names
from nanochat.protocol.jobs import JobSpec
from nanochat.protocol.openai import ChatCompletionRequest
from nanochat_gateway.settings import GatewaySettings
from nanochat_inference.settings import InferenceSettings
from nanochat_trainer.routes_datasets import DownloadRequest
from nanochat_trainer.settings import TrainerSettings
from nanochat_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# torchrun's own variables are not the user's to set.
NOT_SETTINGS = {
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_MAX_RESTARTS",
}


def settings_classes() -> list[type[BaseSettings]]:
    """Every settings class of the project, those of the services before the stack's, which shares their ports."""
    for package in (nanochat, nanochat_gateway, nanochat_trainer, nanochat_inference, nanochat_worker):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.split(".")[-1] not in ("__main__", "env") and "versions" not in module.name:
                importlib.import_module(module.name)
    found = [BaseSettings]
    for settings in found:
        found += settings.__subclasses__()
    ours = [settings for settings in found if settings.__module__.startswith("nanochat")]
    return sorted(set(ours), key=lambda settings: settings.__name__ == "StackSettings")


def variable_of(settings: type[BaseSettings], field: str) -> str:
    """The variable of a field: its own alias, or prefix and name."""
    alias = settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return str(alias or f"{settings.model_config.get('env_prefix', '')}{field}").upper()


def defaults_in_code() -> dict[str, str]:
    """Every variable that the project reads, with its default."""
    found: dict[str, str] = {}
    for settings in settings_classes():
        for field, info in settings.model_fields.items():
            if isinstance(info.annotation, type) and issubclass(info.annotation, BaseSettings):
                continue  # a part with variables of its own
            found.setdefault(variable_of(settings, field), shown(info.get_default(call_default_factory=True)))
    return {name: default for name, default in found.items() if name not in NOT_SETTINGS}


def shown(default: Any) -> str:
    """A default as a user would write it in the environment; empty for none."""
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, bool):
        return str(int(default))
    if isinstance(default, float):
        return f"{default:g}"
    return "" if default is None else str(default)


def defaults_in_readme() -> dict[str, str]:
    rows = re.findall(r"^\| `(NANOCHAT_\w+)` \| (?:`(.*?)`)? *\| (.+) \|$", README, re.MULTILINE)
    return {name: default for name, default, _ in rows}


def test_the_table_of_settings_is_the_codes() -> None:
    assert defaults_in_readme() == defaults_in_code()


def test_the_ports_of_the_stack_are_those_of_the_services() -> None:
    stack = StackSettings()
    ports = (stack.gateway_port, stack.trainer_port, stack.inference_port, stack.worker_metrics_port)
    services = (GatewaySettings().port, TrainerSettings().port, InferenceSettings().port, WorkerSettings().metrics_port)
    assert ports == services


def bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    """Address and JSON of every request made with curl."""
    for command in re.findall(r"curl (.+?)\n(?=curl|```)", README, re.DOTALL):
        body = re.search(r"-d '(.+?)'", command, re.DOTALL)
        address = re.search(r"http://127.0.0.1:8000(\S+)", command)
        if body and address:
            yield address[1], json.loads(body[1])


def test_there_are_requests_to_check() -> None:
    assert len(list(bodies())) >= 6


@pytest.mark.parametrize(("address", "body"), list(bodies()))
def test_requests_are_valid(address: str, body: dict[str, Any]) -> None:
    if address == "/v1/jobs":
        plan(JobSpec.model_validate(body), now=0.0)
    elif address == "/v1/datasets/climbmix/download":
        DownloadRequest.model_validate(body)
        plan(JobSpec(kind="dataset", config={"name": "climbmix", **body}), now=0.0)
    elif address == "/v1/chat/completions":
        ChatCompletionRequest.model_validate(body)
    else:
        assert address == "/v1/models/nanochat/promote"
        assert body.keys() == {"checkpoint"}


def test_the_pipeline_names_datasets_that_a_new_home_has(home: Path) -> None:
    stages = [
        stage
        for _, body in bodies()
        if body.get("kind") == "pipeline"
        for stage in plan(JobSpec.model_validate(body), now=0.0)
        if "dataset" in stage.config
    ]
    assert {stage.kind for stage in stages} >= {"tokenizer", "pretrain"}
    for stage in stages:
        resolve_dataset(stage.config["dataset"], home, [home])


def test_the_table_of_profiles_is_the_data() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \| .+ \|$", README, re.MULTILINE)
    profiles = {name: load_profile(name) for name in profile_names()}
    expected = {name: (str(len(p.stages)), str(p.num_processes)) for name, p in profiles.items()}
    assert {name: (stages, processes) for name, stages, processes in rows} == expected


def test_python_examples_compile() -> None:
    examples = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    assert examples
    for example in examples:
        ast.parse(example)


def test_paths_and_links_exist() -> None:
    tree = README.split("## Where things are")[1].split("## ")[0]
    paths = re.findall(r"^    (\S+)", tree, re.MULTILINE) + re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(paths) > 12
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^    )make ([a-z][a-z-]*)", README, re.MULTILINE))
    assert {"demo", "test", "check"} <= targets
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)]


def test_commands_exist() -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"bin/nanochat ([a-z][a-z-]+)", README))
    assert {"chat", "jobs", "train"} <= named <= known
    listed = re.search(r"the command line: `([a-z -]+)`", README)
    assert listed and set(listed[1].split()) <= known
