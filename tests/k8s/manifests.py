"""The manifests as a cluster would get them: rendered by kubectl, and looked at object by object."""

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("cpu", "gpu")
COMPONENTS = tuple(sorted(path.name for path in (K8S / "components").iterdir()))
# Those that go together, in the order that README.md asks for. one-node is in the cpu overlay.
TOGETHER = (
    "data",
    "service-monitor",
    "hpa",
    "pdb",
    "ingress",
    "network-policies",
    "jobset",
    "trainjob",
    "keda",
)
SERVICES = ("gateway", "trainer", "worker", "inference")
Object = dict[str, Any]
# libyaml's, where it is there, for ten times the speed.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod that a workload would start. `name` is the service's."""

    kind: str
    name: str
    labels: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def container(self) -> Object:
        """The only one."""
        (container,) = self.containers
        return dict(container)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@functools.cache
def render(overlay: str, *components: str) -> tuple[Object, ...]:
    """An overlay with components on top, as somebody's own overlay would have them. Skips where kubectl is missing."""
    _require_kubectl()
    with tempfile.TemporaryDirectory() as folder:
        relative = os.path.relpath(K8S, Path(folder).resolve())
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{relative}/overlays/{overlay}"],
            "components": [f"{relative}/components/{name}" for name in components],
        }
        (Path(folder) / "kustomization.yaml").write_text(json.dumps(kustomization))
        return render_folder(Path(folder))


def render_folder(folder: Path) -> tuple[Object, ...]:
    _require_kubectl()
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # warnings of deprecated fields
    return tuple(load(done.stdout))


def load(text: str) -> Iterator[Object]:
    for loaded in yaml.load_all(text, Loader=LOADER):
        if loaded is not None:
            yield loaded


@functools.cache
def example(name: str) -> Object:
    (loaded,) = load((K8S / "examples" / f"{name}.yaml").read_text())
    return loaded


@functools.cache
def _require_kubectl() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, timeout=60)
    found = re.search(r"Kustomize Version: v(\d+)\.", done.stdout)
    if found is None or int(found[1]) < 5:
        pytest.skip("kubectl has no kustomize 5 (1.27 and later have)")


def of_kind(objects: tuple[Object, ...], kind: str) -> dict[str, Object]:
    """By name."""
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def pods(objects: tuple[Object, ...]) -> list[Pod]:
    """Every pod template, wherever it is in the object."""
    return [
        Pod(
            kind=found["kind"],
            name=template["metadata"]["labels"]["app.kubernetes.io/name"],
            labels=template["metadata"]["labels"],
            spec=template["spec"],
        )
        for found in objects
        for template in _templates(found.get("spec", {}))
    ]


def _templates(value: Any) -> Iterator[Object]:
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            yield value
        else:
            for inner in value.values():
                yield from _templates(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _templates(inner)


def pod_of(objects: tuple[Object, ...], service: str) -> Pod:
    (found,) = (pod for pod in pods(objects) if pod.name == service)
    return found


def environment(objects: tuple[Object, ...], pod: Pod) -> dict[str, str]:
    """What the container would find, with $(NAME) resolved; a secret's value is its key in small letters."""
    maps = of_kind(objects, "ConfigMap")
    found: dict[str, str] = {}
    for source in pod.container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]["data"]
    for variable in pod.container.get("env", []):
        value = variable.get("value")
        if value is None:
            value = variable["valueFrom"]["secretKeyRef"]["key"].lower()
        found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], value)
    return found


def quantity(text: str) -> float:
    """Of cores, or bytes."""
    number, unit = re.fullmatch(r"([\d.]+)(m|Mi|Gi|)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"m": 1e-3, "Mi": 2**20, "Gi": 2**30, "": 1}[unit]
