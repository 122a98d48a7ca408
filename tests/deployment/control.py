"""What moves the database where a platform runs it: what the processes get for that, what nothing else gets, and that nobody puts back what
they have moved.
"""

import tomllib

import rendering
from chart import SCHEMA, TEMPLATES, refusal, without
from judge import Mistake, check
from rendering import containers, names, of_kind, pods, regional, the, ways

CONTROL = f"{TEMPLATES}/_control.tpl"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


@check(
    Mistake(f"{TEMPLATES}/role.yaml", "verbs: [get, patch]", "verbs: [get, patch, list]", "may do"),
    Mistake(f"{TEMPLATES}/role.yaml", "    resourceNames: [", "    # [", "may do"),
    Mistake(f"{TEMPLATES}/role.yaml", '"region" .Values.region', '"region" .Values.primaryRegion', "may do"),
    Mistake(f"{TEMPLATES}/role.yaml", "  - kind: ServiceAccount\n    name: {{", "  - kind: ServiceAccount\n    name: a{{", "nobody"),
    Mistake(f"{TEMPLATES}/role.yaml", 'eq .Values.failover.control "cloudnativepg"', "true", "has rights"),
    Mistake(CONTROL, "expirationSeconds: 3600", "expirationSeconds: 86400", "token"),
    Mistake(CONTROL, f"mountPath: {TOKEN}", "mountPath: /token", "token"),
    Mistake(
        f"{TEMPLATES}/_helpers.tpl",
        '{{- define "godwit.volumes" -}}\n',
        '{{- define "godwit.volumes" -}}\n{{ include "godwit.control.volume" .root }}\n',
        "Job godwit-migrate",
    ),
    Mistake(f"{TEMPLATES}/_config.tpl", '$failover "control"', '$failover "durability"', "is told"),
    Mistake(f"{TEMPLATES}/_config.tpl", '$facts "database" (', '$facts "replication" (', "is told"),
    Mistake(
        f"{TEMPLATES}/cluster.yaml",
        "inRoles: [godwit_failover, godwit_owner, pg_monitor, pg_signal_backend]",
        "inRoles: [godwit_failover, pg_monitor, pg_signal_backend]",
        "fence",
    ),
)
def processes_move_their_own_database_alone(tree):
    """A token for the pods that serve and no others, good for one object of one namespace, and only where it has a use; the platform's names for
    every region; the roles of the fence.
    """
    for way, region, objects in ways(tree):
        control = way.partition("moved by ")[2] or "postgres"
        config = tomllib.loads(rendering.settings_of(objects))
        databases = {name: facts.get("database") for name, facts in config["regions"].items()}
        if config.get("failover", {}).get("control", "postgres") != control:
            yield f"{way}: the process is told of another control: {config.get('failover')}"
        if control != "postgres" and (None in databases.values() or len(set(databases.values())) != len(databases)):
            yield f"{way}: the process is told these databases: {databases}"
        if (control == "aurora") != ("global_database" in config.get("failover", {})):
            yield f"{way}: the process is told of a global cluster: {config.get('failover')}"

        asking = control == "cloudnativepg"
        account = the(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
        for who, _, pod in pods(objects):
            tokens = [
                source["serviceAccountToken"]
                for volume in pod["volumes"]
                for source in volume.get("projected", {}).get("sources", [])
                if "serviceAccountToken" in source
            ]
            mounted = [m for one in containers(pod) for m in one["volumeMounts"] if m["mountPath"] == TOKEN]
            wanted = asking and who == "Deployment godwit"
            if (len(tokens), len(mounted)) != (wanted, wanted) or any(t["expirationSeconds"] > 3600 for t in tokens):
                yield f"{way}: {who} {'has not the' if wanted else 'has a'} token of an hour: {tokens}, {mounted}"
        roles = of_kind(objects, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
        if not asking:
            yield from (f"{way}: a process has rights: {names(one)}" for one in roles)
            continue
        role, binding = the(objects, "Role"), the(objects, "RoleBinding")
        only = {"apiGroups": ["postgresql.cnpg.io"], "resources": ["clusters"]}
        only |= {"resourceNames": [databases[region]], "verbs": ["get", "patch"]}
        if role["rules"] != [only] or len(roles) != 2:
            yield f"{way}: a process may do {role['rules']}"
        bound = [(one["kind"], one["name"], one["namespace"]) for one in binding["subjects"]]
        if bound != [("ServiceAccount", account, "godwit")] or binding["roleRef"]["name"] != role["metadata"]["name"]:
            yield f"{way}: the rights are nobody's, or another's: {bound}"
        cluster = the(objects, "Cluster", f"godwit-{region}")["spec"]
        if databases[region] != f"godwit-{region}":
            yield f"{way}: the process is told that its database is {databases[region]}"
        fencing = {one["name"]: set(one.get("inRoles", [])) for one in cluster["managed"]["roles"]}.get("godwit_control")
        if fencing != {"godwit_failover", cluster_owner(cluster), "pg_monitor", "pg_signal_backend"}:
            yield f"{way}: godwit_control is in {fencing}, and could not fence"


def cluster_owner(cluster):
    [begun] = cluster["bootstrap"].values()
    return begun["owner"]


@check(
    Mistake(f"{TEMPLATES}/cluster.yaml", '"region" $cnpg.bootstrapFrom)', '"region" .Values.primaryRegion)', "once"),
    Mistake(f"{TEMPLATES}/_cluster.tpl", "{{- if and $made (ne $made .first) -}}", "{{- if false }}", "is taken"),
    Mistake(f"{TEMPLATES}/_cluster.tpl", '(hasKey $bootstrap "initdb")', "false", "is taken"),
    Mistake(f"{TEMPLATES}/_cluster.tpl", "(ne $made .first)", "(ne $made .self)", "is refused"),
    Mistake(
        f"{TEMPLATES}/cluster.yaml",
        '(lookup "postgresql.cnpg.io/v1" "Cluster" .Release.Namespace $self)',
        "dict",
        "does not look",
    ),
)
def an_upgrade_leaves_the_primary_where_it_is(tree):
    """A Cluster's object is the same wherever the primary is by now, so that no difference goes into the live one; and one that was made from
    another region is not told otherwise.
    """
    regions = rendering.regions(tree)
    layer = rendering.moved(tree)["moved by cloudnativepg"]
    for region in regions:
        made = [
            the(rendering.render(tree, rendering.values(tree, region, layer, {"primaryRegion": primary}))[0], "Cluster", f"godwit-{region}")
            for primary in regions
        ]
        if any(one != made[0] for one in made):
            yield f"{region}: its Cluster is another once the primary is elsewhere: Helm would put it back"

    # `lookup` finds nothing without a cluster: the template is given what it would find.
    if '"godwit.cluster.same" (dict "live" (lookup "postgresql.cnpg.io/v1" "Cluster"' not in tree.text(f"{TEMPLATES}/cluster.yaml"):
        yield "an upgrade does not look at how the Cluster that is there was made"
    trial = tree.root / TEMPLATES / "trial.yaml"
    cases = {
        ("self", "{}"): True,
        ("other", "{}"): True,
        ("self", "{initdb: {database: godwit}}"): True,
        ("other", "{initdb: {database: godwit}}"): False,
        ("other", "{pg_basebackup: {source: other}}"): True,
        ("self", "{pg_basebackup: {source: other}}"): False,
        ("third", "{pg_basebackup: {source: other}}"): False,
        ("self", "{recovery: {source: backup}}"): True,
    }
    given = rendering.values(tree, regions[0])
    for (first, bootstrap), fits in cases.items():
        live = f'("spec: {{bootstrap: {bootstrap}}}" | fromYaml)'
        trial.unlink(missing_ok=True)
        trial.write_text(f'{{{{- include "godwit.cluster.same" (dict "live" {live} "self" "self" "first" "{first}") }}}}\n')
        said = refusal(tree, given)
        if fits and said:
            yield f"a Cluster made by {bootstrap} is refused for {first}: {said}"
        if not fits and "bootstrapFrom: leads to" not in (said or ""):
            yield f"a Cluster made by {bootstrap} is taken for {first}: {said}"
    trial.unlink()


def refused(tree):
    """What is said, and the values over those of a region of which it is said."""
    layers, over = rendering.moved(tree), regional.merged
    cnpg, rds, aurora = (layers[f"moved by {name}"] for name in ["cloudnativepg", "rds", "aurora"])
    region = rendering.regions(tree)[-1]
    arn = f"arn:aws:rds:{region}:123456789012:cluster:godwit"
    outside = {"database": {"mode": "external"}}
    return [
        ("failover.control: is postgres", over(cnpg, {"failover": {"control": "postgres"}})),
        ("failover.control: is rds", over(cnpg, {"failover": {"control": "rds"}})),
        ("'/failover/control'", over(cnpg, {"failover": {"control": "cnpg"}})),
        (f'regions.{region}.database: "{arn}" is not the ARN of a DB instance', over(rds, {"regions": {region: {"database": arn}}})),
        ("is not the ARN of a DB cluster", over(aurora, {"regions": rds["regions"]})),
        ("failover.globalDatabase: is missing", over(aurora, {"failover": {"globalDatabase": ""}})),
        ("failover.globalDatabase: is for aurora", over(rds, {"failover": {"globalDatabase": "godwit"}})),
        ("databaseControlUrl.secretName: is missing", over(rds, {"secrets": {"databaseControlUrl": {"secretName": ""}}})),
        ("durability: quorum needs", over(rds, {"settings": {"failover": {"durability": "quorum"}}})),
        ("'/settings/failover/durability'", over(cnpg, {"settings": {"failover": {"durability": "quorum"}}})),
        ("settings.failover.agent: is for", over(rds, {"settings": {"failover": {"agent": ["agent"]}}})),
        ("networkPolicy.aws: is empty", over(aurora, {"networkPolicy": {"aws": []}})),
        ("bootstrapFrom: mars-1 is not one of", over(cnpg, {"cloudnativepg": {"bootstrapFrom": "mars-1"}})),
        ("archives: mars-1 is not one of", over(cnpg, {"cloudnativepg": {"backup": {"archives": {"mars-1": "a"}}}})),
        ("is not a Cluster's name", over(rendering.CONTROL, {"failover": {"control": "cloudnativepg"}}, outside)),
    ]


@check(
    Mistake(CONTROL, '{{- fail (printf "failover.control: is', '{{- $_ := print (printf "', "is refused by"),
    without('"failover.globalDatabase: is missing', "_control.tpl"),
    without('(printf "failover.globalDatabase: is for', "_control.tpl"),
    without('(printf "secrets.databaseControlUrl', "_control.tpl"),
    without('(printf "settings.failover.durability', "_control.tpl"),
    without('(printf "settings.failover.agent: is for', "_control.tpl"),
    without('(printf "regions.%s.database', "_control.tpl"),
    without('(printf "networkPolicy.aws', "_control.tpl"),
    without('(printf "cloudnativepg.bootstrapFrom'),
    without('(printf "cloudnativepg.backup.archives'),
    Mistake(CONTROL, ":db:[-A-Za-z0-9]+$", ":[-:A-Za-z0-9]+$", "is taken"),
    Mistake(SCHEMA, '"const": "quorum"', '"const": "all"', "is refused by"),
)
def values_that_move_nothing_are_refused(tree):
    """What the program would refuse at its start, or find missing in the middle of a move, is refused by the chart."""
    region = rendering.regions(tree)[-1]
    for words, layer in refused(tree):
        said = refusal(tree, rendering.values(tree, region, layer))
        if said is None:
            yield f"{words}: {layer} is taken"
        elif words not in said:
            yield f"{words}: {layer} is refused by: {said}"
