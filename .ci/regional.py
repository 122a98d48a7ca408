"""What `make regions` writes of the chart and of k8s/: values, schema and table of the chart, and the manifests as the
chart renders them.

The manifests are split by what they are: k8s/base has what is the same in every region, and the overlay of a region adds what is its
own. No overlay takes anything back, so that base and overlay can each be read by itself.
"""

import json
import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).parents[1]
CHART = ROOT / "helm" / "godwit"
NAMESPACE = "godwit"
# Settings that the chart writes itself, of its other values.
OWN = re.compile(
    r"region|regions\..*|cluster\..*|server\.(public|internal|ops)_addr|server\.internal_tls\..*"
    r"|database\.(read_|owner_|control_)?url|redis\.url"
    r"|identity\.password\.pepper.*|identity\.session\.mac_key.*|failover\.(control|global_database)"
)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MONITORING = ["monitoring.coreos.com/v1/ServiceMonitor", "monitoring.coreos.com/v1/PrometheusRule"]


class Dumper(yaml.SafeDumper):
    """As people write it: lists indented, texts of several lines as blocks."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data):
        return True


def text_of(dumper, text):
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, text_of)


def dump(*documents):
    return "---\n".join(
        yaml.dump(document, Dumper=Dumper, sort_keys=False, width=120, allow_unicode=True) for document in documents
    )


def merged(*layers):
    """Values over values, as Helm lays them."""
    result = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def rendered(values, chart=CHART, **options):
    """The objects that the chart gives, and the text of its notes."""
    # Here, because the Go runtime in it does not survive a fork, and tests/deploy forks.
    import helm_python
    from helm_python import _native

    asked = {"name": "godwit", "namespace": NAMESPACE, "kube_version": "v1.34.0", **options}
    with helm_python.Chart.load(str(chart)) as loaded:
        answer = _native.call_string("helm_render", loaded._raw(), json.dumps(values), json.dumps(asked))
    files = json.loads(answer)
    notes = "".join(text for path, text in files.items() if path.endswith("NOTES.txt"))
    objects = [
        one
        for path, text in sorted(files.items())
        if path.endswith(".yaml")
        for one in yaml.load_all(text, Loader=LOADER)
        if one
    ]
    return objects, notes


def region_values(listed, made):
    """values/REGION.yaml: which regions there are, which one this is, and how it is reached."""
    domain = listed["domain"]
    regions = {
        name: {
            "internalUrl": f"https://{name}.internal.{domain}:9081",
            "publicUrl": f"https://{name}.{domain}",
            "network": region["network"],
            "share": region["share"],
        }
        for name, region in listed["regions"].items()
    }
    for name in regions:
        values = {
            "region": name,
            "primaryRegion": listed["primary"],
            "regions": regions,
            "image": {"repository": f"registry.{domain}/godwit"},
            "public": {"hostnames": [f"{name}.{domain}", domain]},
            "externalSecrets": {"keyPrefix": f"godwit/{name}/"},
        }
        yield f"helm/godwit/values/{name}.yaml", f"# {made}\n{dump(values)}"


def settings_table(text):
    """docs/SETTINGS.md as (name, default) pairs; the names of sections are no settings."""
    for line in text.splitlines():
        row = re.match(r"\| `([a-zA-Z_.]+)` \| (`.*?`|required|none) \|", line)
        if row:
            yield row[1], row[2].strip("`")


def settings_schema():
    """The schema of `settings`: the names of docs/SETTINGS.md, and the types of their defaults."""
    schema = {"type": "object", "additionalProperties": False, "properties": {}}
    for name, default in settings_table((ROOT / "docs" / "SETTINGS.md").read_text()):
        if OWN.fullmatch(name):
            continue
        if default == "none":
            kind = {"type": "integer", "minimum": 0} if name.endswith("_max") else {"type": "string"}
        else:
            value = json.loads(default)
            kind = {
                bool: {"type": "boolean"},
                int: {"type": "integer", "minimum": 0},
                float: {"type": "number", "minimum": 0},
                str: {"type": "string"},
                list: {"type": "array", "items": {"type": "string"}},
            }[type(value)]
        *sections, last = name.split(".")
        place = schema
        for section in sections:
            empty = {"type": "object", "additionalProperties": False, "properties": {}}
            place = place["properties"].setdefault(section, empty)
        place["properties"][last] = kind
    return schema


def schema():
    """values.schema.json is written by hand but for the settings."""
    whole = json.loads((CHART / "values.schema.json").read_text())
    whole["$defs"]["settings"] = settings_schema()
    yield "helm/godwit/values.schema.json", json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def documented(text):
    """values.yaml as (path, default, what is said of it); None for what nothing is said of."""
    path, said, rows, inside = [], [], [], None
    for line in text.splitlines():
        depth = len(line) - len(line.lstrip())
        if inside is not None and (depth > inside or line.lstrip().startswith("- ")):
            continue
        inside = None
        if comment := re.match(r"\s*# ?(.*)", line):
            said = [comment[1][3:]] if comment[1].startswith("-- ") else said and [*said, comment[1]]
        elif key := re.match(r"\s*([A-Za-z0-9]+):\s*(.*)", line):
            path = [*path[: depth // 2], key[1]]
            rows.append((".".join(path), " ".join(said) or None))
            if said and not key[2]:
                # A value of several lines, told as a whole.
                inside = depth
            said = []
        else:
            said = []
    values = yaml.safe_load(text)
    for name, words in rows:
        value = values
        for part in name.split("."):
            value = value[part]
        yield name, value, words


def readme():
    """The table of the chart's README."""
    lines = ["| value | default | |", "|---|---|---|"]
    for name, value, words in documented((CHART / "values.yaml").read_text()):
        if words:
            default = json.dumps(value).replace("|", "\\|")
            lines.append(f"| `{name}` | `{default}` | {words.replace('|', chr(92) + '|')} |")
    text = (CHART / "README.md").read_text()
    begin, end = "<!-- Made by `make regions` from values.yaml. -->\n", "<!-- The end of what is made. -->\n"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    yield "helm/godwit/README.md", f"{before}{begin}\n{chr(10).join(lines)}\n\n{end}{after}"


def plain(thing):
    """An object without what Helm alone has to say of it."""
    of_helm = {"helm.sh/chart", "helm.sh/hook", "helm.sh/hook-weight", "helm.sh/hook-delete-policy"}
    if isinstance(thing, list):
        return [plain(one) for one in thing]
    if not isinstance(thing, dict):
        return thing
    kept = {
        key: plain(value)
        for key, value in thing.items()
        if key not in of_helm and (key, value) != ("app.kubernetes.io/managed-by", "Helm")
    }
    return {k: v for k, v in kept.items() if not (k == "annotations" and v == {})}


def key_of(thing):
    return f"{thing['kind'].lower()}-{thing['metadata']['name']}"


def is_hook(thing):
    return "helm.sh/hook" in thing["metadata"].get("annotations", {})


def is_watching(thing):
    """Whether it is for Prometheus or Grafana, which not every cluster has."""
    return thing["apiVersion"].startswith("monitoring.coreos.com/") or component(thing) == "dashboards"


def component(thing):
    return thing["metadata"]["labels"]["app.kubernetes.io/component"]


MISSING = object()


def common(things):
    """What all of them say."""
    first = things[0]
    if all(isinstance(thing, dict) for thing in things):
        shared = {
            key: common([thing[key] for thing in things]) for key in first if all(key in thing for thing in things)
        }
        return {key: value for key, value in shared.items() if value is not MISSING}
    return first if all(thing == first for thing in things) else MISSING


def beyond(thing, shared):
    """What `thing` says that `shared` does not."""
    own = {}
    for key, value in thing.items():
        if key not in shared:
            own[key] = value
        elif isinstance(value, dict) and (more := beyond(value, shared[key])):
            own[key] = more
    return own


def objects_of(region, extra=None, **options):
    """What the chart gives for `region`, with k8s/values.yaml over the region's own values."""
    of_region = yaml.safe_load((CHART / "values" / f"{region}.yaml").read_text())
    ours = yaml.safe_load((ROOT / "k8s" / "values.yaml").read_text())
    return rendered(merged(of_region, ours, extra or {}), **options)[0]


def kustomization(kind="Kustomization", **content):
    group = "v1alpha1" if kind == "Component" else "v1beta1"
    return {"apiVersion": f"kustomize.config.k8s.io/{group}", "kind": kind, **content}


def manifests(listed):
    """k8s/base, an overlay and a migration for each region, and what is for Prometheus and Grafana."""
    head = "# Made by `make regions` from helm/godwit and k8s/values.yaml: change it there.\n"
    names = list(listed["regions"])
    by_region = {
        name: {key_of(one): plain(one) for one in objects_of(name) if not is_hook(one) and not is_watching(one)}
        for name in names
    }
    keys = list(by_region[names[0]])
    same = all(list(objects) == keys for objects in by_region.values())
    assert same, "k8s/values.yaml: an object is of one region alone (as a Cluster is: use the chart, helm/godwit/README.md)"
    base = {key: common([by_region[name][key] for name in names]) for key in keys}
    for key, shared in base.items():
        yield f"k8s/base/{key}.yaml", head + dump(shared)
    listing = kustomization(resources=["namespace.yaml", *(f"{key}.yaml" for key in keys)])
    yield "k8s/base/kustomization.yaml", head + dump(listing)

    for name, objects in by_region.items():
        own = {}
        for key, thing in objects.items():
            if more := beyond(thing, base[key]):
                who = {"name": thing["metadata"]["name"], "namespace": NAMESPACE}
                own[key] = {
                    "apiVersion": thing["apiVersion"],
                    "kind": thing["kind"],
                    "metadata": {**who, **more.pop("metadata", {})},
                    **more,
                }
        for key, more in own.items():
            yield f"k8s/overlays/{name}/{key}.yaml", head + dump(more)
        overlay = kustomization(resources=["../../base"], patches=[{"path": f"{key}.yaml"} for key in own])
        yield f"k8s/overlays/{name}/kustomization.yaml", head + dump(overlay)

        whole = objects_of(name, {"migrations": {"mode": "syncWave"}})
        steps = [plain(one) for one in whole if component(one) == "migrate"]
        yield f"k8s/migrate/{name}/migrate.yaml", head + dump(*steps)
        yield f"k8s/migrate/{name}/kustomization.yaml", head + dump(kustomization(resources=["migrate.yaml"]))

    watching = [
        {key_of(one): plain(one) for one in objects_of(name, api_versions=MONITORING) if is_watching(one)}
        for name in names
    ]
    assert all(objects == watching[0] for objects in watching)
    for key, one in watching[0].items():
        yield f"k8s/components/monitoring/{key}.yaml", head + dump(one)
    listing = kustomization("Component", resources=[f"{key}.yaml" for key in watching[0]])
    yield "k8s/components/monitoring/kustomization.yaml", head + dump(listing)

    yield from colors(names, by_region[names[0]]["service-godwit"], head)
    for way in ["canary", "blue-green"]:
        for name in names:
            variant = kustomization(resources=[f"../../../overlays/{name}"], components=[f"../../../components/{way}"])
            yield f"k8s/rollouts/{way}/{name}/kustomization.yaml", head + dump(variant)
    yield "k8s/argocd/applicationset.yaml", head + dump(*application_set(listed))


COLORS = ["blue", "green"]
# What tells the pods of one colour from those of the other, and what the Service goes by.
COLOR = "godwit/color"


def colors(names, service, head):
    """Blue-green with kubectl alone: each region's overlay as one of two Deployments, and beside it a Service for that one's pods."""

    def operations(*listed):
        return dump([{"op": op, "path": path, "value": value} for op, path, value in listed])

    escaped = COLOR.replace("/", "~1")
    for color in COLORS:
        own = f"godwit-{color}"
        deployment = operations(
            ("replace", "/metadata/name", own),
            ("add", f"/spec/selector/matchLabels/{escaped}", color),
            ("add", f"/spec/template/metadata/labels/{escaped}", color),
        )
        scaler = operations(("replace", "/metadata/name", own), ("replace", "/spec/scaleTargetRef/name", own))
        # What leads clients to one of them is changed by a person, never by the way.
        who = {"name": "godwit", "namespace": NAMESPACE}
        gone = {"apiVersion": "v1", "kind": "Service", "metadata": who, "$patch": "delete"}
        patches = [
            {"target": {"kind": kind, "name": "godwit"}, "patch": patch, "options": {"allowNameChange": True}}
            for kind, patch in [("Deployment", deployment), ("HorizontalPodAutoscaler", scaler)]
        ]
        component = kustomization("Component", resources=["service.yaml"], patches=[*patches, {"patch": dump(gone)}])
        yield f"k8s/components/colors/{color}/kustomization.yaml", head + dump(component)
        beside = {
            **{key: service[key] for key in ("apiVersion", "kind")},
            "metadata": {**who, "name": own, "labels": service["metadata"]["labels"]},
            "spec": {
                "type": "ClusterIP",
                "selector": {**service["spec"]["selector"], COLOR: color},
                "ports": service["spec"]["ports"],
            },
        }
        yield f"k8s/components/colors/{color}/service.yaml", head + dump(beside)
        for name in names:
            variant = kustomization(
                resources=[f"../../../overlays/{name}"], components=[f"../../../components/colors/{color}"]
            )
            yield f"k8s/colors/{color}/{name}/kustomization.yaml", head + dump(variant)


def stages(listed):
    """(stage, region) in the order of a rollout: the secondary with the fewest requests, the other ones, the primary."""
    share = {name: region["share"] for name, region in listed["regions"].items()}
    secondaries = sorted((name for name in share if name != listed["primary"]), key=lambda name: (share[name], name))
    ways = [("canary", name) for name in secondaries[:1]] + [("secondary", name) for name in secondaries[1:]]
    return [*ways, ("primary", listed["primary"])]


def application_set(listed):
    """For Argo CD: the schema where the primary is, then a region after the other, each once those before it are healthy."""
    primary = listed["primary"]
    elements = [
        {"application": "godwit-schema", "region": primary, "stage": "schema", "path": f"k8s/migrate/{primary}"}
    ]
    elements += [
        {"application": f"godwit-{name}", "region": name, "stage": stage, "path": f"k8s/overlays/{name}"}
        for stage, name in stages(listed)
    ]
    steps = list(dict.fromkeys(element["stage"] for element in elements))
    labels = yaml.safe_load((ROOT / "k8s" / "base" / "namespace.yaml").read_text())["metadata"]["labels"]
    repository = f"https://git.{listed['domain']}/godwit.git"
    # What the applications may do: one namespace of each cluster, and itself.
    project = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {"name": "godwit", "namespace": "argocd"},
        "spec": {
            "description": "Godwit, in every region's cluster.",
            "sourceRepos": [repository],
            "destinations": [{"name": name, "namespace": NAMESPACE} for name in listed["regions"]],
            "clusterResourceWhitelist": [{"group": "", "kind": "Namespace"}],
        },
    }
    applications = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "ApplicationSet",
        "metadata": {"name": "godwit", "namespace": "argocd"},
        "spec": {
            "goTemplate": True,
            "goTemplateOptions": ["missingkey=error"],
            "generators": [{"list": {"elements": elements}}],
            "strategy": {
                "type": "RollingSync",
                "rollingSync": {
                    "steps": [
                        {
                            "matchExpressions": [{"key": "godwit-stage", "operator": "In", "values": [step]}],
                            # One region at a time.
                            "maxUpdate": 1,
                        }
                        for step in steps
                    ]
                },
            },
            "template": {
                "metadata": {"name": "{{ .application }}", "labels": {"godwit-stage": "{{ .stage }}"}},
                "spec": {
                    "project": "godwit",
                    "source": {
                        "repoURL": repository,
                        "targetRevision": "HEAD",
                        "path": "{{ .path }}",
                    },
                    "destination": {"name": "{{ .region }}", "namespace": NAMESPACE},
                    "syncPolicy": {
                        "syncOptions": ["CreateNamespace=true", "ServerSideApply=true"],
                        # The schema comes before the overlay that has the namespace.
                        "managedNamespaceMetadata": {"labels": labels},
                    },
                },
            },
        },
    }
    return project, applications
