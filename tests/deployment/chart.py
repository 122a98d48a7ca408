"""The chart: what Helm makes of it for every region, judged as Kubernetes would, as the models of custom kinds would, and by what
Godwit needs.
"""

import itertools
import json
import re
import tomllib

import rendering
from judge import Mistake, check
from rendering import annotations, names, of_kind, pods, regional, the, ways

CHART = "helm/godwit"
TEMPLATES = f"{CHART}/templates"
VALUES = f"{CHART}/values.yaml"
SCHEMA = f"{CHART}/values.schema.json"


@check(
    Mistake(
        f"{TEMPLATES}/deployment.yaml", "progressDeadlineSeconds: 600", "progressDeadline: 600", "progressDeadline"
    ),
    Mistake(f"{TEMPLATES}/deployment.yaml", "containerPort: 9181", "containerPort: ops", "containerPort"),
    Mistake(
        f"{TEMPLATES}/horizontalpodautoscaler.yaml",
        "autoscaling/v2",
        "autoscaling/v3",
        "has no HorizontalPodAutoscaler",
    ),
    Mistake(f"{CHART}/Chart.yaml", "version: 0.1.0", "version: one", "lint"),
)
def is_valid(tree):
    """Strictly, for every region and way to use it, on each Kubernetes."""
    import helm_python

    for version, region in zip(rendering.KUBERNETES, itertools.cycle(rendering.regions(tree))):
        given = rendering.values(tree, region)
        try:
            told = helm_python.lint(str(tree.root / CHART), given, strict=True, kube_version=f"v{version}.0")
            wrong = told["errors"]
        except helm_python.HelmError as error:
            wrong = [error]
        if wrong:
            yield from (f"lint on Kubernetes {version}: {error}" for error in wrong)
            return
    seen = rendering.unique(one for _, _, objects in ways(tree) for one in objects if not rendering.custom(one))
    for version in rendering.KUBERNETES:
        yield from rendering.invalid(seen, version)


@check(
    Mistake(
        f"{TEMPLATES}/servicemonitor.yaml",
        '{{- if (include "godwit.wants"',
        '{{- if or true (include "godwit.wants"',
        "a ServiceMonitor, though",
    ),
    Mistake(
        f"{TEMPLATES}/prometheusrule.yaml",
        '{{- if (include "godwit.wants"',
        '{{- if and false (include "godwit.wants"',
        "no PrometheusRule, though",
    ),
    Mistake(
        f"{TEMPLATES}/poddisruptionbudget.yaml",
        "maxUnavailable: 1",
        "maxUnavailable: {{ ternary 1 2 .Release.IsInstall }}",
        "an upgrade on Kubernetes",
    ),
    Mistake(
        f"{TEMPLATES}/deployment.yaml",
        "revisionHistoryLimit: 5",
        'revisionHistoryLimit: {{ ternary 5 6 (semverCompare "<1.33" .Capabilities.KubeVersion.Version) }}',
        "an install on Kubernetes 1.34",
    ),
)
def is_the_same_wherever_it_goes(tree):
    """For every region as installed and upgraded, on each Kubernetes; with the kinds of others where the cluster knows them."""
    for region in rendering.regions(tree):
        given = rendering.values(tree, region)
        for known in [[], rendering.MONITORING]:
            first = None
            for version, upgrade in itertools.product(rendering.KUBERNETES, [False, True]):
                options = {"is_upgrade": upgrade, "kube_version": f"v{version}.0", "api_versions": known}
                objects, _ = rendering.render(tree, given, **options)
                first = first or objects
                if objects != first:
                    yield f"{region}: it is another in {'an upgrade' if upgrade else 'an install'} on Kubernetes {version}"
            for kind in ["ServiceMonitor", "PrometheusRule"]:
                there = bool(of_kind(first, kind))
                if there and not known:
                    yield f"{region}: a {kind}, though the cluster does not know it"
                if known and not there and (kind == "ServiceMonitor" or tree.files(f"{CHART}/rules/*.yaml")):
                    yield f"{region}: no {kind}, though the cluster knows it"


@check(
    Mistake(
        f"{TEMPLATES}/servicemonitor.yaml", "path: /metrics", "paht: /metrics", "/spec/endpoints/0/paht is no field"
    ),
    Mistake(f"{TEMPLATES}/httproute.yaml", "hostnames:", "hosts:", "/spec/hosts is no field"),
    Mistake(f"{TEMPLATES}/externalsecret.yaml", "creationPolicy: Owner", "creationPolicy: Owned", "creationPolicy"),
    Mistake(f"{TEMPLATES}/cluster.yaml", "instances: 1", "instances: one", "/spec/instances type"),
    Mistake(f"{TEMPLATES}/certificate.yaml", "issuerRef:", "issuer:", "issuerRef"),
    Mistake(
        f"{TEMPLATES}/cluster.yaml",
        "postgresql.cnpg.io/v1\nkind: ScheduledBackup",
        "postgresql.cnpg.io/v2\nkind: ScheduledBackup",
        "no model",
    ),
)
def custom_kinds_are_as_their_models(tree):
    """What other projects define has the fields that they define, with their types."""
    seen = rendering.unique(one for _, _, objects in ways(tree) for one in objects if rendering.custom(one))
    missing = {"Certificate", "Cluster", "ExternalSecret", "HTTPRoute", "ScheduledBackup", "ServiceMonitor"}
    missing -= {one["kind"] for one in seen}
    yield from (f"no way to use the chart has a {kind}" for kind in sorted(missing))
    yield from rendering.unlike_their_models(tree, seen)


@check(
    Mistake(f"{TEMPLATES}/_capacity.tpl", "(add $own $largest)", "$own", "cannot take over"),
    Mistake(f"{TEMPLATES}/_capacity.tpl", "min: {{ max 2 $rest }}", "min: 2", "at rest"),
    Mistake(
        f"{TEMPLATES}/deployment.yaml",
        "{{- if not .Values.autoscaling.enabled }}",
        "{{- if .Values.autoscaling.enabled }}",
        "replicas",
    ),
    Mistake(f"{TEMPLATES}/deployment.yaml", "nodeTaintsPolicy: Honor", "nodeTaintsPolicy: Ignore", "a zone that is down"),
    Mistake(f"{TEMPLATES}/poddisruptionbudget.yaml", "maxUnavailable: 1", "maxUnavailable: 2", "PodDisruptionBudget"),
    Mistake(
        VALUES,
        "podDisruptionBudget:\n  # -- Whether drains of nodes take one process at a time.\n  enabled: true",
        "podDisruptionBudget:\n  # -- Whether drains of nodes take one process at a time.\n  enabled: false",
        "no PodDisruptionBudget",
    ),
    Mistake(
        f"{TEMPLATES}/deployment.yaml",
        'eq (include "godwit.role" .) "primary"',
        'eq (include "godwit.role" .) "secondary"',
        "zone",
    ),
)
def each_region_carries_the_loss_of_another(tree):
    """Any one region's requests can go to any one other; a drain leaves all but one; zones are spread over, and kept to by the primary."""
    listed = tree.yaml("regions.yaml")
    share = {name: region["share"] for name, region in listed["regions"].items()}
    everything = tree.yaml(VALUES)["autoscaling"]["replicasForAllRegions"]
    most = {}
    for region in share:
        objects, _ = rendering.render(tree, rendering.values(tree, region))
        deployment, scaler = the(objects, "Deployment")["spec"], the(objects, "HorizontalPodAutoscaler")["spec"]
        if "replicas" in deployment:
            yield f"{region}: the Deployment has replicas, which it and the HorizontalPodAutoscaler fight over"
        most[region] = scaler["maxReplicas"]
        if not max(2, share[region] * everything / 100) <= scaler["minReplicas"] <= scaler["maxReplicas"]:
            yield f"{region}: {scaler['minReplicas']} processes do not carry its own share at rest"
        budgets = of_kind(objects, "PodDisruptionBudget")
        if not budgets:
            yield f"{region}: no PodDisruptionBudget"
        for one in budgets:
            if scaler["minReplicas"] - one["spec"]["maxUnavailable"] < 1 or one["spec"]["maxUnavailable"] != 1:
                yield f"{region}: the PodDisruptionBudget takes {one['spec']['maxUnavailable']} of {scaler['minReplicas']}"
        spread = {
            one["topologyKey"]: one["whenUnsatisfiable"]
            for one in deployment["template"]["spec"]["topologySpreadConstraints"]
        }
        if any(one.get("nodeTaintsPolicy") != "Honor" for one in deployment["template"]["spec"]["topologySpreadConstraints"]):
            yield f"{region}: nodes of a zone that is down count for the spread"
        hard = "DoNotSchedule" if region == listed["primary"] else "ScheduleAnyway"
        if spread != {"topology.kubernetes.io/zone": hard, "kubernetes.io/hostname": "ScheduleAnyway"}:
            yield f"{region}: spread over zone and host: {spread}"
    for lost in share:
        for other in share:
            if other != lost and most[other] * 100 < (share[other] + share[lost]) * everything:
                yield f"{other} cannot take over {lost}'s requests: at most {most[other]} processes"


@check(
    Mistake(f"{TEMPLATES}/migrate.yaml", '"weight" -10', '"weight" 0', "before"),
    Mistake(
        f"{TEMPLATES}/_migrate.tpl",
        '"serviceAccount" "default"',
        '"serviceAccount" (include "godwit.name" .)',
        "ServiceAccount",
    ),
    Mistake(f"{TEMPLATES}/_migrate.tpl", "pre-install,pre-upgrade", "post-install,post-upgrade", "pre-install"),
    Mistake(f"{TEMPLATES}/migrate.yaml", '"wave" -1)', '"wave" 1)', "wave"),
    Mistake(f"{TEMPLATES}/externalsecret.yaml", 'sync-wave: "-3"', 'sync-wave: "0"', "wave"),
    Mistake(
        f"{TEMPLATES}/migrate.yaml",
        "-{{ $spec | sha256sum | trunc 8 }}",
        "",
        "goes by one name",
    ),
    Mistake(
        f"{TEMPLATES}/migrate.yaml", '{{- if ne .Values.migrations.mode "external" }}', "{{- if true }}", "external"
    ),
    Mistake(f"{TEMPLATES}/externalsecret.yaml", '"owner" true', '"owner" false', "godwit-owner"),
)
def the_schema_comes_first(tree):
    """The migration has what it needs before it runs, and runs before the processes; every Secret that a pod mounts is made."""
    for region in rendering.regions(tree):
        objects, _ = rendering.render(tree, rendering.values(tree, region))
        hooks = {names(one): one for one in objects if annotations(one).get("helm.sh/hook", "").startswith("pre-")}
        job = the(objects, "Job", "godwit-migrate")
        if annotations(job).get("helm.sh/hook") != "pre-install,pre-upgrade":
            yield f"{region}: the migration is no hook of pre-install and pre-upgrade"
        weight = {name: int(annotations(one)["helm.sh/hook-weight"]) for name, one in hooks.items()}
        needed = ["NetworkPolicy godwit-migrate"]
        pod = job["spec"]["template"]["spec"]
        if pod["serviceAccountName"] != "default":
            needed.append(f"ServiceAccount {pod['serviceAccountName']}")
        for name in needed:
            if name not in hooks:
                yield f"{region}: the migration needs {name}, which is no hook"
            elif weight[name] >= weight.get("Job godwit-migrate", 0):
                yield f"{region}: {name} is not there before the migration"

        objects, _ = rendering.render(tree, rendering.values(tree, region, rendering.GITOPS))
        wave = lambda one: int(annotations(one).get("argocd.argoproj.io/sync-wave", 0))  # noqa: E731
        [job] = of_kind(objects, "Job")
        before = of_kind(objects, "ExternalSecret")
        ordered = [
            *map(wave, before),
            wave(the(objects, "NetworkPolicy", "godwit-migrate")),
            wave(job),
            wave(the(objects, "Deployment")),
        ]
        if not before or not max(ordered[: len(before)]) < ordered[-3] < ordered[-2] < ordered[-1]:
            yield f"{region}: the waves of secrets, network, migration and processes are {ordered}"
        if any("helm.sh/hook" in annotations(one) for one in objects if one["kind"] == "Job"):
            yield f"{region}: in waves, the migration is a hook all the same"
        made = {one["spec"]["target"]["name"] for one in before} | {
            one["spec"]["secretName"] for one in of_kind(objects, "Certificate")
        }
        yield from (f"{region}: nothing makes the Secret {name}" for name in sorted(mounted(objects) - made))
        other, _ = rendering.render(tree, rendering.values(tree, region, rendering.GITOPS, {"image": {"tag": "9.9.9"}}))
        if of_kind(other, "Job")[0]["metadata"]["name"] == job["metadata"]["name"]:
            yield f"{region}: the migration of each version goes by one name, and a Job cannot be changed"

        objects, _ = rendering.render(tree, rendering.values(tree, region, {"migrations": {"mode": "external"}}))
        if of_kind(objects, "Job"):
            yield f"{region}: a migration, though it is external"


def mounted(objects):
    """The Secrets that pods mount."""
    found = set()
    for _, _, pod in pods(objects):
        for volume in pod["volumes"]:
            sources = volume.get("projected", {}).get("sources", [])
            found |= {source["secret"]["name"] for source in sources if "secret" in source}
            found |= {volume["secret"]["secretName"]} if "secret" in volume else set()
    return found


# What is refused: values over those of a region, and what is said of them.
CNPG = {"database": {"mode": "cloudnativepg"}, "migrations": {"mode": "external"}}
BARE = {"imageName": "a", "storage": {"size": "1Gi"}, "bootstrapFrom": "us-east-1"}
REFUSED = {
    "region is not one of": {"region": "mars-1"},
    "primaryRegion: mars-1 is not one of": {"primaryRegion": "mars-1"},
    "'/region'": {"region": ""},
    "'/image/repository'": {"image": {"repository": ""}},
    "additional properties 'replicaz' not allowed": {"replicaz": 3},
    "additional properties 'hold_ms' not allowed": {"settings": {"routing": {"hold_ms": 3}}},
    "'/settings/routing/hold_ms_max': got string, want integer": {"settings": {"routing": {"hold_ms_max": "long"}}},
    "additional properties 'url' not allowed": {"settings": {"redis": {"url": "redis://:word@redis"}}},
    "'/secrets/redisUrl/secretName'": {"secrets": {"redisUrl": {"secretName": "redis://:word@redis"}}},
    "additional properties 'value' not allowed": {"secrets": {"redisUrl": {"value": "redis://:word@redis"}}},
    "'/regions/eu-west-1/replication'": {"regions": {"eu-west-1": {"replication": "host=a password=b"}}},
    "'/replicas': minimum": {"autoscaling": {"enabled": False}, "replicas": 1},
    "'/autoscaling/minReplicas'": {"autoscaling": {"minReplicas": 1}},
    "minReplicas is 20, more than maxReplicas": {"autoscaling": {"minReplicas": 20}},
    "settings.server.workers: must be a number": {"settings": {"server": {"workers": 0}}},
    "resources.requests.cpu: is missing": {"resources": {"requests": {"cpu": None}}},
    "are needed to take over": {"autoscaling": {"maxReplicas": 7}},
    "the shares come to": {"regions": {"eu-west-1": {"share": 31}}},
    "'/gateway/parentRefs': minItems": {"public": {"exposure": "gateway"}},
    "'/public/hostnames': minItems": {"public": {"exposure": "ingress", "hostnames": []}},
    "'/public/exposure'": {"public": {"exposure": "both"}},
    "'/externalSecrets/storeRef/name'": {"externalSecrets": {"enabled": True}, "migrations": {"mode": "external"}},
    "'/migrations/mode'": {"externalSecrets": {"enabled": True, "storeRef": {"name": "store"}}},
    "'/cloudnativepg/imageName'": CNPG,
    "'/settings/failover/durability'": {**CNPG, "settings": {"failover": {"durability": "quorum"}}},
    "cloudnativepg.hosts.": {**CNPG, "cloudnativepg": BARE},
    "'/cloudnativepg/bootstrapFrom'": {**CNPG, "cloudnativepg": {**BARE, "bootstrapFrom": ""}},
    "terminationGracePeriodSeconds: must be 40 at least": {"terminationGracePeriodSeconds": 39},
    "'/networkPolicy/aws/0/ipBlock/cidr'": {"networkPolicy": {"aws": [{"ipBlock": {"cidr": "10.0.0.256/24"}}]}},
    "'/regions/eu-west-1/network'": {"regions": {"eu-west-1": {"network": "10.0.0.0/33"}}},
    "'/monitoring/labels/release'": {"monitoring": {"labels": {"release": "not a label"}}},
    "'of a/b' does not match": {"podAnnotations": {"of a/b": "c"}},
    "must begin with http://": {"internal": {"tls": {"enabled": False}}},
    "replication: is missing": {"secrets": {"databaseControlUrl": {"secretName": "godwit-control"}}},
    "secrets.envelopeKeys.current: k2 is not one": {"secrets": {"envelopeKeys": {"current": "k2"}}},
    "secrets.macKeys.current: is missing": {"secrets": {"macKeys": {"keys": {"m1": rendering.SECRET}}}},
    "settings.failover.agent: /agent/godwit-agent is in none of extraVolumeMounts": {**rendering.AGENT, "extraVolumeMounts": []},
    "agent: /agents/godwit-agent is in none": {**rendering.AGENT, "settings": {"failover": {"agent": ["/agents/godwit-agent"]}}},
    "additional properties 'hostPath' not allowed": {"extraVolumes": [{"name": "agent", "hostPath": {"path": "/"}}]},
    "'/extraVolumes/0/name'": {"extraVolumes": [{"name": "secrets", "emptyDir": {}}]},
    "additional properties 'valueFrom' not allowed": {
        "extraInitContainers": [{**rendering.AGENT["extraInitContainers"][0], "env": [{"name": "A", "value": "", "valueFrom": {}}]}]
    },
    "networkPolicy.otlp: is empty": {"settings": {"telemetry": {"otlp_endpoint": "http://collector:4318/v1/traces"}}},
}


def without(rule, file="_validate.tpl"):
    """A mistake: one rule of those that compare a value with another is never come to."""
    return Mistake(f"{TEMPLATES}/{file}", f"{{{{- fail {rule}", f"{{{{- $_ := print {rule}", "is taken")


@check(
    without('(printf "%s: %s is not one of regions'),
    without('(printf "regions: the shares'),
    without('(printf "regions.%s.internalUrl'),
    without('(printf "regions.%s.replication'),
    without('(printf "cloudnativepg.hosts'),
    without('(printf "secrets.%s.current: %s'),
    without('(printf "secrets.%s.current: is missing'),
    without('(printf "terminationGracePeriodSeconds'),
    without('(printf "autoscaling: minReplicas'),
    without('(printf "autoscaling.maxReplicas'),
    without('"networkPolicy.otlp'),
    without('(printf "settings.failover.agent: %s is in none', "_control.tpl"),
    Mistake(f"{TEMPLATES}/_control.tpl", '(printf "%s/" (trimSuffix "/" .mountPath))', ".mountPath", "'/agents/godwit-agent'"),
    Mistake(SCHEMA, '"config",\n                  "secrets",', '"config",', "'name': 'secrets'"),
    Mistake(
        SCHEMA,
        '"replicas": {\n            "minimum": 2',
        '"replicas": {\n            "minimum": 1',
        "{'autoscaling': {'enabled': False}, 'replicas': 1}",
    ),
    Mistake(SCHEMA, '"const": 1', '"const": 7', "{'autoscaling': {'minReplicas': 1}}"),
    Mistake(
        SCHEMA,
        '"parentRefs": {\n                    "minItems": 1',
        '"parentRefs": {\n                    "minItems": 0',
        "'exposure': 'gateway'",
    ),
    Mistake(SCHEMA, '"const": "quorum"', '"const": "all"', "quorum"),
    Mistake(
        f"{TEMPLATES}/_validate.tpl",
        "(add 5 $stopping | int) -}}",
        "(add 4 $stopping | int) -}}",
        "{'terminationGracePeriodSeconds': 39} is taken",
    ),
    Mistake(SCHEMA, "(3[0-2]|[12]?[0-9])", "[0-9]{1,2}", "10.0.0.0/33"),
    Mistake(SCHEMA, '"password\\\\s*="', '"pass word="', "host=a password=b"),
)
def values_that_make_no_sense_are_refused(tree):
    """Each by a sentence that says which."""
    region = "ap-south-1" if "ap-south-1" in rendering.regions(tree) else rendering.regions(tree)[-1]
    for words, layer in REFUSED.items():
        said = refusal(tree, rendering.values(tree, region, layer))
        words = words.replace("region is not", f"region: {layer.get('region')} is not")
        if said is None:
            yield f"{layer} is taken"
        elif words not in said:
            yield f"{layer} is refused by: {said}"


def refusal(tree, given):
    from helm_python import HelmError

    try:
        regional.rendered(given, chart=tree.root / CHART)
    except HelmError as error:
        return str(error)
    return None


@check(
    Mistake(SCHEMA, '"additionalProperties": false', '"additionalProperties": true', "is open"),
    Mistake(
        SCHEMA, '"revision": {\n          "type": "string"', '"revision": {\n          "type": "object"', "is open"
    ),
    Mistake(VALUES, "  # -- Its digest, `sha256:...`; used beside the tag when set.\n", "", "image.digest"),
    Mistake(VALUES, "# -- The PriorityClass.\n", "# -- The PriorityClass.\npriority: 1\n", "priority"),
    Mistake(f"{CHART}/Chart.yaml", 'appVersion: "0.1.0"', 'appVersion: "0.2.0"', "Cargo.toml"),
    Mistake("regions.yaml", "  ap-south-1:", "  ap-south-2:", "values/ap-south-1.yaml"),
)
def values_are_all_told(tree):
    """The schema is closed and knows every value; each has a comment; the program's version is Cargo.toml's; one file for each region."""
    schema = json.loads(tree.text(SCHEMA))
    for where, node in objects_of(schema):
        if node.get("additionalProperties") in (None, True):
            yield f"values.schema.json: {where} is open"
    known = schema["properties"]
    for name, value, words in regional.documented(tree.text(VALUES)):
        if words is None and not isinstance(value, dict):
            yield f"values.yaml: nothing is said of {name}"
        if name.split(".")[0] not in known:
            yield f"values.schema.json does not know {name}"
    told = tree.yaml(VALUES).keys() | {"global"}
    yield from (f"values.yaml does not have {name}" for name in sorted(known.keys() - told))
    version = tomllib.loads(tree.text("Cargo.toml"))["package"]["version"]
    if tree.yaml(f"{CHART}/Chart.yaml")["appVersion"] != version:
        yield f"Chart.yaml: appVersion is not {version}, as Cargo.toml has it"
    for file in tree.files(f"{CHART}/values/*.yaml"):
        if file.stem not in rendering.regions(tree):
            yield f"values/{file.name} is of no region"


def objects_of(node, where="", condition=False):
    """Every schema of an object but those that only ask whether another rule is to hold."""
    if isinstance(node, list):
        for index, one in enumerate(node):
            yield from objects_of(one, f"{where}/{index}", condition)
    elif isinstance(node, dict):
        if node.get("type") == "object" and not condition:
            yield where, node
        for key, one in node.items():
            yield from objects_of(one, f"{where}/{key}", condition or key == "if")


@check(
    Mistake(f"{TEMPLATES}/NOTES.txt", "promote {{ .Values.region }}", "promote REGION", "promote"),
    Mistake(
        f"{TEMPLATES}/NOTES.txt",
        '{{ if eq $role "primary" }}where the primary is',
        "{{ if true }}where the primary is",
        "role",
    ),
    Mistake(f"{TEMPLATES}/NOTES.txt", "names no Secret", "is missing", "control"),
    Mistake(f"{TEMPLATES}/tests/status.yaml", "args: [status,", "args: [health,", "asks"),
    Mistake(
        f"{TEMPLATES}/tests/status.yaml",
        'helm.sh/hook: test\n    helm.sh/hook-weight: "0"',
        'helm.sh/hook-weight: "0"',
        "test",
    ),
)
def it_says_what_it_is(tree):
    """The notes name the region's role and what to type to move the primary; `helm test` asks the program."""
    primary = tree.yaml("regions.yaml")["primary"]
    replication = {name: {"replication": f"host={name} port=5432"} for name in rendering.regions(tree)}
    control = {"secrets": {"databaseControlUrl": {"secretName": "godwit-control"}}, "regions": replication}
    for region in rendering.regions(tree):
        objects, notes = rendering.render(tree, rendering.values(tree, region, control))
        role = "is where the primary is" if region == primary else f"is a secondary; the primary is in {primary}"
        if f"{region} {role}" not in notes:
            yield f"{region}: the notes do not name its role: {notes}"
        typed = "switchover REGION" if region == primary else f"promote {region}"
        exec_ = f"kubectl --context {region} --namespace godwit exec deploy/godwit -- godwit"
        if f"{exec_} {typed} --config /etc/godwit/godwit.toml" not in notes:
            yield f"{region}: the notes do not tell {typed}: {notes}"
        _, without_control = rendering.render(tree, rendering.values(tree, region))
        if "names no Secret" not in without_control or "promote" in without_control:
            yield f"{region}: the notes do not say that there is no control: {without_control}"
        tests = [one for one in of_kind(objects, "Pod") if annotations(one).get("helm.sh/hook") == "test"]
        if len(tests) != 1:
            yield f"{region}: {len(tests)} pods are run by `helm test`"
        for one in tests:
            asked = one["spec"]["containers"][0]["args"]
            if asked != ["status", "--config", "/etc/godwit/godwit.toml", "--output", "json"]:
                yield f"{region}: the test asks {asked}"


@check(
    Mistake(f"{TEMPLATES}/cluster.yaml", "instances: 1", "instances: 3", "instances"),
    Mistake(
        f"{TEMPLATES}/cluster.yaml",
        "    primary: {{ $first }}\n",
        "    primary: {{ $self }}\n",
        "follows",
    ),
    Mistake(f"{TEMPLATES}/cluster.yaml", "inRoles: [godwit_write]", "inRoles: [godwit_read]", "godwit_writer"),
    Mistake(f"{TEMPLATES}/cluster.yaml", "inRoles: [godwit_read, pg_monitor]", "inRoles: [godwit_read]", "pg_monitor"),
    Mistake(
        f"{TEMPLATES}/_cluster.tpl",
        "max_connections: {{ .connections | quote }}",
        'max_connections: "100"',
        "connections",
    ),
    Mistake(f"{TEMPLATES}/cluster.yaml", "sslmode: verify-full", "sslmode: require", "verify-full"),
    Mistake(
        f"{TEMPLATES}/cluster.yaml", "get $cnpg.hosts .Values.region", 'get $cnpg.hosts "eu-west-1"', "certificate"
    ),
    Mistake(f"{TEMPLATES}/cluster.yaml", "{{- if ne $region $.Values.region }}", "{{- if true }}", "load balancer"),
    Mistake(f"{TEMPLATES}/cluster.yaml", "Prune=false,Delete=false", "Prune=true", "kept"),
    Mistake(f"{TEMPLATES}/_cluster.tpl", "wal_keep_size: 4GB", "wal_keep_size: 64MB", "keeps log for"),
    Mistake(f"{TEMPLATES}/_cluster.tpl", '"godwit.cluster.own" . | fromYaml) .more', '"godwit.cluster.own" . | fromYaml) dict', "work_mem"),
    Mistake(
        f"{TEMPLATES}/cluster.yaml",
        "      {{- with get $cnpg.backup.archives $region }}",
        "      {{- with get $cnpg.backup.archives $.Values.region }}",
        "from the archive",
    ),
    Mistake(f"{TEMPLATES}/cluster.yaml", "enablePDB: {{ $cnpg.podDisruptionBudget }}", "enablePDB: false", "drain"),
    Mistake(f"{TEMPLATES}/cluster.yaml", "externalTrafficPolicy: Local", "externalTrafficPolicy: Cluster", "by which address"),
)
def clusters_are_one_replica_cluster(tree):
    """On CloudNativePG: one instance in each region, which all agree whom to follow, with the roles of migrations/ and room for all processes."""
    listed = tree.yaml("regions.yaml")
    clusters = {
        region: the(objects, "Cluster", f"godwit-{region}")
        for way, region, objects in ways(tree)
        if way.endswith("on CloudNativePG")
    }
    most = {}
    for region in listed["regions"]:
        objects, _ = rendering.render(tree, rendering.values(tree, region))
        most[region] = the(objects, "HorizontalPodAutoscaler")["spec"]["maxReplicas"]
    room = {cluster["spec"]["postgresql"]["parameters"]["max_connections"] for cluster in clusters.values()}
    # Of each process 16 that write, 16 that read, 2 for each of 4 workers and 6 more (docs/RUNBOOK.md); two processes more while they are
    # replaced.
    if len(room) != 1 or int(next(iter(room))) < (max(most.values()) + 2) * 46:
        yield f"{room} connections are not enough for {most} processes, or not the same everywhere"
    first = f"godwit-{listed['primary']}"
    for region, cluster in clusters.items():
        spec = cluster["spec"]
        if spec["instances"] != 1:
            yield f"{region}: {spec['instances']} instances, and a position belongs to one"
        begun = "initdb" if region == listed["primary"] else "pg_basebackup"
        replica = {"self": f"godwit-{region}", "primary": first, "source": first}
        if spec["replica"] != replica or list(spec["bootstrap"]) != [begun]:
            yield f"{region} follows {spec['replica']}, begun by {list(spec['bootstrap'])}"
        elif begun == "pg_basebackup" and spec["bootstrap"][begun]["source"] != first:
            yield f"{region} follows {spec['replica']}, and is a copy of another"
        others = {one["name"]: one["connectionParameters"] for one in spec["externalClusters"]}
        if others.keys() != {f"godwit-{name}" for name in listed["regions"]}:
            yield f"{region} knows of {sorted(others)}"
        if any(one["sslmode"] != "verify-full" for one in others.values()):
            yield f"{region} does not connect with verify-full"
        if others[f"godwit-{region}"]["host"] not in spec["certificates"]["serverAltDNSNames"]:
            yield f"{region}: the others ask for a name that is not in its certificate"
        roles = {one["name"]: set(one.get("inRoles", [])) for one in spec["managed"]["roles"]}
        wanted = {"godwit_writer": {"godwit_write"}, "godwit_reader": {"godwit_read", "pg_monitor"}}
        for name, groups in wanted.items():
            if roles.get(name) != groups:
                yield f"{region}: {name} is in {roles.get(name)}, not in {sorted(groups)}"
        yield from (f"{region}: nothing makes {name}" for name in ["godwit_read", "godwit_write"] if name not in roles)
        if not spec.get("enablePDB"):
            yield f"{region}: a drain takes the one instance"
        if spec["postgresql"]["parameters"].get("work_mem") != rendering.CLOUDNATIVEPG["cloudnativepg"]["parameters"]["work_mem"]:
            yield f"{region}: work_mem is not as it was given"
        kept = re.fullmatch(r"(\d+)GB", spec["postgresql"]["parameters"].get("wal_keep_size", "0GB"))
        if not kept or int(kept[1]) < 4:
            yield f"{region}: keeps log for no region that is away, and no slot does"
        for one in spec["externalClusters"]:
            read = one.get("plugin", {}).get("parameters", {})
            if read != {"barmanObjectName": one["name"].replace("godwit-", "archive-of-"), "serverName": one["name"]}:
                yield f"{region}: what {one['name']} keeps no more is not read from the archive: {read}"
        [service] = spec["managed"]["services"]["additional"]
        ranges = set(service["serviceTemplate"]["spec"]["loadBalancerSourceRanges"])
        if service["serviceTemplate"]["spec"].get("externalTrafficPolicy") != "Local":
            yield f"{region}: the NetworkPolicy of its Postgres does not see by which address the others come"
        if ranges != {one["network"] for name, one in listed["regions"].items() if name != region}:
            yield f"{region}: the load balancer of its Postgres takes {sorted(ranges)}"
        kept = annotations(cluster)
        if kept.get("helm.sh/resource-policy") != "keep" or "Prune=false" not in kept.get(
            "argocd.argoproj.io/sync-options", ""
        ):
            yield f"{region}: the data is not kept when the release goes"
