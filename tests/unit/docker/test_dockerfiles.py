"""House rules of the images that can be read off their Dockerfiles; tests/e2e/test_images.py asks the built ones."""

import json
import re

import pytest

from nanochat_gateway.settings import GatewaySettings
from nanochat_inference.settings import InferenceSettings
from nanochat_trainer.settings import TrainerSettings
from nanochat_worker.settings import WorkerSettings
from tests.unit.docker.dockerfile import IMAGES, ROOT, Stage, image_stages, stages

PORTS = {
    "gateway": GatewaySettings().port,
    "trainer": TrainerSettings().port,
    "worker": WorkerSettings().metrics_port,
    "inference": InferenceSettings().port,
}
HOSTS = {
    "gateway": "NANOCHAT_GATEWAY_HOST",
    "trainer": "NANOCHAT_TRAINER_HOST",
    "worker": "NANOCHAT_WORKER_METRICS_HOST",
    "inference": "NANOCHAT_INFERENCE_HOST",
}
every_image = pytest.mark.parametrize("name", IMAGES)


def final(name: str) -> Stage:
    return image_stages(name)[-1]


def environment(stage: Stage) -> dict[str, str]:
    return dict(pair.split("=", 1) for value in stage.all("ENV") for pair in value.split())


@every_image
def test_runs_as_a_user_whose_number_kubernetes_can_check(name: str) -> None:
    stage = final(name)
    assert stage.all("USER") == ["10001:10001"]
    assert ("USER", "10001:10001") in stage.instructions[: stage.instructions.index(("EXPOSE", str(PORTS[name])))]


@every_image
def test_the_service_is_process_1_and_gets_the_signals(name: str) -> None:
    (entry,) = final(name).all("ENTRYPOINT")
    assert json.loads(entry) == ["python", "-m", f"nanochat_{name}"]
    assert not final(name).all("CMD")


@every_image
def test_health_is_asked_at_the_port_that_the_service_listens_on(name: str) -> None:
    stage = final(name)
    (check,) = stage.all("HEALTHCHECK")
    command = json.loads(check.split("CMD ", 1)[1])
    assert command[-1] == f"http://127.0.0.1:{PORTS[name]}/health/live"
    assert command[2] == "/app/healthcheck.py" and "docker/healthcheck.py /app/" in stage.all("COPY")
    assert stage.all("EXPOSE") == [str(PORTS[name])]
    assert environment(stage)[HOSTS[name]] == "0.0.0.0"


@every_image
def test_state_and_data_have_their_folders(name: str) -> None:
    stage = final(name)
    assert environment(stage)["NANOCHAT_HOME"] == "/var/lib/nanochat"
    assert environment(stage)["NANOCHAT_DATA_ROOTS"] == "/data"
    base = next(stage for stage in image_stages(name) if stage.name == "base")
    assert "--owner nanochat --group nanochat /var/lib/nanochat" in " ".join(base.all("RUN"))


@every_image
def test_every_installed_package_has_its_pinned_version(name: str) -> None:
    for stage in image_stages(name):
        installs = [run for run in stage.all("RUN") if "pip install" in run]
        if installs and stage.name not in ("library", "service", "kernels-build"):
            assert environment(stage)["PIP_CONSTRAINT"] == "/src/constraints.txt"
            assert "constraints.txt ./" in stage.all("COPY")
        if stage.name in ("library", "service"):  # made from a stage that has it
            assert stage.base in ("torch", "library")


@every_image
def test_code_comes_after_packages(name: str) -> None:
    """So that a change of code makes the last layers anew and no other."""
    copies = final(name).all("COPY")
    assert copies[-1] == "--from=code /app/code /app/code"
    installing = [stage for stage in image_stages(name) if any("pip install" in run for run in stage.all("RUN"))]
    assert installing
    for stage in installing:
        assert not [copy for copy in stage.all("COPY") if "/nanochat" in copy]


@every_image
def test_base_images_have_a_version_and_can_be_replaced(name: str) -> None:
    images, *others = image_stages(name)
    names = {stage.name for stage in others}
    defaults = dict(value.partition("=")[::2] for value in images.all("ARG"))
    for stage in others:
        if stage.base not in names and stage.base != "scratch" and not stage.base.startswith(("base-", "kernels-")):
            variable = re.fullmatch(r"\$\{(\w+)\}", stage.base)
            assert variable, f"{stage.base} cannot be replaced by a build argument"
            assert re.search(r":\d", defaults[variable[1]]) or defaults[variable[1]] == "scratch"


@every_image
def test_no_secret_can_stay_in_a_layer(name: str) -> None:
    for stage in image_stages(name):
        named = " ".join(stage.all("ARG") + stage.all("ENV"))
        assert not re.search(r"PASSWORD|TOKEN|SECRET|API_KEY|ADMIN_KEY", named)
        assert not [value for value in stage.all("COPY") if ".env" in value]
        assert not stage.all("ADD")


@pytest.mark.parametrize("name", ["gateway", "trainer"])
def test_light_images_never_ask_for_torch(name: str) -> None:
    text = " ".join(run for stage in image_stages(name) for run in stage.all("RUN"))
    assert "torch" not in text


def test_worker_and_inference_share_the_layer_with_torch() -> None:
    """The same text from the same base gives the same layers, stored and pulled once."""

    def shared(name: str) -> list[Stage]:
        found = image_stages(name)
        return found[: [stage.name for stage in found].index("service")]

    assert shared("worker") == shared("inference")
    assert final("worker").all("COPY")[0] == final("inference").all("COPY")[0] == "--from=library /app /app"


def test_torch_is_the_version_of_the_constraints() -> None:
    (pinned,) = re.findall(r"^torch==.+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    torch = next(stage for stage in image_stages("worker") if stage.name == "torch")
    assert f"TORCH={pinned}" in torch.all("ARG")


def test_build_arguments_are_those_of_the_readme() -> None:
    rows = re.findall(r"^\| (`[A-Z].+?) \|", (ROOT / "docker/README.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall("`(.+?)`", row)}
    values = [value for name in IMAGES for stage in image_stages(name) for value in stage.all("ARG")]
    known = {value.partition("=")[0] for value in values} - {"MAX_JOBS"}
    assert named == known


def test_stand_ins_are_built_from_debian_alone() -> None:
    """They exist for machines without a registry, so no other image may be named."""
    for path in (ROOT / "docker/offline").glob("*.Dockerfile"):
        names = {stage.name for stage in stages(path)}
        bases = {stage.base for stage in stages(path)[1:]} - names
        assert bases <= {"${DEBIAN_IMAGE}", "${NODE_WHEEL_IMAGE}", "scratch"}, path
