"""What the chart runs: names that lead somewhere, processes that begin and end well, pods with no more than they need."""

import json
import re
import tomllib

import rendering
from judge import Mistake, check
from rendering import containers, matches, names, of_kind, pods, regional, the, ways

CHART = "helm/godwit"
TEMPLATES = f"{CHART}/templates"
VALUES = f"{CHART}/values.yaml"


@check(
    Mistake(f"{TEMPLATES}/service.yaml", "topology.kubernetes.io/region: {{ .Values.region }}", "a: b", "no region"),
    Mistake(f"{TEMPLATES}/service.yaml", "region: {{ .Values.region }}", "region: {{ .Values.primaryRegion }}", "no region"),
    Mistake(f"{TEMPLATES}/servicemonitor.yaml", "targetLabel: region", "targetLabel: place", "no region"),
)
def series_name_their_region(tree):
    """What Prometheus reads by the ServiceMonitor says which region it is of: rules join by that."""
    said = "__meta_kubernetes_service_label_"
    for way, region, objects in ways(tree):
        for monitor in of_kind(objects, "ServiceMonitor"):
            wanted = monitor["spec"]["selector"]["matchLabels"].items()
            services = [one for one in of_kind(objects, "Service") if wanted <= one["metadata"]["labels"].items()]
            rules = [rule for one in monitor["spec"]["endpoints"] for rule in one.get("relabelings", [])]
            taken = [rule["sourceLabels"][0] for rule in rules if rule.get("targetLabel") == "region"]
            for service in services:
                labels = {said + re.sub(r"\W", "_", name): value for name, value in service["metadata"]["labels"].items()}
                if [labels.get(name) for name in taken] != [region]:
                    yield f"{way}: the series of Service {names(service)} have no region of theirs"
            if not services:
                yield f"{way}: the ServiceMonitor finds no Service, so no region"


@check(
    Mistake(
        f"{TEMPLATES}/_migrate.tpl",
        '"component" "migrate") | nindent 6',
        '"component" "api") | nindent 6',
        "takes pods of Job",
    ),
    Mistake(f"{TEMPLATES}/service.yaml", "targetPort: public", "targetPort: web", "has no port web"),
    Mistake(
        f"{TEMPLATES}/service.yaml",
        '{{- $selector := include "godwit.selector" (dict "Release" .Release "component" "api") }}',
        '{{- $selector := include "godwit.selector" (dict "Release" .Release "component" "web") }}',
        "picks out no pod",
    ),
    Mistake(
        f"{TEMPLATES}/poddisruptionbudget.yaml",
        '"component" "api") | nindent 6',
        '"component" "web") | nindent 6',
        "PodDisruptionBudget godwit picks out no pod",
    ),
    Mistake(
        f"{TEMPLATES}/servicemonitor.yaml",
        '"component" "ops") | nindent 6',
        '"component" "api") | nindent 6',
        "ServiceMonitor godwit",
    ),
    Mistake(f"{TEMPLATES}/ingress.yaml", "name: http", "name: web", "leads to no port"),
    Mistake(f"{TEMPLATES}/httproute.yaml", "port: {{ .Values.public.service.port }}", "port: 81", "leads to no port"),
    Mistake(
        f"{TEMPLATES}/horizontalpodautoscaler.yaml",
        'name: {{ include "godwit.name" . }}\n  minReplicas',
        'name: {{ include "godwit.name" . }}-api\n  minReplicas',
        "is not there",
    ),
    Mistake(
        f"{TEMPLATES}/deployment.yaml",
        '      volumes:\n        {{- include "godwit.volumes" (dict "root" $ "tls" true',
        '      volumes:\n        {{- include "godwit.volumes" (dict "root" $',
        "mounts internal-tls",
    ),
    Mistake(
        f"{TEMPLATES}/_helpers.tpl", "annotations['godwit/settings']", "annotations['settings']", "no settings where"
    ),
    Mistake(f"{TEMPLATES}/_control.tpl", "name: kube-root-ca.crt", "name: kube-root-ca", "ConfigMap kube-root-ca,"),
)
def names_lead_somewhere(tree):
    """Selectors pick out the pods that they mean and no others; ports, volumes, settings and targets exist."""
    for way, _, objects in ways(tree):
        of_pods = [(who, meta["labels"], spec) for who, meta, spec in pods(objects)]
        ports = {
            port["name"]
            for who, _, spec in of_pods
            if who.startswith("Deployment")
            for one in containers(spec)
            for port in one.get("ports", [])
        }
        services = {one["metadata"]["name"]: one for one in of_kind(objects, "Service")}

        for one in of_kind(objects, "Deployment"):
            if not matches(one["spec"]["selector"]["matchLabels"], one["spec"]["template"]["metadata"]["labels"]):
                yield f"{way}: {names(one)} does not select its own pods"
            if any("version" in key or "chart" in key for key in one["spec"]["selector"]["matchLabels"]):
                yield f"{way}: {names(one)} selects by what a release changes"
        selecting = [(one, one["spec"]["selector"]) for one in services.values()]
        selecting += [
            (one, one["spec"]["selector"]["matchLabels"])
            for one in of_kind(objects, "PodDisruptionBudget", "Deployment")
        ]
        # The operator runs a Cluster's pods, and labels them by its name.
        of_pods += [
            (names(one), {"cnpg.io/cluster": one["metadata"]["name"]}, {}) for one in of_kind(objects, "Cluster")
        ]
        selecting += [(one, one["spec"]["podSelector"]["matchLabels"]) for one in of_kind(objects, "NetworkPolicy")]
        for one, selector in selecting:
            picked = [who for who, labels, _ in of_pods if matches(selector, labels)]
            if not picked:
                yield f"{way}: {names(one)} picks out no pod"
            if not one["kind"] == "NetworkPolicy":
                yield from (
                    f"{way}: {names(one)} takes pods of {who}" for who in picked if not who.startswith("Deployment")
                )

        for service in services.values():
            for port in service["spec"]["ports"]:
                if port["targetPort"] not in ports:
                    yield f"{way}: {names(service)} leads to a pod that has no port {port['targetPort']}"
        for one in of_kind(objects, "ServiceMonitor"):
            found = [
                s for s in services.values() if matches(one["spec"]["selector"]["matchLabels"], s["metadata"]["labels"])
            ]
            wanted = {endpoint["port"] for endpoint in one["spec"]["endpoints"]}
            if len(found) != 1 or not wanted <= {port["name"] for port in found[0]["spec"]["ports"]}:
                yield f"{way}: {names(one)} leads to {[names(s) for s in found]}, which have not one port {wanted}"
        backends = [
            path["backend"]["service"]
            for one in of_kind(objects, "Ingress")
            for rule in one["spec"]["rules"]
            for path in rule["http"]["paths"]
        ]
        backends += [
            {"name": ref["name"], "port": {"number": ref["port"]}}
            for one in of_kind(objects, "HTTPRoute")
            for rule in one["spec"]["rules"]
            for ref in rule["backendRefs"]
        ]
        for backend in backends:
            service, port = services.get(backend["name"]), backend["port"]
            open_ports = service["spec"]["ports"] if service else []
            if not any(port in ({"name": p["name"]}, {"number": p["port"]}) for p in open_ports):
                yield f"{way}: what comes from outside leads to no port: {backend}"
        for one in of_kind(objects, "HorizontalPodAutoscaler"):
            target = one["spec"]["scaleTargetRef"]
            if not any(t["metadata"]["name"] == target["name"] for t in of_kind(objects, target["kind"])):
                yield f"{way}: {names(one)} scales {target['name']}, which is not there"

        # Kubernetes puts this one into every namespace.
        maps = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")} | {"kube-root-ca.crt"}
        for who, meta, spec in pods(objects):
            if not rendering.settings(meta, spec):
                yield f"{way}: {who} has no settings where it looks for them"
            volumes = {volume["name"]: volume for volume in spec["volumes"]}
            for one in containers(spec):
                for mount in one["volumeMounts"]:
                    if mount["name"] not in volumes:
                        yield f"{way}: {who} mounts {mount['name']}, which it has not"
            for volume in volumes.values():
                for source in [volume, *volume.get("projected", {}).get("sources", [])]:
                    if "configMap" in source and source["configMap"]["name"] not in maps:
                        yield f"{way}: {who} mounts the ConfigMap {source['configMap']['name']}, which is not there"


@check(
    Mistake(
        f"{TEMPLATES}/deployment.yaml", "path: /api/health/liveness", "path: /api/health/readiness", "livenessProbe"
    ),
    Mistake(
        f"{TEMPLATES}/deployment.yaml",
        "path: /api/health/readiness, port: ops",
        "path: /api/health/readiness, port: internal",
        "readinessProbe",
    ),
    Mistake(
        f"{TEMPLATES}/deployment.yaml",
        "          startupProbe:\n            httpGet: {path: /api/health/startup, port: ops}\n",
        "          startupProbe:\n            httpGet: {path: /api/health/liveness, port: ops}\n",
        "startupProbe",
    ),
    Mistake(
        f"{TEMPLATES}/deployment.yaml",
        "sleep:\n                seconds",
        "exec:\n                command: [sleep]\n              # seconds",
        "preStop",
    ),
    Mistake(
        f"{TEMPLATES}/deployment.yaml",
        "terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}",
        "terminationGracePeriodSeconds: 30",
        "of 30 s",
    ),
    Mistake(f"{TEMPLATES}/deployment.yaml", "  minReadySeconds: {{ add", "  # {{ add", "before the one before it"),
    Mistake(f"{TEMPLATES}/deployment.yaml", "maxUnavailable: 0", "maxUnavailable: 1", "rollout"),
    Mistake(
        f"{TEMPLATES}/service.yaml",
        "publishNotReadyAddresses: true",
        "publishNotReadyAddresses: false",
        "godwit-internal",
    ),
    Mistake(
        f"{TEMPLATES}/deployment.yaml",
        '"tls" true "control" true) | nindent 8 }}\n',
        '"tls" true "control" true) | nindent 8 | replace "downwardAPI" "configMap" }}\n',
        "not its own",
    ),
    Mistake(f"{TEMPLATES}/deployment.yaml", "failureThreshold: 7200", "failureThreshold: 900", "waits for its schema"),
)
def processes_begin_and_end_well(tree):
    """Probes on their own paths of the ops listener; a pod that ends is given the time that it takes; readiness empties no Service that
    must go on.
    """
    paths = {"startupProbe": "startup", "livenessProbe": "liveness", "readinessProbe": "readiness"}
    for way, _, objects in ways(tree):
        deployment = the(objects, "Deployment")
        pod = deployment["spec"]["template"]["spec"]
        [container] = pod["containers"]
        for probe, path in paths.items():
            asked = container.get(probe, {}).get("httpGet")
            if asked != {"path": f"/api/health/{path}", "port": "ops"}:
                yield f"{way}: the {probe} asks {asked}"
        slept = container["lifecycle"]["preStop"].get("sleep", {}).get("seconds", 0)
        # Pods of two versions are there at once, and begin anew: each needs the settings that it came with.
        settings = rendering.settings_of(objects)
        if settings is None:
            yield f"{way}: the settings of a process are not its own"
            continue
        config = tomllib.loads(settings)
        drained = config["server"].get("drain_seconds_max", 20)
        if not 0 < slept < slept + drained <= pod["terminationGracePeriodSeconds"] - 5:
            yield f"{way}: preStop sleeps {slept} s and a drain takes {drained} s of {pod['terminationGracePeriodSeconds']} s"
        if deployment["spec"].get("minReadySeconds", 0) < slept + drained:
            yield f"{way}: the next process is told to end before the one before it has ended"
        if deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] != 0:
            yield f"{way}: a rollout takes processes away before there are others"
        for name, kept in {"godwit": False, "godwit-internal": True, "godwit-ops": True}.items():
            if the(objects, "Service", name)["spec"].get("publishNotReadyAddresses", False) != kept:
                yield f"{way}: Service {name} {'has not' if kept else 'has'} the pods that are not ready"
        startup = container.get("startupProbe", {})
        if startup.get("periodSeconds", 0) * startup.get("failureThreshold", 0) < 4 * 3600:
            yield f"{way}: a process that waits for its schema, or for its Postgres, is ended before that is there"


@check(
    Mistake(f"{TEMPLATES}/_helpers.tpl", "drop: [ALL]", "drop: [NET_RAW]", "drops"),
    Mistake(
        f"{TEMPLATES}/_helpers.tpl",
        "readOnlyRootFilesystem: true",
        "readOnlyRootFilesystem: false",
        "readOnlyRootFilesystem",
    ),
    Mistake(
        f"{TEMPLATES}/_helpers.tpl",
        "allowPrivilegeEscalation: false",
        "allowPrivilegeEscalation: true",
        "allowPrivilegeEscalation",
    ),
    Mistake(
        f"{TEMPLATES}/_helpers.tpl",
        "  seccompProfile:\n    type: RuntimeDefault\n{{- with .root.Values.nodeSelector",
        "  seccompProfile:\n    type: Unconfined\n{{- with .root.Values.nodeSelector",
        "seccompProfile",
    ),
    Mistake(f"{TEMPLATES}/_helpers.tpl", "  runAsUser: 65532", "  runAsUser: 0", "runAsUser"),
    Mistake(
        f"{TEMPLATES}/_helpers.tpl",
        "automountServiceAccountToken: false",
        "automountServiceAccountToken: true",
        "token",
    ),
    Mistake(f"{TEMPLATES}/_helpers.tpl", "enableServiceLinks: false", "hostNetwork: true", "hostNetwork"),
    Mistake(VALUES, "limits: {memory: 1Gi}", "limits: {memory: 256Mi}", "requests more memory"),
    Mistake(
        f"{TEMPLATES}/_helpers.tpl",
        "  value: /etc/godwit/secrets/{{ $setting }}",
        "  valueFrom: {secretKeyRef: {name: a, key: b}}",
        "in its environment",
    ),
    Mistake(
        f"{TEMPLATES}/_helpers.tpl",
        "              path: {{ $setting }}",
        "              path: {{ $setting }}.txt",
        "no such file",
    ),
    Mistake(f"{TEMPLATES}/deployment.yaml", '"control" true) | trim', '"control" true "owner" true) | trim', "owner"),
)
def pods_have_no_more_than_they_need(tree):
    """The restricted profile of Kubernetes and what it leaves open, in every pod; secrets as files only, the owner's to the migration alone."""
    for way, _, objects in ways(tree):
        if the(objects, "ServiceAccount")["automountServiceAccountToken"]:
            yield f"{way}: the ServiceAccount's token is mounted"
        for who, _, pod in pods(objects):
            who = f"{way}: {who}"
            context = pod["securityContext"]
            if pod["automountServiceAccountToken"]:
                yield f"{who} has a token"
            if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
                yield f"{who}: runAsUser {context.get('runAsUser')}, runAsNonRoot {context.get('runAsNonRoot')}"
            if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
                yield f"{who}: seccompProfile {context.get('seccompProfile')}"
            yield from (f"{who}: {word}" for word in ["hostNetwork", "hostPID", "hostIPC"] if pod.get(word))
            yield from (f"{who} mounts the node's files" for volume in pod["volumes"] if "hostPath" in volume)
            files = {}
            for volume in pod["volumes"]:
                for source in volume.get("projected", {}).get("sources", []):
                    for item in source.get("secret", {}).get("items", []):
                        files[f"/etc/godwit/secrets/{item['path']}"] = source["secret"]["name"]
            for container in containers(pod):
                context = container["securityContext"]
                if context["capabilities"] != {"drop": ["ALL"]}:
                    yield f"{who} drops {context['capabilities']}"
                if context.get("readOnlyRootFilesystem") is not True:
                    yield f"{who}: readOnlyRootFilesystem"
                if context.get("allowPrivilegeEscalation") is not False:
                    yield f"{who}: allowPrivilegeEscalation"
                wanted, most = container["resources"]["requests"], container["resources"].get("limits", {})
                for name in ["cpu", "memory"]:
                    if name in most and amount(wanted[name]) > amount(most[name]):
                        yield f"{who} requests more {name} than its limit"
                if "memory" not in most:
                    yield f"{who} has no limit of memory"
                if "envFrom" in container:
                    yield f"{who} takes its environment from elsewhere"
                for variable in container.get("env", []):
                    if not variable["name"].endswith("_FILE") or "valueFrom" in variable:
                        yield f"{who} has {variable['name']} in its environment, not in a file"
                    elif variable["value"] not in files:
                        yield f"{who}: {variable['name']}: no such file is mounted: {variable['value']}"
                    elif "OWNER" in variable["name"] and "migrate" not in who:
                        yield f"{who} is given the owner's URL"


@check(
    Mistake(
        f"{TEMPLATES}/deployment.yaml",
        "{{- with .Values.extraVolumeMounts }}",
        "{{- with .Values.extraInitContainers | first | default dict | dig \"volumeMounts\" list | rest }}",
        "the server does not find /agent/godwit-agent",
    ),
    Mistake(f"{TEMPLATES}/deployment.yaml", "{{- with .Values.extraVolumes }}", "{{- with list }}", "which it has not"),
    Mistake(f"{TEMPLATES}/deployment.yaml", "{{- if .Values.extraInitContainers }}", "{{- if false }}", "nothing brings"),
    Mistake(f"{TEMPLATES}/_helpers.tpl", '(include "godwit.restricted" $ | fromYaml)', "dict", "may more than the server"),
    Mistake(
        f"{TEMPLATES}/_helpers.tpl",
        '"godwit.restricted" $ | fromYaml)) (hasKey . "securityContext"))',
        '"godwit.restricted" $ | fromYaml)) false)',
        "is not its own",
    ),
    Mistake(
        f"{TEMPLATES}/_migrate.tpl",
        "    volumes:\n",
        "    initContainers:\n      {{- include \"godwit.initContainers\" . | nindent 6 }}\n    volumes:\n",
        "has containers of others",
    ),
)
def the_agent_is_where_it_is_looked_for(tree):
    """What the image has not is brought into the pods that serve, and no others: by a container that may do no more than the server."""
    seen = False
    for way, region, objects in ways(tree):
        [program, *_] = tomllib.loads(rendering.settings_of(objects)).get("failover", {}).get("agent") or [None]
        for who, _, pod in pods(objects):
            who = f"{way}: {who}"
            if "Deployment" not in who:
                if "initContainers" in pod:
                    yield f"{who} has containers of others"
                continue
            volumes = {volume["name"] for volume in pod["volumes"]}
            yield from (
                f"{who} mounts {mount['name']}, which it has not"
                for one in containers(pod)
                for mount in one.get("volumeMounts", [])
                if mount["name"] not in volumes
            )
            [server], before = pod["containers"], pod.get("initContainers", [])
            if any(one["securityContext"] != server["securityContext"] for one in before):
                yield f"{who}: a container before the server's may more than the server"
            if not program:
                continue
            seen = True
            at = [mount["name"] for mount in server["volumeMounts"] if program.startswith(mount["mountPath"] + "/")]
            if not at:
                yield f"{who}: the server does not find {program}"
            brought = [mount["name"] for one in before for mount in one["volumeMounts"]]
            if not set(at) <= set(brought):
                yield f"{who}: nothing brings {program}"
    if not seen:
        yield "no way to use the chart has an agent"
    own = {"runAsUser": 1000, "readOnlyRootFilesystem": False}
    container = {**rendering.AGENT["extraInitContainers"][0], "securityContext": own}
    given = rendering.values(tree, rendering.regions(tree)[0], rendering.AGENT, {"extraInitContainers": [container]})
    [made] = the(rendering.render(tree, given)[0], "Deployment")["spec"]["template"]["spec"].get("initContainers", [None])
    if made and made["securityContext"] != own:
        yield f"the security context of a container that has one is not its own: {made['securityContext']}"


def amount(quantity):
    """A quantity of Kubernetes as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(quantity)).groups()
    return float(number) * {"": 1, "m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]


@check(
    Mistake(
        f"{TEMPLATES}/_helpers.tpl",
        'GODWIT__{{ $setting | replace "." "__"',
        'GODWIT__{{ $setting | replace "." "_"',
        "no setting",
    ),
    Mistake(f"{TEMPLATES}/_config.tpl", '"public_addr"', '"address"', "server.address is no setting"),
    Mistake(
        f"{TEMPLATES}/_config.tpl", '"internal_addr" (printf "%s:9081"', '"internal_addr" (printf "%s:9082"', "9082"
    ),
    Mistake("docs/SETTINGS.md", "| `redis.url` |", "| `redis.address` |", "redis.url"),
    Mistake(
        f"{TEMPLATES}/_config.tpl",
        "= {{ toJson $value }}",
        '= {{ if kindIs "float64" $value }}{{ $value }}{{ else }}{{ toJson $value }}{{ end }}',
        "window_ms",
    ),
)
def settings_are_settings(tree):
    """Every name in the settings' file and in the environment is one of docs/SETTINGS.md; the listeners are those of the ports; values arrive
    as they were given.
    """
    table = list(regional.settings_table(tree.text("docs/SETTINGS.md")))
    known = [re.compile(re.escape(name).replace("NAME", "[^.]+")) for name, _ in table]
    for way, _, objects in ways(tree):
        for text in {rendering.settings(meta, pod) for _, meta, pod in pods(objects)}:
            for name, value in flat(tomllib.loads(text)):
                if not any(one.fullmatch(name) for one in known):
                    yield f"{way}: {name} is no setting"
                if name.endswith(("_ms", "_max")) and not isinstance(value, int):
                    yield f"{way}: {name} is written {value!r}"
        for who, _, pod in pods(objects):
            for container in containers(pod):
                for variable in container.get("env", []):
                    name = variable["name"].removeprefix("GODWIT__").removesuffix("_FILE").replace("__", ".").lower()
                    if not any(one.fullmatch(name) for one in known):
                        yield f"{way}: {who}: {variable['name']} names no setting: {name}"
        config = tomllib.loads(rendering.settings_of(objects))
        [container] = the(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
        for port in container["ports"]:
            address = config["server"].get(f"{port['name']}_addr", "")
            if not address.endswith(f":{port['containerPort']}"):
                yield f"{way}: the port {port['name']} is {port['containerPort']}, and the process listens on {address}"
    full = next(objects for way, _, objects in ways(tree) if way.endswith("with everything"))
    written = dict(flat(tomllib.loads(rendering.settings_of(full))))
    for name, value in flat(rendering.FULL["settings"]):
        if json.dumps(written.get(name)) != json.dumps(value):
            yield f"{name} was given as {value!r} and is written as {written.get(name)!r}"


def flat(tree, at=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value
