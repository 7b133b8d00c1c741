"""compose.yaml is held to the code without any engine: names, ports, paths, and what no container may be allowed."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nanochat_gateway.settings import GatewaySettings
from nanochat_inference.settings import InferenceSettings
from nanochat_trainer.settings import TrainerSettings
from nanochat_worker.settings import WorkerSettings
from tests.architecture.test_readme import defaults_in_code

ROOT = Path(__file__).parents[2]
SERVICES = ("gateway", "trainer", "worker", "inference")
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "NANOCHAT_ADMIN_KEYS", "GRAFANA_ADMIN_PASSWORD")
# Where each service listens: the default of its settings, at which its peers and the images' health checks look.
PORTS = {
    "gateway": GatewaySettings.model_fields["port"].default,
    "trainer": TrainerSettings.model_fields["port"].default,
    "inference": InferenceSettings.model_fields["port"].default,
    "worker": WorkerSettings.model_fields["metrics_port"].default,
}
HOSTS = {
    "gateway": "NANOCHAT_GATEWAY_HOST",
    "trainer": "NANOCHAT_TRAINER_HOST",
    "inference": "NANOCHAT_INFERENCE_HOST",
    "worker": "NANOCHAT_WORKER_METRICS_HOST",
}


def load(name: str) -> dict[str, Any]:
    """As `docker compose` reads it, but that variables stay as they are written."""
    return dict(yaml.safe_load((ROOT / name).read_text()))


TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE = load("compose.yaml")
GPU = load("compose.gpu.yaml")
ALL = sorted(COMPOSE["services"])


def environment(service: str) -> dict[str, str]:
    return dict(COMPOSE["services"][service].get("environment", {}))


def mounts(service: str) -> dict[str, tuple[str, bool]]:
    """By the place inside: what is mounted there, and whether it can only be read."""
    found = {}
    for mount in COMPOSE["services"][service].get("volumes", []):
        if isinstance(mount, str):
            source, target, *mode = mount.split(":")
            found[target] = source, mode == ["ro"]
        else:
            found[mount["target"]] = mount["source"], mount["read_only"]
    return found


def test_every_container_is_named_here() -> None:
    assert {*SERVICES, "redis", "postgres", "prometheus", "grafana", "demo", "tools"} == set(ALL)


@pytest.mark.parametrize("service", ALL)
def test_no_container_has_a_right_that_it_does_not_need(service: str) -> None:
    container = COMPOSE["services"][service]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"] and "cap_add" not in container
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid", "ipc", "devices"} & container.keys()
    assert not [source for source, _ in mounts(service).values() if "docker.sock" in source]


@pytest.mark.parametrize("service", ALL)
def test_every_container_is_bounded_and_started_again(service: str) -> None:
    container = COMPOSE["services"][service]
    limits = container["deploy"]["resources"]["limits"]
    assert limits["memory"] and limits["pids"]
    assert container["restart"] == {"demo": "on-failure:3", "tools": "no"}.get(service, "unless-stopped")
    assert container["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("service", ALL)
def test_only_gateway_and_grafana_are_published_and_on_loopback(service: str) -> None:
    published = COMPOSE["services"][service].get("ports", [])
    assert bool(published) == (service in ("gateway", "grafana"))
    assert all(port.startswith("127.0.0.1:") for port in published)
    networks = COMPOSE["services"][service]["networks"]
    open_ones = {name for name in networks if not (COMPOSE["networks"][name] or {}).get("internal")}
    assert open_ones == ({"edge"} if published else set())


def test_downloads_let_the_worker_out_and_nobody_else() -> None:
    hub = load("compose.hub.yaml")
    assert hub["services"].keys() == {"worker"}
    assert set(hub["services"]["worker"]["networks"]) - set(COMPOSE["services"]["worker"]["networks"]) == {"hub"}
    assert hub["networks"] == {"hub": {}}
    assert hub["services"]["worker"]["environment"].keys() <= defaults_in_code().keys()


@pytest.mark.parametrize("service", SERVICES)
def test_variables_are_settings_and_say_something_new(service: str) -> None:
    known = {"NANOCHAT_API_KEYS", "NANOCHAT_ADMIN_KEYS", *defaults_in_code()}
    own = {f"NANOCHAT_{other.upper()}_" for other in SERVICES if other != service}
    names = environment(service).keys()
    assert names <= known
    assert not [name for name in names for prefix in own if name.startswith(prefix)]


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_listens_for_its_peers(service: str) -> None:
    assert environment(service)[HOSTS[service]] == "0.0.0.0"


def test_peers_are_asked_where_they_listen() -> None:
    gateway = environment("gateway")
    assert gateway["NANOCHAT_GATEWAY_TRAINER_URL"] == f"http://trainer:{PORTS['trainer']}"
    assert gateway["NANOCHAT_GATEWAY_INFERENCE_URLS"] == f"http://inference:{PORTS['inference']}"
    assert environment("demo")["NANOCHAT_URL"] == f"http://gateway:{PORTS['gateway']}"
    assert environment("demo")["NANOCHAT_PAGES_URL"] == "http://127.0.0.1:${GATEWAY_PORT:-8000}"
    assert COMPOSE["services"]["gateway"]["ports"] == [f"127.0.0.1:${{GATEWAY_PORT:-8000}}:{PORTS['gateway']}"]


@pytest.mark.parametrize("service", SERVICES)
def test_the_image_agrees_on_port_home_and_user(service: str) -> None:
    dockerfile = (ROOT / "docker" / f"{service}.Dockerfile").read_text()
    assert f"EXPOSE {PORTS[service]}\n" in dockerfile
    assert f"http://127.0.0.1:{PORTS[service]}/health/live" in dockerfile
    assert "NANOCHAT_HOME=/var/lib/nanochat NANOCHAT_DATA_ROOTS=/data" in dockerfile
    assert "USER 10001:10001" in dockerfile


def test_the_worker_alone_writes_files_and_nobody_writes_the_users_data() -> None:
    homes = {service: mounts(service).get("/var/lib/nanochat") for service in SERVICES}
    assert homes == {
        "gateway": None,
        "trainer": ("home", True),
        "worker": ("home", False),
        "inference": ("home", True),
    }
    assert all(mounts(service)["/data"][1] for service in ("trainer", "worker"))


def test_what_must_outlive_a_container_is_in_a_volume() -> None:
    assert mounts("redis")["/data"] == ("redis", False)
    assert mounts("postgres")["/var/lib/postgresql/data"] == ("postgres", False)
    assert set(COMPOSE["volumes"]) == {"home", "redis", "postgres", "prometheus", "grafana"}
    assert "appendonly yes" in COMPOSE["services"]["redis"]["command"][2]


@pytest.mark.parametrize("name", SECRETS)
def test_no_container_starts_without_its_secret_and_the_refusal_says_what_to_do(name: str) -> None:
    (insisting,) = (use for use in re.findall(rf"\$\{{{name}([^}}]*)\}}", TEXT) if use != "-")
    assert insisting.startswith(":?") and "make env" in insisting


def test_no_secret_is_written_down() -> None:
    for service in ALL:
        for name, value in environment(service).items():
            if re.search("PASSWORD|KEYS|_URL$", name) and "://" not in str(value):
                assert str(value).startswith("${"), (service, name)
    assert not re.search(r"://[^@\s{}$]+:[^@\s{}$]+@", TEXT)


def test_a_container_is_given_more_time_to_stop_than_it_takes() -> None:
    def grace_s(service: str) -> float:
        return float(COMPOSE["services"][service]["stop_grace_period"].removesuffix("s"))

    worker = WorkerSettings.model_fields
    assert grace_s("gateway") > float(environment("gateway")["NANOCHAT_GATEWAY_DRAIN_TIMEOUT_S"]) + 1
    assert grace_s("trainer") > TrainerSettings.model_fields["shutdown_timeout_s"].default
    assert grace_s("inference") > InferenceSettings.model_fields["drain_timeout_s"].default + 3
    assert grace_s("worker") > worker["stop_grace_s"].default + worker["lost_grace_s"].default + 15


def test_mounted_files_are_in_the_repository() -> None:
    folders = {source for service in ALL for source, _ in mounts(service).values() if source.startswith("./")}
    assert folders
    assert not [folder for folder in folders if not (ROOT / folder).exists()]


def test_prometheus_may_reach_every_service() -> None:
    reached = set(COMPOSE["services"]["prometheus"]["networks"])
    assert all(reached & set(COMPOSE["services"][service]["networks"]) for service in SERVICES)


def test_the_gpu_file_changes_what_computes_and_nothing_else() -> None:
    assert GPU["services"].keys() == {"worker", "inference"}
    for service, container in GPU["services"].items():
        assert container["image"] == COMPOSE["services"][service]["image"] + "-cuda"
        (device,) = container["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        assert set(container["environment"]) <= defaults_in_code().keys()
        assert container["shm_size"] and container["ulimits"]["memlock"] == -1
