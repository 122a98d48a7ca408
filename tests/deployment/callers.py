"""Whom the chart's network policies let in and out, tried caller by caller."""

import ipaddress

import rendering
from judge import Mistake, check
from rendering import matches, names, of_kind, pods, the

CHART = "helm/godwit"
TEMPLATES = f"{CHART}/templates"
VALUES = f"{CHART}/values.yaml"

NOBODYS = {"address": "203.0.113.7"}
NEIGHBOUR = {"labels": {"app": "other"}, "namespace": None}
PROMETHEUS = {"labels": {"app": "prometheus"}, "namespace": {"kubernetes.io/metadata.name": "monitoring"}}
RESOLVER = {"labels": {"k8s-app": "kube-dns"}, "namespace": {"kubernetes.io/metadata.name": "kube-system"}}


@check(
    Mistake(
        f"{TEMPLATES}/networkpolicy.yaml",
        "        - {port: internal, protocol: TCP}",
        "        - {port: ops, protocol: TCP}",
        "a process of",
    ),
    Mistake(
        f"{TEMPLATES}/networkpolicy.yaml", "policyTypes: [Ingress, Egress]", "policyTypes: [Egress]", "lets anybody in"
    ),
    Mistake(
        f"{TEMPLATES}/networkpolicy.yaml",
        "cidr: {{ $region.network }}",
        "cidr: 0.0.0.0/0",
        "a stranger gets in to internal",
    ),
    Mistake(f"{TEMPLATES}/networkpolicy.yaml", 'list "api" "test"', 'list "api"', "the test does not get in"),
    Mistake(
        VALUES,
        "kubernetes.io/metadata.name: monitoring",
        "kubernetes.io/metadata.name: metrics",
        "Prometheus does not get in",
    ),
    Mistake(
        VALUES,
        "  ops:\n    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}",
        "  ops:\n    - ipBlock: {cidr: 0.0.0.0/0}",
        "a stranger gets in to ops",
    ),
    Mistake(
        f"{TEMPLATES}/_helpers.tpl",
        '  ports:\n    - {port: {{ include "godwit.port" $region.internalUrl }}, protocol: TCP}',
        "",
        "does not keep to its port",
    ),
    Mistake(
        f"{TEMPLATES}/networkpolicy.yaml",
        '    {{- include "godwit.egress.database" . | nindent 4 }}\n',
        "",
        "does not reach Postgres",
    ),
    Mistake(
        f"{TEMPLATES}/networkpolicy.yaml",
        '    {{- include "godwit.egress.dns" . | nindent 4 }}\n',
        "",
        "does not reach names",
    ),
    Mistake(
        f"{TEMPLATES}/tests/status.yaml",
        '    {{- include "godwit.egress.regions" . | nindent 4 }}\n',
        "",
        "the test does not reach",
    ),
    Mistake(
        f"{TEMPLATES}/service.yaml",
        "    {{- range .Values.regions }}\n    - {{ .network }}\n    {{- end }}",
        "    - 0.0.0.0/0",
        "load balancer",
    ),
)
def the_network_lets_in_whom_it_should(tree):
    """Of each listener its callers and nobody else; out of a pod only what it must reach."""
    listed = tree.yaml("regions.yaml")["regions"]
    for region in rendering.regions(tree):
        objects, _ = rendering.render(tree, rendering.values(tree, region))
        ports = {
            p["name"]: p["containerPort"]
            for p in the(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"]
        }
        policy = the(objects, "NetworkPolicy")["spec"]
        for one in of_kind(objects, "NetworkPolicy"):
            if one["spec"]["policyTypes"] != ["Ingress", "Egress"]:
                yield f"{region}: {names(one)} lets anybody in, or out"
        inside = {name: {"address": first_address(one["network"])} for name, one in listed.items()}
        labels = {who: meta["labels"] for who, meta, _ in pods(objects)}
        test = {"labels": labels["Pod godwit-test"], "namespace": None}
        process = {"labels": labels["Deployment godwit"], "namespace": None}

        def may(who, port, rules=policy, way="ingress"):
            return allowed(rules.get(way, []), "from" if way == "ingress" else "to", who, port, ports)

        for name, caller in {**inside, "a stranger": NOBODYS, "a neighbour": NEIGHBOUR}.items():
            if not may(caller, "public"):
                yield f"{region}: {name} does not get in to public"
        callers = {
            **{f"a process of {name}": caller for name, caller in inside.items()},
            "the test": test,
            "`godwit status`": process,
        }
        for name, caller in callers.items():
            if not may(caller, "internal"):
                yield f"{region}: {name} does not get in to internal"
        if not may(PROMETHEUS, "ops"):
            yield f"{region}: Prometheus does not get in to ops"
        for name, caller in {"a stranger": NOBODYS, "a neighbour": NEIGHBOUR}.items():
            yield from (f"{region}: {name} gets in to {port}" for port in ["internal", "ops"] if may(caller, port))
        yield from (f"{region}: {name} gets in to ops" for name, caller in callers.items() if may(caller, "ops"))

        jobs = {who: the(objects, "NetworkPolicy", f"godwit-{who}")["spec"] for who in ["migrate", "test"]}
        everyone = {"a process": policy, "the migration": jobs["migrate"], "the test": jobs["test"]}
        for who, rules in everyone.items():
            reaches = lambda to, port: may(to, port, rules, "egress")  # noqa: E731
            if not reaches(RESOLVER, 53):
                yield f"{region}: {who} does not reach names"
            if reaches(inside[region], 5432) == (who == "the test"):
                yield f"{region}: {who} {'reaches' if who == 'the test' else 'does not reach'} Postgres"
            if reaches(inside[region], 6379) != (who == "a process"):
                yield f"{region}: {who} {'does not reach' if who == 'a process' else 'reaches'} Redis"
            for name, other in inside.items():
                if reaches(other, 9081) == (who == "the migration"):
                    yield f"{region}: {who} {'reaches' if who == 'the migration' else 'does not reach'} {name}"
                if reaches(other, 22) or (name != region and reaches(other, 5432)):
                    yield f"{region}: {who} in {name} does not keep to its port"
            yield from (
                f"{region}: {who} reaches a stranger at {port}" for port in [80, 443, 9081] if reaches(NOBODYS, port)
            )
            if rules is not policy and rules.get("ingress"):
                yield f"{region}: {who} lets somebody in"
        balanced = {"internal": {"service": {"type": "LoadBalancer"}}}
        objects, _ = rendering.render(tree, rendering.values(tree, region, balanced))
        ranges = the(objects, "Service", "godwit-internal")["spec"]["loadBalancerSourceRanges"]
        if sorted(ranges) != sorted(one["network"] for one in listed.values()):
            yield f"{region}: the internal load balancer takes {ranges}"


def first_address(network):
    return str(next(ipaddress.ip_network(network).hosts()))


def allowed(rules, side, who, port, ports):
    """Whether rules of a NetworkPolicy let `who` use `port`. `ports` are the names of those of the pod that they are for."""
    return any(
        any(one.get("port") in (None, port) or (ports.get(one.get("port")) == port) for one in rule.get("ports", [{}]))
        and (not rule.get(side) or any(is_peer(peer, who) for peer in rule[side]))
        for rule in rules
    )


def is_peer(peer, who):
    if "ipBlock" in peer:
        return "address" in who and ipaddress.ip_address(who["address"]) in ipaddress.ip_network(
            peer["ipBlock"]["cidr"]
        )
    if "labels" not in who:
        return False
    if "namespaceSelector" in peer:
        if who["namespace"] is None or not matches(peer["namespaceSelector"].get("matchLabels", {}), who["namespace"]):
            return False
    elif who["namespace"] is not None:
        return False
    return matches(peer.get("podSelector", {}).get("matchLabels", {}), who["labels"])
