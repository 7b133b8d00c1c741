"""What every pod must have: no right it does not need, bounds, probes, and references that lead somewhere."""

from .manifests import OVERLAYS, TOGETHER, Object, Pod, example, of_kind, pods, quantity, render

SETS = [(overlay, components) for overlay in OVERLAYS for components in ((), TOGETHER)]


def every_pod() -> list[Pod]:
    found = [pod for overlay, components in SETS for pod in pods(render(overlay, *components))]
    return [*found, *pods((example("jobset"),))]


def test_all_pods_are_looked_at() -> None:
    kinds = {(pod.kind, pod.name) for pod in every_pod()}
    assert kinds == {
        *(("Deployment", name) for name in ("gateway", "trainer", "worker", "inference")),
        *(("StatefulSet", name) for name in ("redis", "postgres")),
        ("ScaledJob", "worker"),
        ("TrainingRuntime", "training"),
        ("JobSet", "training"),
    }


def test_pods_keep_to_the_restricted_profile() -> None:
    for pod in every_pod():
        security = pod.spec["securityContext"]
        own = "nanochat/" in pod.container["image"]
        assert security["runAsNonRoot"] is True, pod
        assert security["runAsUser"] == security["runAsGroup"] == (10001 if own else 999), pod
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, pod
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys(), pod
        for container in pod.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, pod


def test_the_namespace_refuses_what_is_not_restricted() -> None:
    labels = of_kind(render("cpu"), "Namespace")["nanochat"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_pods_get_no_token_and_no_variables_of_other_services() -> None:
    for pod in every_pod():
        assert pod.spec["automountServiceAccountToken"] is False, pod
        assert pod.spec["enableServiceLinks"] is False, pod
        assert "serviceAccountName" not in pod.spec, pod


def test_files_of_the_home_are_of_the_pods_group() -> None:
    for pod in every_pod():
        volumes = pod.spec.get("volumes", [])
        if pod.kind == "StatefulSet" or any("persistentVolumeClaim" in volume for volume in volumes):
            security = pod.spec["securityContext"]
            assert security["fsGroup"] == security["runAsGroup"], pod
            assert security["fsGroupChangePolicy"] == "OnRootMismatch", pod


def test_containers_are_bounded() -> None:
    for pod in every_pod():
        for container in pod.containers:
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            for name in ("cpu", "memory"):
                assert 0 < quantity(requests[name]) <= quantity(limits[name]), pod
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume:
                assert "sizeLimit" in volume["emptyDir"], (pod, volume)


def test_what_computes_gets_whole_cores() -> None:
    """Threads are counted by the limit, and a thread that waits for its part of a core holds up all others."""
    for pod in every_pod():
        if pod.name in ("worker", "inference", "training"):
            assert pod.container["resources"]["limits"]["cpu"].isdigit(), pod
    for pod in pods(render("gpu")):
        if pod.name in ("worker", "inference"):
            assert pod.container["resources"]["limits"]["cpu"] == pod.container["resources"]["requests"]["cpu"], pod


def test_the_cpu_overlay_fits_where_it_says() -> None:
    """With what an update starts besides: a gateway, a trainer, a replica of inference. A third is the cluster's."""
    objects = render("cpu")
    for name, room in (("cpu", 4.0), ("memory", 8 * 2**30)):
        one = {pod.name: quantity(pod.container["resources"]["requests"][name]) for pod in pods(objects)}
        wanted = sum(one.values()) + 2 * one["gateway"] + one["trainer"] + one["inference"]
        assert wanted <= 0.67 * room, name


def test_images_are_pinned() -> None:
    for pod in every_pod():
        for container in pod.containers:
            name, _, tag = container["image"].rpartition(":")
            assert name and tag not in ("", "latest"), pod


def test_the_gpu_overlay_has_images_and_devices_for_gpus() -> None:
    for pod in pods(render("gpu", *TOGETHER)):
        has_gpu = "nvidia.com/gpu" in pod.container["resources"]["limits"]
        assert has_gpu == pod.container["image"].endswith("-cuda") == (pod.name in ("worker", "inference", "training"))
    assert not [pod for pod in pods(render("cpu")) if "nvidia.com/gpu" in pod.container["resources"]["limits"]]


def test_long_lived_containers_have_probes() -> None:
    for pod in every_pod():
        if pod.kind in ("Deployment", "StatefulSet", "ScaledJob"):
            assert {"readinessProbe", "livenessProbe"} <= pod.container.keys(), pod
            readiness, liveness = pod.container["readinessProbe"], pod.container["livenessProbe"]
            if pod.name not in ("redis", "postgres"):
                assert readiness["httpGet"] == {"path": "/health/ready", "port": "http"}, pod
                assert liveness["httpGet"] == {"path": "/health/live", "port": "http"}, pod
            # A peer that is away must not get a service restarted, so liveness asks for less than readiness.
            assert readiness != liveness, pod


def test_mounts_and_volumes_belong_together() -> None:
    for overlay, components in SETS:
        objects = render(overlay, *components)
        claims = {"datasets", *of_kind(objects, "PersistentVolumeClaim")}
        for pod in pods(objects):
            volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
            mounted = {mount["name"] for mount in pod.container["volumeMounts"]}
            assert volumes.keys() | ({"data"} if pod.kind == "StatefulSet" else set()) == mounted, pod
            for volume in volumes.values():
                assert "hostPath" not in volume, pod
                if "persistentVolumeClaim" in volume:
                    assert volume["persistentVolumeClaim"]["claimName"] in claims, pod


def test_only_workers_write_into_the_home() -> None:
    for pod in every_pod():
        for mount in pod.container["volumeMounts"]:
            if mount["mountPath"] == "/var/lib/nanochat":
                assert mount.get("readOnly", False) == (pod.name in ("trainer", "inference")), pod
            if mount["mountPath"] == "/data" and pod.name != "redis":
                assert mount["readOnly"] is True, pod


def test_config_maps_named_are_there() -> None:
    for overlay, components in SETS:
        objects = render(overlay, *components)
        maps = of_kind(objects, "ConfigMap")
        named = {source["configMapRef"]["name"] for pod in pods(objects) for source in pod.container.get("envFrom", [])}
        assert named == maps.keys() - {"dashboard-service", "dashboard-training", "dashboard-fleet"}


def test_no_secret_is_in_the_manifests() -> None:
    for overlay, components in SETS:
        assert not of_kind(render(overlay, *components), "Secret")


def test_everything_is_in_the_namespace() -> None:
    for overlay, components in SETS:
        for found in render(overlay, *components):
            if found["kind"] != "Namespace":
                assert found["metadata"].get("namespace") == "nanochat", (found["kind"], found["metadata"]["name"])


def test_selectors_match_their_pods() -> None:
    for overlay, components in SETS:
        objects = render(overlay, *components)
        for kind in ("Deployment", "StatefulSet"):
            for found in of_kind(objects, kind).values():
                template = found["spec"]["template"]["metadata"]["labels"]
                assert is_selected(template, found["spec"]["selector"]["matchLabels"]), found["metadata"]["name"]
        for service in of_kind(objects, "Service").values():
            (pod,) = (pod for pod in pods(objects) if is_selected(pod.labels, service["spec"]["selector"]))
            ports = {port["name"]: port["containerPort"] for port in pod.container["ports"]}
            for port in service["spec"]["ports"]:
                assert ports[port["targetPort"]] == port["port"], service["metadata"]["name"]
        for found in of_kind(objects, "StatefulSet").values():
            assert found["spec"]["serviceName"] in of_kind(objects, "Service")


def test_pods_that_share_a_volume_of_one_node_are_kept_on_it() -> None:
    for components in ((), ("keda",)):
        objects = render("cpu", *components)
        assert of_kind(objects, "PersistentVolumeClaim")["home"]["spec"]["accessModes"] == ["ReadWriteOnce"]
        sharing = {pod.name: pod for pod in pods(objects) if "home" in {v["name"] for v in pod.spec.get("volumes", [])}}
        for pod in sharing.values():
            (term,) = pod.spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            (expression,) = term["labelSelector"]["matchExpressions"]
            assert sorted(expression["values"]) == sorted(sharing)
    objects = render("gpu")
    assert of_kind(objects, "PersistentVolumeClaim")["home"]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert not [pod for pod in pods(objects) if "affinity" in pod.spec]


def is_selected(labels: Object, selector: Object) -> bool:
    return bool(selector) and selector.items() <= labels.items()
