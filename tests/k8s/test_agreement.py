"""Kubernetes, compose.yaml and the services' settings say the same: ports, variables, paths, images, rules, secrets."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from nanochat_gateway.routes_pages import PAGES
from tests.architecture.test_readme import settings_classes, variable_of

from .manifests import (
    COMPONENTS,
    K8S,
    OVERLAYS,
    ROOT,
    SERVICES,
    TOGETHER,
    environment,
    of_kind,
    pod_of,
    pods,
    render,
    render_folder,
)
from .test_draining import SETTINGS

PORTS = {
    "gateway": SETTINGS["gateway"].model_fields["port"].default,
    "trainer": SETTINGS["trainer"].model_fields["port"].default,
    "worker": SETTINGS["worker"].model_fields["metrics_port"].default,
    "inference": SETTINGS["inference"].model_fields["port"].default,
    "redis": 6379,
    "postgres": 5432,
}
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def known_variables() -> set[str]:
    return {variable_of(settings, field) for settings in settings_classes() for field in settings.model_fields}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ports_are_those_of_the_settings(overlay: str) -> None:
    objects = render(overlay)
    services = of_kind(objects, "Service")
    assert services.keys() == PORTS.keys()
    for name, port in PORTS.items():
        assert [found["containerPort"] for found in pod_of(objects, name).container["ports"]] == [port], name
        assert [found["port"] for found in services[name]["spec"]["ports"]] == [port], name


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("components", [(), TOGETHER])
def test_settings_accept_what_the_pod_gives_them(
    service: str, overlay: str, components: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = render(overlay, *components)
    variables = environment(objects, pod_of(objects, service))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = SETTINGS[service]()
    assert getattr(settings, "metrics_port" if service == "worker" else "port") == PORTS[service]
    assert getattr(settings, "metrics_host" if service == "worker" else "host") == "0.0.0.0"
    assert {name for name in variables if name.startswith("NANOCHAT_")} <= known_variables()


def test_a_service_gets_only_variables_of_its_own() -> None:
    for overlay in OVERLAYS:
        objects = render(overlay)
        for service in SERVICES:
            for name in environment(objects, pod_of(objects, service)):
                others = {f"NANOCHAT_{other.upper()}_" for other in SERVICES if other != service}
                assert not name.startswith(tuple(others)), (service, name)


def test_secrets_reach_only_those_who_need_them() -> None:
    objects = render("gpu", *TOGETHER)
    asked = {
        pod.name: {
            variable["valueFrom"]["secretKeyRef"]["key"]
            for variable in pod.container.get("env", [])
            if "valueFrom" in variable
        }
        for pod in pods(objects)
    }
    assert asked == {
        "gateway": {"NANOCHAT_API_KEYS", "NANOCHAT_ADMIN_KEYS"},
        "trainer": {"POSTGRES_PASSWORD", "REDIS_PASSWORD"},
        "worker": {"POSTGRES_PASSWORD", "REDIS_PASSWORD"},
        "inference": {"POSTGRES_PASSWORD"},
        "postgres": {"POSTGRES_PASSWORD"},
        "redis": {"REDIS_PASSWORD"},
        "training": set(),
    }
    written = (ROOT / "docker" / "env.py").read_text()
    for key in set().union(*asked.values()):
        assert f"\n{key}=" in written, key


@pytest.mark.parametrize("service", SERVICES)
def test_compose_and_kubernetes_give_the_same_variables(service: str) -> None:
    """But for what is left at its default, and for how long a service may take to stop."""
    objects = render("cpu")
    here = environment(objects, pod_of(objects, service))
    there = {name: str(value) for name, value in COMPOSE[service]["environment"].items()}
    for name in here.keys() & there.keys():
        if not re.search(r"\$|DRAIN|GRACE", there[name] + name):
            assert here[name] == there[name], name
    needed = {name for name in there if name.endswith(("_URL", "_URLS", "_HOST", "_KEYS"))}
    assert needed <= here.keys()
    for name in needed:
        assert strip_secrets(here[name]) == strip_secrets(there[name]), name


def strip_secrets(value: str) -> str:
    """An address without its password."""
    value = re.sub(r"\$\{[^}]*\}", "", value)
    return re.sub(r":[^:/@]*@", ":@", value) if "@" in value else value if "//" in value or "." in value else ""


@pytest.mark.parametrize("service", [*SERVICES, "redis", "postgres"])
def test_compose_and_kubernetes_mount_the_same_paths(service: str) -> None:
    here = {
        mount["mountPath"]: mount.get("readOnly", False)
        for mount in pod_of(render("cpu", "data"), service).container["volumeMounts"]
    }
    there = {}
    for mount in COMPOSE[service].get("volumes", []):
        if isinstance(mount, str):
            _, target, *mode = mount.split(":")
            there[target] = mode == ["ro"]
        else:
            there[mount["target"]] = mount.get("read_only", False)
    for temporary in COMPOSE[service].get("tmpfs", ["/tmp"]):
        there[temporary.split(":")[0]] = False
    if service == "redis":
        here["/tmp"] = False  # unused there
    assert here == there


@pytest.mark.parametrize("service", [*SERVICES, "redis", "postgres"])
def test_compose_and_kubernetes_run_the_same_images(service: str) -> None:
    there = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE[service]["image"])
    assert pod_of(render("cpu"), service).container["image"] == there
    if service in ("worker", "inference"):
        assert pod_of(render("gpu"), service).container["image"] == f"{there}-cuda"


def test_every_public_page_and_api_is_behind_the_ingress_and_nothing_else() -> None:
    (rule,) = of_kind(render("cpu", "ingress"), "Ingress")["gateway"]["spec"]["rules"]
    paths = {path["path"]: path["pathType"] for path in rule["http"]["paths"]}
    assert {path for path, kind in paths.items() if kind == "Exact"} == {*PAGES, "/stats"}
    assert {path for path, kind in paths.items() if kind == "Prefix"} == {"/v1", "/chat", "/assets"}
    for path in rule["http"]["paths"]:
        assert path["backend"]["service"] == {"name": "gateway", "port": {"name": "http"}}


def test_rules_of_the_operator_are_those_of_prometheus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(K8S))
    import prometheus_rule

    try:
        files = sorted(prometheus_rule.RULES.glob("*.yml"))
        assert prometheus_rule.COPY.read_text() == prometheus_rule.prometheus_rule(files), (
            "docker/prometheus/rules has changed; run: python k8s/prometheus_rule.py"
        )
    finally:
        del sys.modules["prometheus_rule"]
    here = yaml.safe_load(prometheus_rule.COPY.read_text())["spec"]["groups"]
    there = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert [group["rules"] for group in here] == [group["rules"] for group in there]


def test_grafana_gets_every_dashboard() -> None:
    folder = ROOT / "docker" / "grafana" / "dashboards"
    maps = of_kind(render("cpu", "service-monitor"), "ConfigMap").values()
    found = [found for found in maps if found["metadata"]["labels"].get("grafana_dashboard") == "1"]
    data = {name: text for one in found for name, text in one["data"].items()}
    assert data == {file.name: file.read_text() for file in folder.glob("*.json")}
    # `kubectl apply` writes each object into an annotation, which holds 256 KiB.
    assert all(len(text) < 200_000 for text in data.values())


def test_prometheus_finds_the_same_jobs() -> None:
    """The operator takes the label `job` from the Service's name, as docker/prometheus names its jobs."""
    objects = render("cpu", "service-monitor")
    monitor = of_kind(objects, "ServiceMonitor")["nanochat"]["spec"]
    selected = {
        name: service
        for name, service in of_kind(objects, "Service").items()
        if monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        and "http" in {port["name"] for port in service["spec"]["ports"]}
    }
    config = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    found = {
        scrape["job_name"]: scrape["dns_sd_configs"][0]["port"]
        for scrape in config["scrape_configs"]
        if "dns_sd_configs" in scrape
    }
    assert {name: service["spec"]["ports"][0]["port"] for name, service in selected.items()} == found
    assert "jobLabel" not in monitor
    assert monitor["endpoints"][0]["interval"] == config["global"]["scrape_interval"]


def test_every_component_is_in_the_readme_and_every_path_there_exists() -> None:
    text = (K8S / "README.md").read_text()
    for name in COMPONENTS:
        assert f"components/{name}" in text, name
    for path in re.findall(r"k8s/[\w./-]+", text):
        assert (ROOT / path.rstrip(".")).exists(), path


def test_the_overlay_in_the_readme_does_what_it_says(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (K8S / "README.md").read_text(), re.DOTALL)
    (tmp_path / "nanochat").symlink_to(ROOT)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(text)
    objects = render_folder(tmp_path / "mine")
    images = {pod.name: pod.container["image"] for pod in pods(objects)}
    assert images["worker"] == "registry.example.com/nanochat/worker:0.1.0-cuda"
    assert environment(objects, pod_of(objects, "gateway"))["NANOCHAT_GATEWAY_MAX_TOTAL_CHARS"] == "64000"
    ingress = of_kind(objects, "Ingress")["gateway"]["spec"]
    assert (ingress["ingressClassName"], ingress["rules"][0]["host"]) == ("traefik", "chat.example.com")


def test_kustomizations_need_nothing_outside_their_folder() -> None:
    """`kubectl apply -k` loads no other file, only folders that are kustomizations themselves."""
    for file in K8S.rglob("kustomization.yaml"):
        kustomization = yaml.safe_load(file.read_text())
        for key in ("resources", "components"):
            for name in kustomization.get(key, []):
                found = (file.parent / name).resolve()
                inside = Path(file.parent) in found.parents
                assert found.exists() and (inside or (found / "kustomization.yaml").exists()), (file, name)
