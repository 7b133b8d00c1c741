"""Every object is valid for each version of Kubernetes that README.md names, and for the operators it belongs to."""

import functools
import re
from typing import Any

import pytest

from .manifests import COMPONENTS, K8S, OVERLAYS, TOGETHER, Object, example, of_kind, render

utils = pytest.importorskip("kubernetes_validate.utils")
kubeflow = pytest.importorskip("kubeflow_trainer_api.models")

VERSIONS = ("1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
# Of operators, whose schemas are in no package but for Kubeflow's and JobSet's.
NOT_KUBERNETES = ("keda.sh", "monitoring.coreos.com", "jobset.x-k8s.io", "trainer.kubeflow.org")
SETS = [(overlay, ()) for overlay in OVERLAYS]
SETS += [(overlay, TOGETHER) for overlay in OVERLAYS]
SETS += [("gpu", ("one-node",)), ("gpu", ("external-databases",)), ("cpu", ("external-databases", "data", "keda"))]


@pytest.fixture(autouse=True)
def _schemas_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "schema_contents", schema_contents)


schema_contents = functools.cache(utils.schema_contents)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("overlay", "components"), SETS)
def test_objects_are_valid(version: str, overlay: str, components: tuple[str, ...]) -> None:
    num_checked = 0
    for found in render(overlay, *components):
        if found["apiVersion"].split("/")[0] not in NOT_KUBERNETES:
            validate(found, version)
            num_checked += 1
    assert num_checked > 10


def validate(found: Object, version: str) -> None:
    """Raises with the object's name; a key that the version does not know is an error too."""
    try:
        utils.validate(found, version, strict=True)
    except utils.ValidationError as exc:
        where = ".".join(map(str, exc.path))
        raise AssertionError(f"{found['kind']} {found['metadata']['name']}: {where}: {exc.message}") from None


def test_an_unknown_key_is_an_error() -> None:
    found = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"selectors": {}}}
    with pytest.raises(AssertionError, match="selectors"):
        validate(found, VERSIONS[0])


def test_every_component_is_in_some_set() -> None:
    assert set(COMPONENTS) == {name for _, components in SETS for name in components}


def test_the_versions_are_those_of_the_readme() -> None:
    found = re.search(r"Kubernetes (\d\.\d+) to (\d\.\d+)", (K8S / "README.md").read_text())
    assert found is not None and found.groups() == (VERSIONS[0], VERSIONS[-1])


def test_objects_of_kubeflow_and_jobset_are_valid() -> None:
    runtime = of_kind(render("gpu", "trainjob"), "TrainingRuntime")["nanochat"]
    for found, model in (
        (runtime, kubeflow.TrainerV1alpha1TrainingRuntime),
        (example("trainjob"), kubeflow.TrainerV1alpha1TrainJob),
        (example("jobset"), kubeflow.JobsetV1alpha2JobSet),
    ):
        assert_known(model, found)


def test_an_unknown_key_of_a_jobset_is_an_error() -> None:
    jobset = {**example("jobset"), "spec": {**example("jobset")["spec"], "restarts": 3}}
    with pytest.raises(AssertionError):
        assert_known(kubeflow.JobsetV1alpha2JobSet, jobset)


def assert_known(model: Any, found: Object) -> None:
    """The models drop what they do not know, so what comes back must be what went in."""
    assert without_empty(model.from_dict(found).to_dict()) == without_empty(found)


def without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: without_empty(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in ({}, [], None)}
    return [without_empty(inner) for inner in value] if isinstance(value, list) else value


def test_objects_of_keda_have_known_keys() -> None:
    objects = render("gpu", "keda")
    scaled_job, scaled_object = (of_kind(objects, kind) for kind in ("ScaledJob", "ScaledObject"))
    trigger = {"type", "metadata", "metricType", "name", "useCachedMetrics", "authenticationRef"}
    assert scaled_job["worker"]["spec"].keys() <= {
        *("jobTargetRef", "pollingInterval", "minReplicaCount", "maxReplicaCount", "scalingStrategy", "rollout"),
        *("successfulJobsHistoryLimit", "failedJobsHistoryLimit", "triggers", "envSourceContainerName"),
    }
    assert scaled_object["inference"]["spec"].keys() <= {
        *("scaleTargetRef", "pollingInterval", "cooldownPeriod", "initialCooldownPeriod", "minReplicaCount"),
        *("idleReplicaCount", "maxReplicaCount", "fallback", "advanced", "triggers"),
    }
    for found in (scaled_job["worker"], scaled_object["inference"]):
        for used in found["spec"]["triggers"]:
            assert used.keys() <= trigger
            assert all(isinstance(value, str) for value in used["metadata"].values())
    # The pod of the ScaledJob is checked as that of a Job.
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "worker"},
        "spec": scaled_job["worker"]["spec"]["jobTargetRef"],
    }
    for version in VERSIONS:
        validate(job, version)


def test_objects_of_the_prometheus_operator_have_known_keys() -> None:
    objects = render("cpu", "service-monitor")
    monitor = of_kind(objects, "ServiceMonitor")["nanochat"]["spec"]
    assert monitor.keys() == {"selector", "endpoints"}
    assert monitor["endpoints"][0].keys() == {"port", "path", "interval", "scrapeTimeout"}
    rule = of_kind(objects, "PrometheusRule")["nanochat"]["spec"]
    assert rule.keys() == {"groups"}
    names = [group["name"] for group in rule["groups"]]
    assert len(set(names)) == len(names) > 0
    for group in rule["groups"]:
        assert group.keys() <= {"name", "interval", "rules"}
        for found in group["rules"]:
            assert found.keys() <= {"alert", "record", "expr", "for", "labels", "annotations", "keep_firing_for"}
