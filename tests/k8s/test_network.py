"""What the network policies let through is exactly what the pods' addresses need."""

import re

import pytest

from .manifests import OVERLAYS, SERVICES, Object, environment, of_kind, pods, render

NAME = "app.kubernetes.io/name"
ADDRESS = re.compile(r"\w+://(?:[^@/]*@)?([a-z]+):(\d+)")
# Both ends of one edge: who speaks, with whom, on which port (None: any).
Edge = tuple[str, str, int | None]
# Not in any pod's environment: people, and what watches.
FROM_OUTSIDE: set[Edge] = {
    ("anybody", "gateway", 8000),
    *(("monitoring/prometheus", name, port) for name, port in zip(SERVICES, (8000, 8001, 8003, 8002), strict=True)),
    ("training", "training", None),
}
DNS = "kube-system/dns"


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("components", [("network-policies",), ("network-policies", "keda")])
def test_edges_are_those_of_the_addresses_in_use(overlay: str, components: tuple[str, ...]) -> None:
    objects = render(overlay, *components)
    leaving, entering = allowed(objects, "egress"), allowed(objects, "ingress")
    inside = edges_in_use(objects)
    assert len(inside) == 7
    assert leaving - entering == {("anybody", DNS, 53)}
    assert entering - leaving == {edge for edge in FROM_OUTSIDE if edge[0] != "training"}
    assert leaving & entering == inside | {("training", "training", None)}


def edges_in_use(objects: tuple[Object, ...]) -> set[Edge]:
    """Each address in a pod's environment."""
    return {
        (pod.name, host, int(port))
        for pod in pods(objects)
        if pod.name in SERVICES
        for name, value in environment(objects, pod).items()
        if name.endswith(("_URL", "_URLS"))
        for host, port in ADDRESS.findall(value)
    }


def allowed(objects: tuple[Object, ...], direction: str) -> set[Edge]:
    edges: set[Edge] = set()
    for policy in of_kind(objects, "NetworkPolicy").values():
        own = name_of(policy["spec"]["podSelector"])
        for rule in policy["spec"].get(direction, []):
            peers = [peer_name(peer) for peer in rule.get("to" if direction == "egress" else "from", [{}])]
            ports = {port["port"] for port in rule["ports"]} if "ports" in rule else {None}
            for peer in peers:
                edges |= {(own, peer, port) if direction == "egress" else (peer, own, port) for port in ports}
    return edges


def peer_name(peer: Object) -> str:
    if not peer:
        return "anybody"
    namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    if namespace is None:
        return name_of(peer["podSelector"])
    labels = peer["podSelector"]["matchLabels"]
    return f"{namespace}/{labels.get(NAME) or 'dns' * (labels == {'k8s-app': 'kube-dns'})}"


def name_of(selector: Object) -> str:
    return str(selector["matchLabels"][NAME]) if selector else "anybody"


def test_nothing_is_allowed_that_no_rule_names() -> None:
    policy = of_kind(render("cpu", "network-policies"), "NetworkPolicy")["deny-all"]["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_policies_select_labels_that_pods_have() -> None:
    objects = render("gpu", "network-policies", "trainjob")
    labels = {pod.name for pod in pods(objects)}
    for edge in allowed(objects, "egress") | allowed(objects, "ingress"):
        assert {end for end in edge[:2] if "/" not in end} <= labels | {"anybody"}, edge
