"""What the checks of the chart and of the manifests look at: the chart, rendered for every region in each of the ways it
can be used, and words for what is in it.
"""

import functools
import json
import pathlib
import re
import shutil
import sys

import yaml

from judge import ROOT, Skipped

sys.path.insert(0, str(ROOT / ".ci"))
import regional  # noqa: E402

HERE = pathlib.Path(__file__).parent
KUBERNETES = ["1.30", "1.32", "1.34"]
MONITORING = regional.MONITORING

SECRET = {"secretName": "more", "key": "one"}
# The agent, which the image has not: a container before the server's brings it.
AGENT = {
    "settings": {"failover": {"agent": ["/agent/godwit-agent", "--host", "10.16.8.20"]}},
    "extraVolumes": [
        {"name": "agent", "emptyDir": {"sizeLimit": "32Mi"}},
        {"name": "agent-key", "secret": {"secretName": "godwit-agent", "defaultMode": 0o440}},
    ],
    "extraVolumeMounts": [
        {"name": "agent", "mountPath": "/agent", "readOnly": True},
        {"name": "agent-key", "mountPath": "/etc/godwit-agent", "readOnly": True},
    ],
    "extraInitContainers": [
        {
            "name": "agent",
            "image": "registry.godwit.example/godwit-agent:1",
            "command": ["cp", "/godwit-agent", "/agent/"],
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "32Mi"}},
            "volumeMounts": [{"name": "agent", "mountPath": "/agent"}],
        }
    ],
}
GITOPS = {
    "externalSecrets": {"enabled": True, "storeRef": {"name": "store"}},
    "migrations": {"mode": "syncWave"},
    "public": {"exposure": "gateway", "service": {"annotations": {"a": "b"}}},
    "gateway": {"parentRefs": [{"name": "public", "namespace": "gateways"}]},
    "internal": {
        "tls": {"issuer": {"name": "regions"}},
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    },
    "monitoring": {"mode": "always", "runbookUrlPrefix": "https://git.example/godwit/blob/main/"},
}
# With everything that a value can ask for besides.
FULL = {
    "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]},
    "secrets": {
        "revision": "2",
        "databaseControlUrl": {"secretName": "godwit-control"},
        "passwordPeppers": {"current": "p1", "keys": {"p1": SECRET}},
        "macKeys": {"current": "m1", "keys": {"m1": SECRET, "m2": SECRET}},
    },
    "settings": {
        "failover": {"durability": "quorum", "automatic": True},
        "routing": {"breaker": {"window_ms": 1000000}},
        "server": {"drain_seconds_max": 25},
        "telemetry": {"otlp_endpoint": "http://collector.tracing:4318/v1/traces", "sample_ratio": 0.5},
        "limits": {"trusted_proxies": ["10.0.0.1", "10.0.0.2"]},
    },
    "database": {"authority": {"secretName": "godwit-database-ca"}, "peers": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]},
    "redis": {"peers": [{"ipBlock": {"cidr": "10.0.1.0/24"}}]},
    "networkPolicy": {
        "public": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
        "internal": [{"ipBlock": {"cidr": "10.0.2.0/24"}}],
        "otlp": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tracing"}}}],
        "egress": [{"to": [{"ipBlock": {"cidr": "2001:db8::/64"}}], "ports": [{"port": 80}]}],
    },
    "autoscaling": {"enabled": False},
    "topologySpread": {"hardZone": "always"},
    "public": {"service": {"type": "LoadBalancer"}},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
    "priorityClassName": "high",
    "podAnnotations": {"checksum/ours": "b"},
    "serviceAccount": {"annotations": {"a": "b"}},
    "bind": "[::]",
}
CLOUDNATIVEPG = {
    "database": {"mode": "cloudnativepg"},
    "migrations": {"mode": "syncWave"},
    "monitoring": {"mode": "never"},
    "public": {"exposure": "ingress"},
    "cloudnativepg": {
        "imageName": "postgres:17",
        "storage": {"size": "10Gi"},
        "walStorage": {"size": "8Gi"},
        "parameters": {"work_mem": "8MB"},
        "backup": {"objectStore": "backups"},
    },
}
CONTROL = {"secrets": {"databaseControlUrl": {"secretName": "godwit-control"}}}
AWS = regional.merged(CONTROL, {"networkPolicy": {"aws": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}})


def values(tree, region, *layers):
    """What helm is given: the region's file, and `layers` over it."""
    of_region = tree.yaml(f"helm/godwit/values/{region}.yaml")
    return regional.merged(of_region, *layers)


def regions(tree):
    return list(tree.yaml("regions.yaml")["regions"])


def render(tree, given, **options):
    """The objects, and the notes."""
    key = json.dumps(["render", given, options])
    return tree.once(key, lambda: regional.rendered(given, chart=tree.root / "helm/godwit", **options))


def for_each(tree, of_region):
    return {name: of_region(name) for name in regions(tree)}


def ways(tree):
    """(what it is called, region, objects) for every region and way to use the chart."""
    replication = for_each(tree, lambda name: {"replication": f"host={name} port=5432 user=godwit_replication"})
    layers = {
        "as it is": {},
        "by GitOps": GITOPS,
        "with everything": regional.merged(FULL, AGENT, {"regions": replication}),
        "on CloudNativePG": on_cloudnativepg(tree),
        **moved(tree),
    }
    for way, layer in layers.items():
        for region in regions(tree):
            objects, _ = render(tree, values(tree, region, layer), api_versions=MONITORING)
            yield f"{region}, {way}", region, objects


def on_cloudnativepg(tree):
    hosts = for_each(tree, lambda name: f"postgres.{name}.godwit.example")
    archives = for_each(tree, lambda name: f"archive-of-{name}")
    own = {"hosts": hosts, "bootstrapFrom": tree.yaml("regions.yaml")["primary"], "backup": {"archives": archives}}
    return regional.merged(CLOUDNATIVEPG, {"cloudnativepg": own})


def moved(tree):
    """The ways in which a platform moves the database, by its name."""

    def called(arn):
        return {"regions": for_each(tree, lambda name: {"database": f"arn:aws:rds:{name}:123456789012:{arn}"})}

    aurora = {"failover": {"control": "aurora", "globalDatabase": "godwit"}}
    return {
        "moved by cloudnativepg": regional.merged(
            on_cloudnativepg(tree), CONTROL, {"failover": {"control": "cloudnativepg"}}
        ),
        "moved by rds": regional.merged(AWS, called("db:godwit-1"), {"failover": {"control": "rds"}}),
        "moved by aurora": regional.merged(AWS, called("cluster:godwit-1"), aurora),
    }


def settings(meta, pod):
    """The text of the settings' file that a pod mounts; None where its volume leads nowhere."""
    for volume in pod["volumes"]:
        for item in volume.get("downwardAPI", {}).get("items", []):
            named = re.fullmatch(r"metadata\.annotations\['(.+)'\]", item["fieldRef"]["fieldPath"])
            if item["path"] == "godwit.toml" and named:
                return meta.get("annotations", {}).get(named[1])
    return None


def settings_of(objects):
    """The text of the settings' file of the processes that serve."""
    template = the(objects, "Deployment")["spec"]["template"]
    return settings(template["metadata"], template["spec"])


def of_kind(objects, *kinds):
    return [one for one in objects if one["kind"] in kinds]


def the(objects, kind, name="godwit"):
    """The one object of this kind and name."""
    return next(one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)


def names(thing):
    return f"{thing['kind']} {thing['metadata']['name']}"


def pods(objects):
    """(what runs it, its metadata, its specification) of every pod."""
    for one in objects:
        if one["kind"] == "Pod":
            yield names(one), one["metadata"], one["spec"]
        elif one["kind"] in ("Deployment", "Job", "Rollout") and "template" in one["spec"]:
            yield names(one), one["spec"]["template"]["metadata"], one["spec"]["template"]["spec"]


def containers(pod):
    return [*pod.get("initContainers", []), *pod["containers"]]


def matches(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def annotations(thing):
    return thing["metadata"].get("annotations", {})


def custom(thing):
    """Whether a kind is no part of Kubernetes."""
    group = thing["apiVersion"].rpartition("/")[0]
    return "." in group and (not group.endswith(".k8s.io") or group.startswith("gateway."))


def schema_of(version, name):
    from kubernetes_validate.utils import schema_contents

    return schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/{name}.json", version)


@functools.cache
def definitions(version):
    from referencing import Registry, Resource

    return (Resource.from_contents(schema_of(version, "_definitions")) @ Registry()).crawl()


@functools.cache
def validator(version, kind, api_version):
    """What kubernetes_validate.validate would judge by, made once: it reads a megabyte of definitions for each object. None: no such kind."""
    from jsonschema.validators import Draft202012Validator
    from referencing import Resource

    group, _, word = api_version.rpartition("/")
    try:
        schema = schema_of(version, "-".join([kind.lower(), *filter(None, [group.split(".")[0]]), word]))
    except FileNotFoundError:
        return None
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ definitions(version))


def invalid(objects, version):
    """What Kubernetes would refuse, of its own kinds; unknown fields too."""
    for thing in objects:
        judge = validator(version, thing["kind"], thing["apiVersion"])
        if judge is None:
            yield f"Kubernetes {version} has no {thing['kind']} in {thing['apiVersion']}"
            continue
        for error in judge.iter_errors(thing):
            yield f"Kubernetes {version}: {names(thing)}: {error.json_path}: {error.message}"


def unlike_their_models(tree, objects):
    """What the models of custom kinds say of them."""
    models = ROOT / "target" / "tools" / "models"
    if not shutil.which("node") or not (models / "node_modules").is_dir():
        raise Skipped("Node, or the models of target/tools/models, are missing: custom resources are not judged")
    judge = tree.root / "tests/deployment/models/judge.mjs"
    told = tree.run("node", str(judge), str(models), input=json.dumps(objects))
    if told.returncode != 0:
        return [f"judge.mjs: {told.stderr}"]
    return json.loads(told.stdout)


def unique(things):
    """Each once, however often it was rendered."""
    return list({json.dumps(thing, sort_keys=True): thing for thing in things}.values())


def documents(text):
    return [one for one in yaml.safe_load_all(text) if one]
