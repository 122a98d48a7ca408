"""Whom the chart's network policies let in and out, tried caller by caller."""

import ipaddress

import rendering
from judge import Mistake, check
from rendering import matches, names, of_kind, pods, the, ways

CHART = "helm/godwit"
TEMPLATES = f"{CHART}/templates"
VALUES = f"{CHART}/values.yaml"

NOBODYS = {"address": "203.0.113.7"}
NEIGHBOUR = {"labels": {"app": "other"}, "namespace": None}
PROMETHEUS = {"labels": {"app": "prometheus"}, "namespace": {"kubernetes.io/metadata.name": "monitoring"}}
OPERATOR = {"labels": {"app": "cnpg"}, "namespace": {"kubernetes.io/metadata.name": "cnpg-system"}}
AGENT = {"address": "169.254.170.23"}
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


@check(
    Mistake(f"{TEMPLATES}/_control.tpl", "port: {{ .Values.kubernetesApi.port }}", "port: 8443", "the API server"),
    Mistake(f"{TEMPLATES}/_control.tpl", "{{- toYaml .Values.networkPolicy.aws | nindent 4 }}", "- ipBlock: {cidr: 10.0.0.0/8}", "AWS"),
    Mistake(f"{TEMPLATES}/_control.tpl", "cidr: 169.254.170.23/32", "cidr: 169.254.169.254/32", "AWS"),
    Mistake(
        f"{TEMPLATES}/_control.tpl",
        '{{- define "godwit.control.egress" -}}\n{{- if eq .Values.failover.control "cloudnativepg" }}',
        '{{- define "godwit.control.egress" -}}\n{{- if true }}',
        "as it is: godwit reaches the API server",
    ),
    Mistake(
        f"{TEMPLATES}/migrate.yaml",
        '    {{- include "godwit.egress.database" . | nindent 4 }}\n',
        '    {{- include "godwit.egress.database" . | nindent 4 }}\n    {{- include "godwit.control.egress" . | nindent 4 }}\n',
        "godwit-migrate reaches the API server",
    ),
)
def a_process_reaches_what_moves_its_database(tree):
    """The API server, or AWS, each only where it is asked; the migration and the test neither."""
    listed = tree.yaml("regions.yaml")["regions"]
    for way, region, objects in ways(tree):
        inside = {"address": first_address(listed[region]["network"])}
        control = way.partition("moved by ")[2]
        for who in ["godwit", "godwit-migrate", "godwit-test"]:
            found = [one["spec"] for one in of_kind(objects, "NetworkPolicy") if one["metadata"]["name"] == who]
            for rules in found:
                reaches = lambda to, port: allowed(rules["egress"], "to", to, port, {})  # noqa: B023, E731
                wanted = who == "godwit" and control
                aws = wanted in ("rds", "aurora")
                may = reaches(inside, 443)
                if may != (aws or wanted == "cloudnativepg"):
                    yield f"{way}: {who} {'reaches' if may else 'does not reach'} the API server"
                # Addresses that are nobody's inside of the network are AWS' here; its agent gives the rights.
                for to, port in [(NOBODYS, 443), (AGENT, 80)]:
                    if reaches(to, port) != aws:
                        yield f"{way}: {who} {'does not reach' if aws else 'reaches'} AWS at port {port}"


@check(
    Mistake(f"{TEMPLATES}/cluster.yaml", 'list "api" "migrate"', 'list "api"', "the migration does not get in"),
    Mistake(f"{TEMPLATES}/cluster.yaml", "cidr: {{ $facts.network }}", "cidr: 0.0.0.0/0", "a stranger gets in"),
    Mistake(f"{TEMPLATES}/cluster.yaml", "        - {port: 8000, protocol: TCP}\n", "", "the operator does not"),
    Mistake(f"{TEMPLATES}/cluster.yaml", "port: 9187", "port: 9188", "Prometheus does not"),
    Mistake(f"{TEMPLATES}/cluster.yaml", "policyTypes: [Ingress]", "policyTypes: [Egress]", "lets anybody in"),
    Mistake(f"{TEMPLATES}/cluster.yaml", "  policyTypes: [Ingress]\n  ingress:", "  policyTypes: [Ingress]\n  egress:", "does not get in"),
)
def a_cluster_lets_in_whom_it_should(tree):
    """Of CloudNativePG: the processes, the migration and the other regions at Postgres; the operator and Prometheus where they ask."""
    listed = tree.yaml("regions.yaml")["regions"]
    for way, region, objects in ways(tree):
        if not of_kind(objects, "Cluster"):
            continue
        policy = the(objects, "NetworkPolicy", f"godwit-{region}")["spec"]
        if policy["policyTypes"] != ["Ingress"]:
            yield f"{way}: the policy of its Postgres lets anybody in"
        labels = {who.split("-")[1] if "-" in who else "process": meta["labels"] for who, meta, _ in pods(objects)}
        own = {"labels": {"cnpg.io/cluster": f"godwit-{region}"}, "namespace": None}
        callers = {
            "a process": ({"labels": labels["process"], "namespace": None}, {5432}),
            "the migration": ({"labels": labels["migrate"], "namespace": None}, {5432}),
            "another instance": (own, {5432}),
            "the operator": (OPERATOR, {5432, 8000}),
            "Prometheus": (PROMETHEUS, {9187}),
            "the test": ({"labels": labels["test"], "namespace": None}, set()),
            "a stranger": (NOBODYS, set()),
            "a neighbour": (NEIGHBOUR, set()),
            **{name: ({"address": first_address(one["network"])}, {5432}) for name, one in listed.items()},
        }
        for who, (caller, wanted) in callers.items():
            for port in [5432, 8000, 9187]:
                gets = allowed(policy.get("ingress", []), "from", caller, port, {})
                if gets != (port in wanted):
                    yield f"{way}: {who} {'gets in' if gets else 'does not get in'} to {port}"


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
