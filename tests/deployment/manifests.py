"""The plain manifests: what kustomize builds of them, held to the chart, and the ways to roll them out."""

import json
import os
import pathlib
import re
import tempfile

import yaml

import rendering
from judge import Mistake, check
from promql import program
from rendering import documents, matches, names, of_kind, regional, the

OVERLAY = "k8s/overlays/eu-west-1"
BASE = "k8s/base"
ARGO = "k8s/argocd/applicationset.yaml"
ROLLOUTS = ["canary", "blue-green"]


def build(tree, place):
    """What `kubectl apply -k` would apply; `Broken` where it cannot."""

    def make():
        built = tree.run("kubectl", "kustomize", place)
        if built.returncode != 0:
            raise Broken(f"{place}: {built.stderr.strip()}")
        return documents(built.stdout)

    return tree.once(("kustomize", place), make)


class Broken(Exception):
    pass


def charted(tree, region, *layers, **options):
    """What the chart gives for `region` with the values of k8s/, without what is Helm's alone."""
    given = rendering.values(tree, region, tree.yaml("k8s/values.yaml"), *layers)
    objects, _ = rendering.render(tree, given, **options)
    return [regional.plain(one) for one in objects if not regional.is_hook(one)]


@check(
    Mistake(f"{BASE}/deployment-godwit.yaml", "path: /api/health/liveness", "path: /health", "Deployment godwit"),
    Mistake(
        f"{OVERLAY}/horizontalpodautoscaler-godwit.yaml",
        "maxReplicas: ",
        "maxReplicas: 1",
        "HorizontalPodAutoscaler godwit",
    ),
    Mistake(
        f"{BASE}/poddisruptionbudget-godwit.yaml", "name: godwit\n", "name: godwit-api\n", "PodDisruptionBudget godwit"
    ),
    Mistake(
        "helm/godwit/templates/deployment.yaml",
        "revisionHistoryLimit: 5",
        "revisionHistoryLimit: 6",
        "Deployment godwit",
    ),
    Mistake(f"{BASE}/kustomization.yaml", "  - poddisruptionbudget-godwit.yaml\n", "", "PodDisruptionBudget godwit is missing"),
    Mistake("k8s/migrate/us-east-1/migrate.yaml", "- migrate\n", "- status\n", "Job godwit-migrate"),
    Mistake(
        "k8s/components/monitoring/servicemonitor-godwit.yaml",
        "path: /metrics",
        "path: /metric",
        "ServiceMonitor godwit",
    ),
    Mistake(f"{OVERLAY}/kustomization.yaml", "../../base", "../../bases", "eu-west-1: "),
)
def are_what_the_chart_renders(tree):
    """Object by object, in every region: an overlay, the migration, and what is for Prometheus and Grafana."""
    for region in rendering.regions(tree):
        whole = charted(tree, region, {"migrations": {"mode": "syncWave"}}, api_versions=rendering.MONITORING)
        watched = [one for one in whole if regional.is_watching(one)]
        served = [one for one in charted(tree, region) if not regional.is_watching(one)]
        steps = [one for one in whole if regional.component(one) == "migrate"]
        try:
            yield from differences(region, served, build(tree, f"k8s/overlays/{region}"))
            yield from differences(f"the migration of {region}", steps, build(tree, f"k8s/migrate/{region}"))
        except Broken as broken:
            yield f"{region}: {broken}"
            continue
    listed = tree.yaml("k8s/components/monitoring/kustomization.yaml")["resources"]
    found = [tree.yaml(f"k8s/components/monitoring/{name}") for name in listed]
    yield from differences("monitoring", watched, found)


def differences(where, rendered, built):
    built = {names(one): one for one in built if one["kind"] != "Namespace"}
    rendered = {names(one): one for one in rendered}
    for name in sorted(rendered.keys() | built.keys()):
        if name not in built:
            yield f"{where}: {name} is missing"
        elif name not in rendered:
            yield f"{where}: {name} is none of the chart's"
        elif built[name] != rendered[name]:
            path = next(apart(rendered[name], built[name]))
            yield f"{where}: {name} is not as the chart renders it: {path}"


def apart(one, other, at=""):
    """Where two differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if one.get(key) != other.get(key):
                yield from apart(one.get(key), other.get(key), f"{at}/{key}")
    else:
        yield f"{at}: {json.dumps(one)[:200]}, and here {json.dumps(other)[:200]}"


@check(
    Mistake(f"{BASE}/deployment-godwit.yaml", "progressDeadlineSeconds", "progressDeadline", "progressDeadline"),
    Mistake(
        "k8s/migrate/us-east-1/migrate.yaml", "apiVersion: batch/v1", "apiVersion: batch/v2", "has no Job in batch/v2"
    ),
)
def are_valid(tree):
    """All that is built, strictly, on each Kubernetes."""
    seen = [one for one in built(tree) if not rendering.custom(one)]
    for version in rendering.KUBERNETES:
        yield from rendering.invalid(seen, version)


@check(
    Mistake(
        "k8s/components/canary/rollout.yaml",
        "scaleDown: never",
        "scaledown: never",
        "/spec/workloadRef/scaledown is no field",
    ),
    Mistake("k8s/components/blue-green/rollout.yaml", "activeService: godwit", "active: godwit", "activeService"),
    Mistake(
        "k8s/components/analysis/analysistemplate.yaml",
        "failureLimit: 1",
        "failuresMax: 1",
        "failuresMax is no field",
    ),
    Mistake(ARGO, "project: godwit", "projects: godwit", "projects is no field"),
    Mistake(ARGO, "kind: ApplicationSet", "kind: ApplicationSets", "no model"),
)
def custom_kinds_are_as_their_models(tree):
    """What others define has the fields that they define, with their types: Argo CD's and Argo Rollouts' kinds."""
    seen = [*built(tree), *documents(tree.text(ARGO))]
    yield from rendering.unlike_their_models(tree, rendering.unique(one for one in seen if rendering.custom(one)))


def built(tree):
    """All that any kustomization of ours builds, each object once."""
    regions = rendering.regions(tree)
    places = [f"k8s/{what}/{region}" for what in ["overlays", "migrate"] for region in regions]
    # Of a region's own they have what its overlay has.
    places += [f"k8s/rollouts/{way}/{regions[0]}" for way in ROLLOUTS]
    places += [f"k8s/colors/{color}/{regions[0]}" for color in regional.COLORS]
    return rendering.unique(one for place in places for one in build(tree, place))


@check(
    Mistake(f"{BASE}/namespace.yaml", "enforce: restricted", "enforce: baseline", "restricted"),
    Mistake(f"{BASE}/namespace.yaml", "name: godwit", "name: default", "namespace"),
    Mistake(f"{BASE}/kustomization.yaml", "namespace.yaml", "service-godwit.yaml", "namespace"),
    Mistake(
        ARGO,
        "pod-security.kubernetes.io/enforce: restricted",
        "pod-security.kubernetes.io/enforce: privileged",
        "Argo CD",
    ),
)
def pods_are_held_to_the_restricted_profile(tree):
    """By the namespace that all of it is in, whoever makes it."""
    enforce = "pod-security.kubernetes.io/enforce"
    for region in rendering.regions(tree):
        try:
            objects = build(tree, f"k8s/overlays/{region}")
        except Broken as broken:
            yield f"the namespace: {broken}"
            continue
        spaces = {one["metadata"]["name"]: one["metadata"]["labels"] for one in of_kind(objects, "Namespace")}
        inside = {one["metadata"].get("namespace") for one in objects if one["kind"] != "Namespace"}
        if inside != spaces.keys():
            yield f"{region}: the namespace {sorted(spaces)} is not where its objects are: {inside}"
        for name, labels in spaces.items():
            if labels.get(enforce) != "restricted":
                yield f"{region}: {name} is not held to restricted"
    made = the(documents(tree.text(ARGO)), "ApplicationSet")["spec"]["template"]["spec"]["syncPolicy"]
    if made["managedNamespaceMetadata"]["labels"].get(enforce) != "restricted":
        yield "Argo CD makes the namespace without restricted"


@check(
    Mistake(
        "k8s/components/canary/rollout.yaml",
        "app.kubernetes.io/component: api\n  workloadRef",
        "app.kubernetes.io/component: web\n  workloadRef",
        "does not select",
    ),
    Mistake(
        "k8s/components/canary/rollout.yaml",
        "kind: Deployment\n    name: godwit",
        "kind: Deployment\n    name: api",
        "workloadRef",
    ),
    Mistake("k8s/components/canary/horizontalpodautoscaler.yaml", "kind: Rollout", "kind: Deployment", "scales"),
    Mistake(
        "k8s/components/blue-green/rollout.yaml",
        "previewService: godwit-preview",
        "previewService: preview",
        "Service preview",
    ),
    Mistake("k8s/components/canary/rollout.yaml", "templateName: godwit", "templateName: errors", "analysis errors"),
    Mistake("k8s/components/canary/rollout.yaml", "- name: prometheus", "- name: address", "prometheus"),
    Mistake("k8s/components/canary/rollout.yaml", "scaleDown: never", "scaleDown: onsuccess", "empties the region"),
    Mistake("k8s/components/blue-green/rollout.yaml", "  minReadySeconds: 35\n", "", "minReadySeconds"),
    Mistake("k8s/components/blue-green/rollout.yaml", "podTemplateHashValue: Latest", "podTemplateHashValue: Stable", "Latest"),
    Mistake(
        "k8s/components/analysis/analysistemplate.yaml",
        'pod=~"godwit-{{args.version}}-.+", role="primary"',
        'role="primary"',
        "old pods too",
    ),
    Mistake("k8s/components/analysis/analysistemplate.yaml", "-.+\"}[2m])) * 0", "-.+\"}[2m])) * 0 or vector(0)", "unseen"),
    Mistake(
        "k8s/components/analysis/analysistemplate.yaml",
        "godwit_replication_lag_seconds",
        "godwit_lag_seconds",
        "godwit_lag_seconds",
    ),
    Mistake("k8s/components/analysis/analysistemplate.yaml", ") > 0)", ") > )", "PromQL"),
    Mistake("k8s/components/canary/rollout.yaml", "maxUnavailable: 0", "maxUnavailable: 1", "maxUnavailable"),
)
def rollouts_stand_in_for_the_deployment(tree):
    """What a Rollout names is there: its Deployment, its Services, its analysis and every metric that this asks for."""
    import promql_parser

    region = rendering.regions(tree)[0]
    known = program(tree)
    for way in ROLLOUTS:
        objects = build(tree, f"k8s/rollouts/{way}/{region}")
        rollout = the(objects, "Rollout")["spec"]
        reference = rollout["workloadRef"]
        deployments = {one["metadata"]["name"]: one for one in of_kind(objects, reference["kind"])}
        if reference["name"] not in deployments:
            yield f"{way}: workloadRef {reference['name']} is not there"
        for one in deployments.values():
            if not matches(rollout["selector"]["matchLabels"], one["spec"]["template"]["metadata"]["labels"]):
                yield f"{way}: the Rollout does not select the Deployment's pods"
        target = the(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
        if (target["kind"], target["apiVersion"]) != ("Rollout", "argoproj.io/v1alpha1"):
            yield f"{way}: the HorizontalPodAutoscaler scales the {target['kind']}"
        services = {one["metadata"]["name"] for one in of_kind(objects, "Service")}
        strategy = rollout["strategy"].get("blueGreen", {})
        for name in [strategy[key] for key in ("activeService", "previewService") if key in strategy]:
            if name not in services:
                yield f"{way}: there is no Service {name}"
        # By itself the Deployment is ended when as many pods are there as the HorizontalPodAutoscaler has asked for by then: one.
        if reference.get("scaleDown") != "never":
            yield f"{way}: scaleDown {reference.get('scaleDown')} empties the region when the Rollout comes"
        for key in ["minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit"]:
            if rollout.get(key) != the(objects, "Deployment")["spec"][key]:
                yield f"{way}: {key} is {rollout.get(key)}, and the Deployment's another"
        if rollout["strategy"].get("canary", {}).get("maxUnavailable", 0) != 0:
            yield f"{way}: maxUnavailable takes pods away before there are others"
        analyses = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "AnalysisTemplate")}
        for used in analyses_of(rollout["strategy"]):
            given = {argument["name"]: argument for argument in used["args"]}
            if given.get("version", {}).get("valueFrom") != {"podTemplateHashValue": "Latest"}:
                yield f"{way}: an analysis is not of the Latest pods"
            for template in used["templates"]:
                if template["templateName"] not in analyses:
                    yield f"{way}: there is no analysis {template['templateName']}"
                    continue
                wanted = {argument["name"] for argument in analyses[template["templateName"]]["args"]}
                yield from (f"{way}: the analysis is not given {name}" for name in sorted(wanted - given.keys()))
        for template in analyses.values():
            for metric in template["metrics"]:
                query = metric["provider"]["prometheus"]["query"].replace("{{args.version}}", "HASH")
                try:
                    promql_parser.parse(query)
                except ValueError as error:
                    yield f"{way}: {metric['name']} is no PromQL: {error}"
                # The pods of a Rollout are named after it and the hash of their template.
                for name, asked in re.findall(r"\b(godwit_\w+)\{(.*?)\}[^}]", query):
                    if 'pod=~"godwit-HASH-.+"' not in asked:
                        yield f"{way}: {metric['name']}: {name} is asked of the old pods too"
                if "vector(" in query:
                    yield f"{way}: {metric['name']} is well while the pods are unseen"
                for name in sorted(set(re.findall(r"\bgodwit_\w+", query)) - set(known)):
                    yield f"{way}: {metric['name']}: the program has no {name}"


BLUE = "k8s/components/colors/blue/kustomization.yaml"


@check(
    Mistake(BLUE, "path: /spec/template/metadata/labels/godwit~1color", "path: /metadata/labels/godwit~1color", "its own pods"),
    Mistake(BLUE, "path: /spec/selector/matchLabels/godwit~1color", "path: /metadata/labels/godwit~1color", "another's"),
    Mistake(BLUE, "path: /spec/scaleTargetRef/name\n        value: godwit-blue", "path: /spec/scaleTargetRef/name\n        value: godwit-green", "scales"),
    Mistake(BLUE, "      $patch: delete\n", "", "leads clients"),
    Mistake("k8s/components/colors/blue/service.yaml", "    godwit/color: blue\n", "", "godwit-blue has the pods of"),
    Mistake("k8s/README.md", '{"godwit/color": "green"}', '{"godwit/colour": "green"}', "the Service has the pods of"),
    Mistake("k8s/colors/green/us-east-1/kustomization.yaml", "overlays/us-east-1", "overlays/eu-west-1", "another region"),
)
def colors_stand_beside_each_other(tree):
    """Two Deployments that share no pod; the Service leads to one of them by what the page says to type, and to nobody by what is applied;
    all else is the region's overlay.
    """
    switches = [json.loads(text) for text in re.findall(r"patch service godwit -p '(.*?)'", tree.text("k8s/README.md"))]
    for region in rendering.regions(tree):
        plain = {names(one): one for one in build(tree, f"k8s/overlays/{region}")}
        built = {color: build(tree, f"k8s/colors/{color}/{region}") for color in regional.COLORS}
        own = {color: of_kind(objects, "Deployment")[0]["spec"] for color, objects in built.items()}
        labels = {color: spec["template"]["metadata"]["labels"] for color, spec in own.items()}
        taken = lambda selector: {color for color in labels if matches(selector, labels[color])}  # noqa: B023, E731
        for color, objects in built.items():
            name = f"godwit-{color}"
            where = f"{region}, {color}"
            if taken(own[color]["selector"]["matchLabels"]) != {color}:
                yield f"{where}: the Deployment does not select its own pods, or another's too"
            scalers = [one["spec"]["scaleTargetRef"]["name"] for one in of_kind(objects, "HorizontalPodAutoscaler")]
            if scalers != [name]:
                yield f"{where}: what scales scales {scalers}"
            services = {one["metadata"]["name"]: one["spec"]["selector"] for one in of_kind(objects, "Service")}
            if "godwit" in services:
                yield f"{where}: to apply it leads clients to all pods"
            if taken(services[name]) != {color}:
                yield f"{where}: Service {name} has the pods of {sorted(taken(services[name]))}"
            if any(taken(services[shared]) != set(labels) for shared in ["godwit-internal", "godwit-ops"]):
                yield f"{where}: other regions, or Prometheus, do not reach both"
            for one in objects:
                if one["kind"] not in ("Deployment", "HorizontalPodAutoscaler") and names(one) != f"Service {name}":
                    if plain[names(one)] != one:
                        yield f"{where}: {names(one)} is of another region"
            if own[color]["template"]["spec"] != plain["Deployment godwit"]["spec"]["template"]["spec"]:
                yield f"{where}: its pods are those of another region"
        selector = plain["Service godwit"]["spec"]["selector"]
        led = [taken({**selector, **switch["spec"]["selector"]}) for switch in switches]
        if led != [{"blue"}, {"green"}, {"blue"}]:
            yield f"{region}: by what README.md says to type the Service has the pods of {led}"


def analyses_of(node):
    """Every analysis in a strategy."""
    if isinstance(node, list):
        for one in node:
            yield from analyses_of(one)
    elif isinstance(node, dict):
        if "templates" in node and "args" in node:
            yield node
        for one in node.values():
            yield from analyses_of(one)


@check(
    Mistake(
        ARGO,
        "region: us-east-1\n            stage: schema",
        "region: eu-west-1\n            stage: schema",
        "the schema",
    ),
    Mistake(ARGO, "stage: primary", "stage: canary", "the primary is not last"),
    Mistake(ARGO, "path: k8s/overlays/ap-south-1", "path: k8s/overlays/ap-south-2", "ap-south-2"),
    Mistake(ARGO, "          maxUpdate: 1", "          maxUpdate: 2", "at a time"),
    Mistake(
        "k8s/README.md",
        "apply -k k8s/overlays/ap-south-1",
        "apply -k k8s/overlays/us-east-1",
        "README.md: in the order",
    ),
    Mistake("k8s/README.md", "`components/monitoring/`", "`components/metrics/`", "components/metrics"),
    Mistake(f"{BASE}/kustomization.yaml", "  - networkpolicy-godwit.yaml\n", "", "no kustomization names"),
    Mistake("regions.yaml", "  ap-south-1:", "  ap-south-2:", "k8s/overlays/ap-south-1 is of no region"),
)
def regions_come_in_their_order(tree):
    """The schema where the primary is, then the secondaries one by one, the primary last: by Argo CD and by what the page says to type."""
    listed = tree.yaml("regions.yaml")
    primary, stages = listed["primary"], regional.stages(listed)
    order = [region for _, region in stages]
    spec = the(documents(tree.text(ARGO)), "ApplicationSet")["spec"]
    [generator] = spec["generators"]
    elements = generator["list"]["elements"]
    steps = spec["strategy"]["rollingSync"]["steps"]
    rank = {value: at for at, step in enumerate(steps) for one in step["matchExpressions"] for value in one["values"]}
    schema, *others = sorted(elements, key=lambda one: rank[one["stage"]])
    if (schema["region"], schema["stage"], schema["path"]) != (primary, "schema", f"k8s/migrate/{primary}"):
        yield f"the schema does not come first, where the primary is: {schema}"
    if others[-1]["region"] != primary or rank[others[-1]["stage"]] <= rank[others[-2]["stage"]]:
        yield "the primary is not last"
    if sorted(one["region"] for one in others) != sorted(order):
        yield f"the regions of a rollout are {[one['region'] for one in others]}"
    if any(step.get("maxUpdate") != 1 for step in steps):
        yield "more than one region at a time"
    rollouts = [{"path": f"k8s/rollouts/{way}/{region}"} for way in ROLLOUTS for region in order]
    for element in [*elements, *rollouts]:
        if not (tree.root / element["path"] / "kustomization.yaml").is_file():
            yield f"{element['path']} is not there"

    page = tree.text("k8s/README.md")
    typed = re.findall(
        r"^kubectl apply -k k8s/(?:migrate|overlays)/(\S+) --context (\S+)", page.split("## A rollout")[1], re.M
    )
    if typed != [(region, region) for region in [primary, *order]]:
        yield f"README.md: in the order {typed}, not {[primary, *order]}"
    for path in re.findall(r"^\| `([a-z/]+)/`", page, re.M):
        if not (tree.root / "k8s" / path).is_dir():
            yield f"README.md: k8s/{path} is not there"

    for file in tree.files("k8s/*/**/kustomization.yaml"):
        parts = file.relative_to(tree.root).parts
        if parts[1] in ("overlays", "migrate", "rollouts", "colors") and parts[-2] not in order:
            yield f"{'/'.join(parts[:-1])} is of no region"
    for file in tree.files("k8s/**/*.yaml"):
        if file.name == "kustomization.yaml" or file.parent.name in ("k8s", "argocd"):
            continue
        listing = file.parent / "kustomization.yaml"
        content = yaml.safe_load(listing.read_text()) if listing.is_file() else {}
        named = [*content.get("resources", []), *(patch.get("path") for patch in content.get("patches", []))]
        if file.name not in named:
            yield f"{file.relative_to(tree.root)}: no kustomization names it"


# What checkov asks for and is not done, and why.
SKIPPED = {
    "CKV_K8S_11": "A limit of CPU throttles, and a process that is throttled misses its lease.",
    "CKV_K8S_15": "A tag of ours never moves, and a node must start a pod while the registry is away.",
    "CKV_K8S_43": "The digest is that of the image that you build: `image.digest`.",
}


@check(
    Mistake(
        f"{BASE}/deployment-godwit.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "CKV_K8S_22"
    ),
    Mistake("helm/godwit/templates/_helpers.tpl", "automountServiceAccountToken: false", "hostPID: true", "CKV_K8S_17"),
)
def pass_checkov(tree):
    """All that runs of one region, by the manifests and by the chart with everything asked for, but for what is skipped with a reason."""
    region = rendering.regions(tree)[0]
    objects = [one for what in ["overlays", "migrate"] for one in build(tree, f"k8s/{what}/{region}")]
    objects += next(found for way, _, found in rendering.ways(tree) if way == f"{region}, with everything")
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / "objects.yaml"
        # A pod by itself is the chart's test, which ends: nothing probes it.
        judged = [one for one in objects if not rendering.custom(one) and one["kind"] != "Pod"]
        file.write_text(yaml.safe_dump_all(judged))
        ran = tree.run(
            *("checkov", "--file", str(file), "--framework", "kubernetes", "--quiet", "--compact", "--skip-download"),
            *("--output", "json", "--skip-check", ",".join(SKIPPED)),
            env=os.environ | {"LOG_LEVEL": "ERROR"},
        )
    try:
        report = json.loads(ran.stdout)
    except ValueError:
        yield f"checkov: {ran.stdout}{ran.stderr}"
        return
    # Without a finding it says no more than the numbers.
    if report.get("passed", report.get("summary", {}).get("passed", 0)) < 100:
        yield "checkov: it has hardly looked at anything"
    for failed in report.get("results", {}).get("failed_checks", []):
        yield f"{failed['resource']}: {failed['check_id']}: {failed['check_name']}"
