"""Rights: what Terraform gives, held to what the program asks AWS for and what a release is made of."""

import json
import re

import hcl2

from judge import Mistake, check
from terraform import plain

OUTPUTS = "terraform/modules/database/outputs.tf"
TEMPLATE = "terraform/modules/region/root.tf.template"
RIGHTS = "terraform/modules/cluster/rights.tf"
CONTROL = "src/storage/control"
# A call of the SDK is the action's name in other letters.
CALL = re.compile(r"\.((?:add|create|delete|describe|failover|list|modify|promote|reboot|remove|restore|start|stop|switchover)_\w+)\(\)")

# The groups of the kinds that AmazonEKSEditPolicy knows (Amazon EKS User Guide, "Access policy permissions").
EDITED = {"", "apps", "autoscaling", "batch", "networking.k8s.io", "policy"}
# An administrator's, before a release.
ADMINISTERED = {"Namespace", "Kustomization", "Component"}


def written(tree, file, name):
    """A list of objects of a file's locals: each attribute is a list of the words in it."""

    def words(value):
        value = plain(value)
        return [plain(one) for one in value] if isinstance(value, list) else [value]

    for block in hcl2.loads(tree.text(file))["locals"]:
        for one in plain(block.get(name, [])):
            yield {key.strip('"'): words(value) for key, value in one.items()}


@check(
    Mistake(OUTPUTS, '"rds:PromoteReadReplica"', '"rds:PromoteReadReplica", "rds:ModifyDBInstance"', "rds: may ModifyDBInstance, and never asks for it"),
    Mistake(OUTPUTS, '"rds:SwitchoverGlobalCluster", ', "", "aurora: asks for switchoverglobalcluster, and may not"),
    Mistake(OUTPUTS, "godwit:promoted-from", "godwit:promoted", "godwit:promoted-from is the tag"),
    Mistake(TEMPLATE, 'key_prefixes = ["godwit:"]', 'key_prefixes = ["goodwit:"]', "would be taken away"),
    Mistake(f"{CONTROL}/rds.rs", ".promote_read_replica()", ".reboot_db_instance().promote_read_replica()", "rds: asks for rebootdbinstance, and may not"),
)
def are_what_is_asked_for(tree):
    """Godwit's pods may call of AWS' API what the program calls, and nothing else; and Terraform takes away no note of its."""
    shared = tree.text(f"{CONTROL}/aws.rs")
    for engine in ("rds", "aurora"):
        asked = {name.replace("_", "") for name in CALL.findall(shared + tree.text(f"{CONTROL}/{engine}.rs"))}
        may = {action.removeprefix("rds:") for one in written(tree, OUTPUTS, "statements") if one["engine"] == [engine] for action in one["Action"]}
        for name in sorted(asked - {action.lower() for action in may}):
            yield f"{engine}: asks for {name}, and may not"
        for action in sorted(action for action in may if action.lower() not in asked):
            yield f"{engine}: may {action}, and never asks for it"
    tag = re.search(r'PROMOTED_FROM: &str = "([^"]*)"', shared)[1]
    if f'["{tag}"]' not in tree.text(OUTPUTS):
        yield f"{OUTPUTS}: {tag} is the tag that is written, and another is allowed"
    ignored = re.search(r"ignore_tags \{\s*key_prefixes = (\[.*\])", tree.text(TEMPLATE))
    if not ignored or not any(tag.startswith(prefix) for prefix in json.loads(ignored[1])):
        yield f"{TEMPLATE}: {tag} would be taken away by the next apply: ignore_tags"


def kinds(tree):
    """(file, group, kind) of whatever a release puts into the namespace."""
    files = [*tree.files("helm/godwit/templates/**/*.yaml"), *tree.files("k8s/**/*.yaml")]
    for file in files:
        name = str(file.relative_to(tree.root))
        # An ApplicationSet is Argo CD's own, in its namespace; values are no objects.
        if name.startswith("k8s/argocd/") or name == "k8s/values.yaml":
            continue
        for document in re.split(r"^---$", file.read_text(), flags=re.M):
            version = re.search(r"^apiVersion: (\S+)$", document, re.M)
            kind = re.search(r"^kind: (\S+)$", document, re.M)
            if version and kind and kind[1] not in ADMINISTERED:
                group, _, version = version[1].rpartition("/")
                yield name, group, kind[1]


@check(
    Mistake(RIGHTS, '"prometheusrules", ', "", "PrometheusRule"),
    Mistake(RIGHTS, '"httproutes"', '"httproutes", "gateways"', "gateways"),
    Mistake(RIGHTS, 'verb if verb != "delete"', "verb", "a database"),
    Mistake("terraform/modules/cluster/main.tf", "kubernetes_groups = [local.release_group]", "kubernetes_groups = []", "nobody is in"),
)
def suffice_for_a_release(tree):
    """Who ships releases may make every kind that the chart and k8s/ are made of, and delete no database."""
    may = {(rule["group"][0], resource): rule["verbs"][0] for rule in written(tree, RIGHTS, "released") for resource in rule["resources"]}
    # The bindings of the balancers are Terraform's own to give.
    unused = set(may) - {("elbv2.k8s.aws", "targetgroupbindings")}
    for name, group, kind in kinds(tree):
        resource = (group, kind.lower() + "s")
        unused.discard(resource)
        if group not in EDITED and resource not in may:
            yield f"{name}: {kind} of {group} is nobody's to make: {RIGHTS}"
    for group, resource in sorted(unused):
        yield f"{RIGHTS}: {resource} of {group} are in no release"
    if '!= "delete"' not in may[("postgresql.cnpg.io", "clusters")]:
        yield f"{RIGHTS}: a release may delete a Cluster, which is a database"
    if "kubernetes_groups = [local.release_group]" not in tree.text("terraform/modules/cluster/main.tf"):
        yield "terraform/modules/cluster/main.tf: nobody is in the group that the role is bound to"


ASSETS = """
const { readFileSync } = require('fs');
const handler = new Function(readFileSync('terraform/modules/cdn/immutable.js', 'utf8') + '; return handler;')();
const told = {};
for (const statusCode of [200, 206, 304, 301, 403, 404, 500, 503]) {
  const { headers } = handler({ response: { statusCode, headers: {} } });
  told[statusCode] = (headers['cache-control'] || {}).value || null;
}
console.log(JSON.stringify(told));
"""


@check(
    Mistake("terraform/modules/cdn/immutable.js", "response.statusCode === 206", "response.statusCode === 404", "404 is kept"),
    Mistake("terraform/modules/cdn/immutable.js", "immutable'", "'", "200 is not kept"),
    Mistake("terraform/modules/cdn/main.tf", 'headers_policy.this["assets"]', 'headers_policy.this["fresh"]', "/assets/ have another policy"),
    Mistake("terraform/modules/cdn/main.tf", "{ assets = [], ", '{ assets = ["no-cache"], ', "of errors too"),
    Mistake("terraform/modules/cdn/main.tf", "error_caching_min_ttl = 1", "error_caching_min_ttl = 86400", "86400"),
)
def assets_are_kept_and_errors_are_not(tree):
    """What is below /assets/ is kept for a year if it is there: that it is missing is asked anew."""
    ran = tree.run("node", "--eval", ASSETS)
    if ran.returncode != 0:
        yield f"terraform/modules/cdn/immutable.js: {ran.stderr.strip()[-300:]}"
        return
    for status, kept in json.loads(ran.stdout).items():
        if status in ("200", "206", "304"):
            if kept != "public, max-age=31536000, immutable":
                yield f"terraform/modules/cdn/immutable.js: {status} is not kept: {kept}"
        elif kept:
            yield f"terraform/modules/cdn/immutable.js: {status} is kept: {kept}"
    text = tree.text("terraform/modules/cdn/main.tf")
    behavior = re.search(r'ordered_cache_behavior \{\n    path_pattern +=\s+"/assets/\*".*?\n  \}', text, re.S)[0]
    if 'this["assets"]' not in behavior or "aws_cloudfront_function.immutable.arn" not in behavior:
        yield "terraform/modules/cdn/main.tf: /assets/ have another policy, or not the function"
    if not re.search(r"for_each = \{ assets = \[\], ", text):
        yield "terraform/modules/cdn/main.tf: a policy says Cache-Control of errors too"
    for seconds in re.findall(r"error_caching_min_ttl = (\d+)", text) or ["default"]:
        if seconds != "1":
            yield f"terraform/modules/cdn/main.tf: CloudFront keeps an error for {seconds} s"
