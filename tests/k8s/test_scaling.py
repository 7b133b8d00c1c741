"""Budgets leave room to drain a node, one autoscaler owns a workload, and none of them ends a busy worker."""

import re

import pytest

from .manifests import OVERLAYS, ROOT, TOGETHER, environment, of_kind, pod_of, pods, render

METRIC = re.compile(r"\b(?:nanochat|process)_\w+")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_budget_allows_one_eviction_of_something_that_has_replicas(overlay: str) -> None:
    objects = render(overlay, *TOGETHER)
    budgets = of_kind(objects, "PodDisruptionBudget")
    assert budgets.keys() == {"gateway", "inference"}
    for name, budget in budgets.items():
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["selector"]["matchLabels"].items() <= pod_of(objects, name).labels.items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_scaled_has_one_autoscaler_and_no_number_of_its_own(overlay: str) -> None:
    objects = render(overlay, *TOGETHER)
    targets = [
        found["spec"]["scaleTargetRef"]["name"] for found in of_kind(objects, "HorizontalPodAutoscaler").values()
    ]
    targets += [found["spec"]["scaleTargetRef"]["name"] for found in of_kind(objects, "ScaledObject").values()]
    assert sorted(targets) == ["gateway", "inference"]
    for name in targets:
        assert "replicas" not in of_kind(objects, "Deployment")[name]["spec"], name
    assert of_kind(objects, "HorizontalPodAutoscaler")["gateway"]["spec"]["minReplicas"] >= 2


def test_without_autoscalers_every_deployment_says_how_many() -> None:
    for overlay in OVERLAYS:
        for name, found in of_kind(render(overlay), "Deployment").items():
            assert found["spec"]["replicas"] >= 1, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_workers_by_queue_are_jobs_that_nothing_ends(overlay: str) -> None:
    objects = render(overlay, "keda")
    assert "worker" not in of_kind(objects, "Deployment")
    spec = of_kind(objects, "ScaledJob")["worker"]["spec"]
    assert spec["rollout"] == {"strategy": "gradual"}  # a changed ScaledJob leaves those that run
    target = spec["jobTargetRef"]
    assert target["parallelism"] == target["completions"] == 1
    assert "activeDeadlineSeconds" not in target
    assert target["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_workers_by_queue_are_those_of_the_deployment_but_for_their_end(overlay: str) -> None:
    plain, scaled = render(overlay, "data"), render(overlay, "data", "keda")
    deployed, started = pod_of(plain, "worker"), pod_of(scaled, "worker")
    own = {"NANOCHAT_WORKER_MAX_JOBS": "1", "NANOCHAT_WORKER_IDLE_TIMEOUT_S": "60"}
    assert environment(scaled, started) == environment(plain, deployed) | own
    assert started.labels == deployed.labels
    for key in deployed.spec.keys() - {"containers"}:
        assert started.spec[key] == deployed.spec[key], key
    for key in deployed.container.keys() - {"env"}:
        assert started.container[key] == deployed.container[key], key


def test_triggers_ask_for_metrics_that_there_are() -> None:
    documented = set(METRIC.findall((ROOT / "docs" / "metrics.md").read_text()))
    objects = render("gpu", "keda")
    found = [*of_kind(objects, "ScaledJob").values(), *of_kind(objects, "ScaledObject").values()]
    queries = [trigger["metadata"]["query"] for scaled in found for trigger in scaled["spec"]["triggers"]]
    names = {name for query in queries for name in METRIC.findall(query)}
    assert names == {
        "nanochat_queue_jobs",
        "nanochat_worker_jobs_running",
        "nanochat_num_requests_running",
        "nanochat_num_requests_waiting",
    }
    assert names <= documented
    assert all('namespace="nanochat"' in selector for query in queries for selector in re.findall(r"{[^}]*}", query))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_fewest_replicas_bear_an_update(overlay: str) -> None:
    objects = render(overlay, "keda", "hpa")
    fewest = {name: found["spec"]["minReplicaCount"] for name, found in of_kind(objects, "ScaledObject").items()}
    autoscalers = of_kind(objects, "HorizontalPodAutoscaler")
    fewest |= {name: found["spec"]["minReplicas"] for name, found in autoscalers.items()}
    for name, num in fewest.items():
        update = of_kind(objects, "Deployment")[name]["spec"]["strategy"]["rollingUpdate"]
        assert num - update["maxUnavailable"] >= 1, name


def test_a_replica_more_comes_before_the_slots_of_one_are_full() -> None:
    from nanochat_inference.settings import InferenceSettings

    running, waiting = of_kind(render("gpu", "keda"), "ScaledObject")["inference"]["spec"]["triggers"]
    num_slots = InferenceSettings.model_fields["max_running"].default
    assert 0.5 * num_slots < int(running["metadata"]["threshold"]) < num_slots
    assert int(waiting["metadata"]["threshold"]) < InferenceSettings.model_fields["max_waiting"].default


def test_a_launcher_may_start_trainings_and_read_why_they_do_not() -> None:
    objects = render("gpu", "jobset")
    (role,), (binding,) = of_kind(objects, "Role").values(), of_kind(objects, "RoleBinding").values()
    (account,) = of_kind(objects, "ServiceAccount")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "nanochat"}]
    for rule in role["rules"]:
        assert "*" not in rule["resources"] + rule["verbs"] + rule["apiGroups"]
        assert "secrets" not in rule["resources"]
    assert not [pod for pod in pods(objects) if pod.spec.get("serviceAccountName") == account]
