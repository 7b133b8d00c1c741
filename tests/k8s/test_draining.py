"""Stopping takes as long as the services' own settings and constants say, and the grace period is longer."""

import pytest
from pydantic_settings import BaseSettings

import nanochat_gateway.server
import nanochat_inference.server
from nanochat_gateway.settings import GatewaySettings
from nanochat_inference.settings import InferenceSettings
from nanochat_trainer.settings import TrainerSettings
from nanochat_worker.__main__ import LAST_SCRAPE_S
from nanochat_worker.runner import CLOSE_PATIENCE_S
from nanochat_worker.settings import WorkerSettings

from .manifests import OVERLAYS, Object, Pod, environment, of_kind, pod_of, render

SETTINGS: dict[str, type[BaseSettings]] = {
    "gateway": GatewaySettings,
    "trainer": TrainerSettings,
    "worker": WorkerSettings,
    "inference": InferenceSettings,
}
# How long CoreDNS remembers, by its usual configuration.
DNS_TTL_S = 30
SETS = [(overlay, components) for overlay in OVERLAYS for components in ((), ("keda",))]


def look(
    overlay: str, components: tuple[str, ...], service: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Pod, BaseSettings]:
    """The pod, and the settings that its container would read."""
    objects = render(overlay, *components)
    pod = pod_of(objects, service)
    for name, value in environment(objects, pod).items():
        monkeypatch.setenv(name, value)
    return pod, SETTINGS[service]()


def pre_stop_s(pod: Pod) -> int:
    """The kubelet counts it as part of the grace period."""
    return int(pod.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0))


def grace_s(pod: Pod) -> int:
    return int(pod.spec["terminationGracePeriodSeconds"])


@pytest.mark.parametrize(("overlay", "components"), SETS)
def test_gateway_leaves_the_service_then_drains_then_closes(
    overlay: str, components: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pod, settings = look(overlay, components, "gateway", monkeypatch)
    assert isinstance(settings, GatewaySettings)
    assert pre_stop_s(pod) >= 5
    assert pre_stop_s(pod) + settings.drain_delay_s >= 10
    draining_s = settings.drain_delay_s + settings.drain_timeout_s
    needed_s = pre_stop_s(pod) + draining_s + nanochat_gateway.server._CLOSING_TIMEOUT_S
    assert needed_s + 5 <= grace_s(pod) <= needed_s + 30
    # Readiness asks two peers, one after the other.
    assert pod.container["readinessProbe"]["timeoutSeconds"] > 2 * settings.probe_timeout_s


@pytest.mark.parametrize(("overlay", "components"), SETS)
def test_trainer_leaves_the_service_before_it_closes(
    overlay: str, components: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pod, settings = look(overlay, components, "trainer", monkeypatch)
    assert isinstance(settings, TrainerSettings)
    assert pre_stop_s(pod) >= 5
    # A round of the reconciler cannot be interrupted: the broker's timeouts are 10 and 5 s, with one more try.
    assert pre_stop_s(pod) + settings.shutdown_timeout_s + 20 <= grace_s(pod)


@pytest.mark.parametrize(("overlay", "components"), SETS)
def test_worker_has_time_for_a_checkpoint(
    overlay: str, components: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pod, settings = look(overlay, components, "worker", monkeypatch)
    assert isinstance(settings, WorkerSettings)
    # What the worker itself waits for before it gives up (its __main__).
    needed_s = settings.stop_grace_s + settings.lost_grace_s + CLOSE_PATIENCE_S
    assert settings.stop_grace_s >= 120
    assert pre_stop_s(pod) + needed_s + 10 <= grace_s(pod) <= needed_s + 60
    # The Cluster Autoscaler waits for ten minutes at most.
    assert grace_s(pod) <= 600
    assert LAST_SCRAPE_S < CLOSE_PATIENCE_S


@pytest.mark.parametrize(("overlay", "components"), SETS)
def test_inference_ends_its_answers(overlay: str, components: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    pod, settings = look(overlay, components, "inference", monkeypatch)
    assert isinstance(settings, InferenceSettings)
    needed_s = pre_stop_s(pod) + settings.drain_timeout_s + nanochat_inference.server._CLOSING_TIMEOUT_S
    assert needed_s + 15 <= grace_s(pod) <= needed_s + 60


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_replica_is_known_to_the_gateways_before_another_goes(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, settings = look(overlay, (), "gateway", monkeypatch)
    assert isinstance(settings, GatewaySettings)
    ready_s = of_kind(render(overlay), "Deployment")["inference"]["spec"]["minReadySeconds"]
    assert ready_s >= DNS_TTL_S + settings.replica_lookup_interval_s


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_updates_leave_somebody_who_answers(overlay: str) -> None:
    deployments = of_kind(render(overlay), "Deployment")
    for name in ("gateway", "trainer", "inference"):
        assert num_left(deployments[name]) >= 1, name
    assert deployments["gateway"]["spec"]["replicas"] >= 2


def test_workers_are_replaced_in_place() -> None:
    for overlay in OVERLAYS:
        update = of_kind(render(overlay), "Deployment")["worker"]["spec"]["strategy"]["rollingUpdate"]
        assert update == {"maxSurge": 0, "maxUnavailable": 1}


def num_left(deployment: Object) -> int:
    """Replicas that are ready at every moment of an update."""
    spec = deployment["spec"]
    assert spec["strategy"]["type"] == "RollingUpdate"
    return int(spec["replicas"] - spec["strategy"]["rollingUpdate"]["maxUnavailable"])
