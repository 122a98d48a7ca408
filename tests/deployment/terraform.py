"""Terraform: every root and module holds against the AWS provider's own schema, and no database goes."""

import fcntl
import ipaddress
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import hcl2

from judge import COPIES, ROOT, Mistake, Skipped, check

DATABASES = "terraform/modules/database"
# Beside the repository where there is one: the real schema of the AWS provider, without a download of 700 MB.
OFFLINE = ROOT / "../shared/tools/terraform-offline/check"

# What holds data, or what data cannot be read without. All in modules or roots; nothing of these may be made elsewhere.
KEEPERS = {
    "aws_db_instance",
    "aws_rds_cluster",
    "aws_rds_cluster_instance",
    "aws_rds_global_cluster",
    "aws_elasticache_replication_group",
    "aws_backup_vault",
    "aws_kms_key",
    "aws_route53_zone",
    "aws_s3_bucket",
}
# Of those kinds, what may go: nothing is lost that an apply does not make anew.
SPARED = {
    ("terraform/global/alarms.tf", "aws_kms_key", "dns"): "of messages under way",
    ("terraform/global/links.tf", "aws_route53_zone", "internal"): "nobody outside of the networks asks it",
    ("terraform/modules/cdn/buckets.tf", "aws_s3_bucket", "static"): "what a release puts there",
    ("terraform/modules/dns/health.tf", "aws_s3_bucket", "drain"): "an empty object, there or not",
}
ENGINES = {"aws_db_instance", "aws_rds_cluster"}
# What a promotion changes of the global database's part in a region, by the type that it is made of.
MOVES = {
    "aws_db_instance": {"replicate_source_db", "engine", "db_name", "username", "password_wo", "identifier"},
    "aws_rds_cluster": {
        "global_cluster_identifier",
        "replication_source_identifier",
        "database_name",
        "master_username",
        "master_password_wo",
        "cluster_identifier",
    },
}


# Against the provider's schema: fmt, validate, test.


def holds(tree, *directories, provider="aws"):
    """What `terraform` says against these directories; nothing where it is content."""
    if not shutil.which("terraform"):
        raise Skipped("no terraform on the PATH: neither validated nor tested.")
    if provider == "aws" and OFFLINE.exists():
        yield from offline(tree, directories)
    else:
        yield from online(tree, directories)


def offline(tree, directories):
    # It packs the sources with tar, which stops where a file's link count changes meanwhile: other trees link to the same files.
    linked, own = tree.root / "terraform", tree.root / "terraform.own"
    shutil.copytree(linked, own)
    shutil.rmtree(linked)
    own.rename(linked)
    # By the nearest repository it knows what to pack: this tree's own, not the one around it.
    tree.run("git", "init", "--quiet")
    shared = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "terraform-offline"
    fill(shared)
    # It writes its plugin anew each time, which must not happen while another one runs it: a cache for each.
    with tempfile.TemporaryDirectory(dir=COPIES) as own:
        cache = pathlib.Path(own) / "terraform-offline"
        cache.mkdir()
        for part in ("schema.json", "tf6_pb2.py", "venv"):
            (cache / part).symlink_to(shared / part)
        ran = tree.run(str(OFFLINE), *directories, env=os.environ | {"XDG_CACHE_HOME": own})
    # Of a directory without tests its exit code does not tell that it is not valid.
    if ran.returncode != 0 or ran.stdout.count("The configuration is valid.") != len(directories):
        yield told(ran)


def fill(shared):
    """The schema is fetched once, by whoever comes first."""
    COPIES.mkdir(parents=True, exist_ok=True)
    with open(COPIES / "terraform-offline.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (shared / "schema.json").exists():
            return
        with tempfile.TemporaryDirectory() as empty:
            (pathlib.Path(empty) / "terraform").mkdir()
            subprocess.run(["git", "init", "--quiet"], cwd=empty, check=True)
            subprocess.run([str(OFFLINE), "terraform"], cwd=empty, capture_output=True, check=False)
        if not (shared / "schema.json").exists():
            raise Skipped("the schema of the AWS provider cannot be fetched here: neither validated nor tested.")


def online(tree, directories):
    for directory in directories:
        made = tree.run("terraform", f"-chdir={directory}", "init", "-backend=false", "-input=false", "-no-color")
        if made.returncode != 0:
            if re.search(r"Failed to query available provider packages|could not connect to registry", made.stderr):
                raise Skipped(f"Terraform's registry does not answer: {directory} is neither validated nor tested.")
            yield told(made)
            continue
        for command in ("validate", "test"):
            ran = tree.run("terraform", f"-chdir={directory}", command, "-no-color")
            if ran.returncode != 0:
                yield told(ran)


def told(ran):
    return re.sub(r"\s+", " ", ran.stdout + ran.stderr)


@check(
    Mistake("terraform/modules/dns/main.tf", 'set_identifier = "elsewhere"', 'set_identifier   = "elsewhere"', "elsewhere"),
)
def is_formatted(tree):
    """As `terraform fmt` would have it."""
    if not shutil.which("terraform"):
        raise Skipped("no terraform on the PATH: the format is not looked at.")
    ran = tree.run("terraform", "fmt", "-check", "-diff", "-recursive", "terraform")
    if ran.returncode != 0:
        yield told(ran)


@check(
    Mistake(
        "terraform/foundation/variables.tf",
        "!contains(var.regions, var.choices.state_region) && ",
        "",
        "a_state_where_users_are_is_refused",
    ),
)
def foundation(tree):
    """The states are outside of all regions that serve users, and every region has its certificate."""
    yield from holds(tree, "terraform/foundation")


@check(
    Mistake("terraform/global/links.tf", "{ at = pair.from, to = pair.to }, ", "", "no way to another"),
)
def joins_every_region(tree):
    """`global`, with the CDN: ways between every two regions, names, alarms."""
    yield from holds(tree, "terraform/global")


@check(
    Mistake("terraform/modules/region/main.tf", "length(local.overlaps) == 0", "length(local.overlaps) >= 0", "networks_that_overlap_are_refused"),
    Mistake("terraform/modules/cluster/main.tf", "deletion_protection ", "deletion_protected ", "Unsupported argument"),
)
def region(tree):
    """A region's module with all that it is put together from."""
    yield from holds(tree, "terraform/modules/region")


@check(
    Mistake("terraform/modules/region/root.tf.template", "choices        = var.choices", "choice         = var.choices", "Unsupported argument"),
)
def region_root(tree):
    """The root that every region's is a copy of (`regions.are_one_list` holds them to that)."""
    name = tree.yaml("regions.yaml")["primary"]
    # The one that is there is held to the template elsewhere: here it is what the template gives.
    text = tree.text("terraform/modules/region/root.tf.template").replace("REGION", name)
    place = tree.root / f"terraform/regions/{name}/main.tf"
    place.unlink()
    place.write_text(text)
    yield from holds(tree, f"terraform/regions/{name}")


@check(
    # Who stands in for a lost region is judged by the lost region's check.
    Mistake("terraform/modules/dns/main.tf", "region[each.value.to].id", "region[each.value.of].id", "Somebody is sent to a lost region"),
    Mistake("terraform/modules/dns/health.tf", "child_health_threshold = 2", "child_health_threshold = 1", "not drained: both"),
)
def dns_survives_every_loss(tree):
    """Whom each continent is sent to, for every set of lost regions, by the records as they are made."""
    yield from holds(tree, "terraform/modules/dns")


@check(
    Mistake(f"{DATABASES}/rds.tf", "      replicate_source_db, engine,", "      engine,", "changes what the promotion is"),
    Mistake(f"{DATABASES}/rds.tf", 'each.key == "1" && length(local.identifier[var.region]) == 1 && ', "", "an_empty_second_generation_is_refused"),
    Mistake(f"{DATABASES}/main.tf", "source = local.instance_arns[var.primary_region]", 'source = local.instance_arns["us-east-1"]', "no replica of the new primary"),
    Mistake(f"{DATABASES}/outputs.tf", "Resource = [local.instance_arns[var.region]]", "Resource = values(local.instance_arns)", "its own region's instance"),
)
def promotion_changes_nothing(tree):
    """A database that was promoted stays as it is, whatever `primary` says by then; its successor is made beside it, and never empty;
    and who moves it may do that alone."""
    yield from holds(tree, DATABASES)


@check(
    Mistake("terraform/modules/observability/main.tf", '"missing", "breaching"', '"missing", "notBreaching"', "taken to be well"),
    Mistake("terraform/modules/observability/main.tf", 'metric = "HealthyHostCount"', 'metric = "UnHealthyHostCount"', "without anybody behind it"),
)
def silence_alarms(tree):
    """What tells nothing any more is not taken to be well."""
    yield from holds(tree, "terraform/modules/observability")


@check(
    Mistake("terraform/modules/dns-cloudflare/main.tf", "default_pools", "default_pool", "default_pool"),
)
def dns_at_cloudflare(tree):
    """The variant for regions on more than one cloud."""
    yield from holds(tree, "terraform/modules/dns-cloudflare", provider="cloudflare")


# Without a schema.


def plain(value):
    """A value as it is written, whichever of the two packages that are called hcl2 has read it."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        value = re.sub(r'^"(.*)"$', r"\1", re.sub(r"^\$\{(.*)\}$", r"\1", value, flags=re.S), flags=re.S)
    return value


def names(value):
    """The words of a list of attributes, as ignore_changes has them."""
    if isinstance(value, list):
        return {name for one in value for name in names(one)}
    return {plain(value)}


def read(tree, kind):
    """Every block of a kind that is not a test's: (file, type, name, attributes), the name empty where there is one label."""

    def parsed():
        found = {}
        for file in tree.files("terraform/**/*.tf"):
            name = str(file.relative_to(tree.root))
            if "/tests/" not in name:
                with file.open() as text:
                    found[name] = hcl2.load(text)
        return found

    for file, document in tree.once("terraform", parsed).items():
        for block in document.get(kind, []):
            for label, inner in block.items():
                if label.startswith("__"):
                    continue
                if kind == "resource":
                    for name, attributes in inner.items():
                        yield file, label.strip('"'), name.strip('"'), attributes
                else:
                    yield file, label.strip('"'), "", inner


def lifecycle(attributes):
    found = plain(attributes.get("lifecycle", {}))
    return found if isinstance(found, dict) else {}


@check(
    Mistake(f"{DATABASES}/rds.tf", "prevent_destroy = true", "prevent_destroy = false", "aws_db_instance.global may be destroyed"),
    Mistake(f"{DATABASES}/regional.tf", "deletion_protection       = true", "deletion_protection       = false", "aws_db_instance.regional may be deleted"),
    Mistake(f"{DATABASES}/regional.tf", "skip_final_snapshot       = false", "skip_final_snapshot       = true", "no last snapshot"),
    Mistake(f"{DATABASES}/aurora.tf", "global_cluster_identifier, replication_source_identifier,", "global_cluster_identifier,", "replication_source_identifier"),
    Mistake(f"{DATABASES}/rds.tf", "var.global.backup_days", "local.primary ? var.global.backup_days : 0", "a replica's backups"),
    Mistake("terraform/modules/cache/main.tf", "prevent_destroy = true", "prevent_destroy = false", "aws_elasticache_replication_group.this may be destroyed"),
    Mistake(f"{DATABASES}/main.tf", "prevent_destroy = true", "prevent_destroy = false", "aws_kms_key.database may be destroyed"),
    Mistake("terraform/foundation/main.tf", "prevent_destroy = true", "prevent_destroy = false", "aws_route53_zone.this may be destroyed"),
    Mistake("terraform/foundation/state.tf", "one way: checkov asks it of the copy too.\n\n  for_each = local.buckets\n  region   = each.key\n  bucket   = each.value\n\n  lifecycle {\n    prevent_destroy = true", "one way: checkov asks it of the copy too.\n\n  for_each = local.buckets\n  region   = each.key\n  bucket   = each.value\n\n  lifecycle {\n    prevent_destroy = false", "aws_s3_bucket.state may be destroyed"),
    Mistake("terraform/global/links.tf", "aws_route53_zone\" \"internal", "aws_route53_zone\" \"within", "aws_route53_zone.internal is not there"),
)
def keeps_databases(tree):
    """Nothing that holds data can be destroyed by an apply, or deleted by a slip; and what a promotion changes is nobody's to
    change back."""
    seen, spared = set(), set(SPARED)
    for file, kind, name, attributes in read(tree, "resource"):
        if kind not in KEEPERS:
            continue
        seen.add(kind)
        where = f"{file}: {kind}.{name}"
        if (file, kind, name) in SPARED:
            spared.discard((file, kind, name))
            continue
        if plain(lifecycle(attributes).get("prevent_destroy")) is not True:
            yield f"{where} may be destroyed: prevent_destroy"
        if kind in ENGINES | {"aws_rds_global_cluster"} and plain(attributes.get("deletion_protection")) is not True:
            yield f"{where} may be deleted: deletion_protection"
        if kind in ENGINES:
            if plain(attributes.get("skip_final_snapshot")) is not False:
                yield f"{where} leaves no last snapshot: skip_final_snapshot"
            if not re.fullmatch(r"var\.(global|regional)\.backup_days", str(plain(attributes.get("backup_retention_period")))):
                yield f"{where}: a replica's backups are the primary's: backup_retention_period"
            if name == "global":
                for missing in sorted(MOVES[kind] - names(lifecycle(attributes).get("ignore_changes", []))):
                    yield f"{where} would be changed back after a promotion: {missing} is not in ignore_changes"
    for missing in sorted(KEEPERS - seen):
        yield f"terraform: no {missing} any more; the check is to look at what took its place"
    for file, kind, name in sorted(spared):
        yield f"{file}: {kind}.{name} is not there, and was to be spared"


SECRET = re.compile(r"password|auth_token|secret_string|secret_key|private_key")
# Names in which the word is no secret: who keeps it, when it changes, that there is none.
NOT_SECRET = re.compile(r"manage_master_user_password|_wo_version$|no_password_required|secret_arn$|secret_kms")


def nested(value, before=""):
    """What is called a secret, however deep: (its path, its value)."""
    if isinstance(value, list):
        for one in value:
            yield from nested(one, before)
    elif isinstance(value, dict):
        for key, one in value.items():
            key = key.strip('"')
            if SECRET.search(key) and not NOT_SECRET.search(key):
                yield before + key, one
            else:
                yield from nested(one, f"{before}{key}.")


@check(
    Mistake("terraform/modules/database/rds.tf", "local.primary ? var.owner_password : null", '"hunter2hunter2"', "password_wo"),
    Mistake("terraform/modules/cache/main.tf", "num_cache_clusters ", 'auth_token = "hunter2hunter2hunter2"\n  num_cache_clusters ', "auth_token"),
    Mistake("terraform/modules/cache/main.tf", 'type = "no-password-required"', 'passwords = ["hunter2hunter2hunter2"]', "authentication_mode.passwords"),
    Mistake("terraform/modules/region/main.tf", "= var.owner_password", '= "hunter2hunter2"', "module.database: owner_password is written here"),
    Mistake("terraform/modules/region/outputs.tf", "value       = module.cluster.name", "value       = { password = var.owner_password }", "cluster: value.password would be kept"),
    Mistake("terraform/modules/database/variables.tf", "sensitive   = true", "sensitive   = false", "owner_password is not sensitive"),
)
def has_no_secret(tree):
    """No secret is written here, or into a state: a password is a variable that is written through and not kept."""
    for file, kind, name, attributes in read(tree, "resource"):
        for key, value in nested(attributes):
            if not key.endswith("_wo"):
                yield f"{file}: {kind}.{name}: {key} would be kept in the state"
            elif "var." not in str(plain(value)):
                yield f"{file}: {kind}.{name}: {key} is written here"
    for file, name, _, attributes in read(tree, "module"):
        for key, value in nested(attributes):
            if not str(plain(value)).startswith("var."):
                yield f"{file}: module.{name}: {key} is written here"
    for file, name, _, attributes in read(tree, "output"):
        for key, _ in nested(attributes):
            yield f"{file}: output {name}: {key} would be kept in the state"
    for file, name, _, attributes in read(tree, "variable"):
        if SECRET.search(name) and plain(attributes.get("sensitive")) is not True:
            yield f"{file}: variable {name} is not sensitive"


@check(
    Mistake("terraform/regions/eu-west-1/main.tf", "regions/eu-west-1.tfstate", "regions/us-east-1.tfstate", "regions/us-east-1.tfstate is the state of two roots"),
    Mistake("terraform/global/main.tf", "use_lockfile = true", "use_lockfile = false", "not locked"),
    Mistake("terraform/regions/ap-south-1/main.tf", '  region              = "ap-south-1"', '  region              = "eu-west-1"', "works in eu-west-1"),
    Mistake("regions.yaml", "10.48.0.0/16", "10.32.128.0/17", "overlap"),
    Mistake("terraform/global/links.tf", "auto_accept               = true", 'auto_accept               = each.value.to != "eu-west-1"', "names eu-west-1"),
)
def has_a_state_for_each_region(tree):
    """As many roots as regions, each with a state and a network of its own, and nothing that knows one by name."""
    listed = tree.yaml("regions.yaml")["regions"]
    roots = {path.parent.name for path in tree.files("terraform/regions/*/main.tf")}
    for name in sorted(roots ^ {name for name, region in listed.items() if region.get("cloud", "aws") == "aws"}):
        yield f"terraform/regions/{name}: not both a root and in regions.yaml"
    keys = {}
    for file, document in ((str(f.relative_to(tree.root)), f) for f in tree.files("terraform/**/main.tf")):
        text = document.read_text()
        if not (found := re.search(r'backend "s3" \{(.*?)\n  \}', text, re.S)):
            continue
        backend = dict(re.findall(r"(\w+) *= *(.+)", found[1]))
        keys.setdefault(backend.get("key", "").strip('"'), []).append(file)
        if backend.get("use_lockfile") != "true":
            yield f"{file}: the state is not locked"
        if backend.get("encrypt") != "true":
            yield f"{file}: the state is not encrypted"
        if place := re.fullmatch(r"terraform/regions/(.+)/main\.tf", file):
            works = re.search(r'provider "aws" \{\n  region *= "(.+)"', text)
            if works and works[1] != place[1]:
                yield f"{file}: works in {works[1]}"
    for key, files in keys.items():
        if len(files) > 1:
            yield f"{key} is the state of two roots: {', '.join(files)}"
    networks = [(name, ipaddress.ip_network(region["network"])) for name, region in listed.items()]
    for index, (name, network) in enumerate(networks):
        for other, its in networks[index + 1 :]:
            if network.overlaps(its):
                yield f"regions.yaml: the networks of {name} and {other} overlap"
    # us-east-1 is also where CloudFront and Route 53's metrics are, whatever regions there are.
    for file in tree.files("terraform/**/*.tf"):
        name = str(file.relative_to(tree.root))
        if name.startswith("terraform/regions/") or "/tests/" in name:
            continue
        for line in file.read_text().splitlines():
            code = line.split("#")[0]
            for region in listed:
                if f'"{region}"' in code and not re.fullmatch(r' *region *= "us-east-1"', code):
                    yield f"{name} names {region}: {line.strip()}"


@check(
    Mistake("terraform/modules/dns/health.tf", "Who raised a flag is in CloudTrail; who read it are the checkers, every few seconds.", "fine", "CKV_AWS_18"),
)
def skips_with_a_reason(tree):
    """Each finding that is not followed says why in a sentence, where it is."""
    for file in tree.files("terraform/**/*.tf"):
        for rule, reason in re.findall(r"#checkov:skip=(\w+):?(.*)", file.read_text()):
            if len(reason.split()) < 3 or not reason.rstrip().endswith("."):
                yield f"{file.relative_to(tree.root)}: {rule} is skipped without a reason"


@check(
    Mistake(f"{DATABASES}/regional.tf", "storage_encrypted                   = true", "storage_encrypted                   = false", "CKV_AWS_16"),
)
def passes_checkov(tree):
    ran = tree.run(
        "checkov", "--directory", "terraform", "--framework", "terraform", "--quiet", "--compact", "--skip-download", "--output", "json",
        env=os.environ | {"LOG_LEVEL": "ERROR"},
    )  # fmt: skip
    try:
        report = json.loads(ran.stdout)
    except ValueError:
        yield f"checkov: {told(ran)}"
        return
    report = report[0] if isinstance(report, list) else report
    for failed in report["results"]["failed_checks"]:
        yield f"terraform{failed['file_path']}: {failed['resource']}: {failed['check_id']}: {failed['check_name']}"
    if report["summary"]["passed"] < 100:
        yield "checkov: it has hardly looked at anything"


@check(
    Mistake("terraform/README.md", "`modules/cache`", "", "modules/cache"),
    Mistake("terraform/README.md", "`terraform/foundation`", "", "terraform/foundation"),
)
def is_described(tree):
    """terraform/README.md names every root and every module."""
    text = tree.text("terraform/README.md")
    for module in sorted({path.parent.name for path in tree.files("terraform/modules/*/*.tf")}):
        if f"`modules/{module}`" not in text:
            yield f"terraform/README.md says nothing of modules/{module}"
    for root in ("foundation", "regions/REGION", "global"):
        if f"`terraform/{root}`" not in text:
            yield f"terraform/README.md says nothing of terraform/{root}"
