"""The image and the containers of compose.yaml, as far as their texts tell without an engine.

tests/image does by hand what the build stage does; it is no part of this, because it builds.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import tomllib

from compose_spec import PyCompose
from judge import Mistake, check

# Cargo's features that no release has.
NOT_RELEASED = {"broken", "default"}


def instructions(tree):
    """(name, the rest) of each instruction of the Dockerfile, comments left out and its lines joined."""
    lines = [line for line in tree.text("Dockerfile").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def all_of(tree, name):
    return [rest for instruction, rest in instructions(tree) if instruction == name]


def cargo(tree):
    return tomllib.loads(tree.text("Cargo.toml"))


@check(
    Mistake("Dockerfile", "USER 65532:65532", "USER nonroot", "USER nonroot"),
    Mistake("Dockerfile", "USER 65532:65532", "USER 0:0", "USER 0:0"),
    Mistake("Dockerfile", "rust:1.95.0-slim", "rust:1.94.0-slim", "1.94.0"),
    Mistake("Dockerfile", "cc-debian12:nonroot", "cc-debian12:latest", "latest"),
    Mistake("Dockerfile", "EXPOSE 8081 9081 9181", "EXPOSE 8080 9081 9181", "EXPOSE"),
    Mistake("Dockerfile", 'image.version="0.1.0"', 'image.version="0.2.0"', "0.2.0"),
    Mistake("Dockerfile", 'image.licenses="MIT OR Apache-2.0"', 'image.licenses="MIT"', "licences"),
    Mistake("Dockerfile", 'CMD ["serve"]', 'CMD ["server"]', "server"),
    Mistake("src/config/server.rs", "Ipv4Addr::LOCALHOST, 9181", "Ipv4Addr::LOCALHOST, 9191", "EXPOSE"),
)
def dockerfile(tree):
    """Who it runs as, what it is made from and says of itself, and what it starts."""
    package = cargo(tree)["package"]
    user = all_of(tree, "USER")[-1]
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user):
        yield f"Dockerfile: USER {user} is no number of somebody but root"
    bases = [rest.split()[0] for rest in all_of(tree, "FROM")]
    for base in bases:
        name, _, tag = base.rpartition(":")
        if not name or "/" in tag or tag == "latest":
            yield f"Dockerfile: {base} has no tag of its own"
    rust = next(base for base in bases if base.startswith("rust:")).removeprefix("rust:")
    if not rust.startswith(package["rust-version"] + "."):
        yield f"Dockerfile: built with Rust {rust}, and Cargo.toml wants {package['rust-version']}"
    listens = re.findall(r"Ipv4Addr::LOCALHOST, (\d+)\)", tree.text("src/config/server.rs"))
    if [port for ports in all_of(tree, "EXPOSE") for port in ports.split()] != listens:
        yield f"Dockerfile: EXPOSE is not {' '.join(listens)}, where the program listens"
    labels = dict(re.findall(r'opencontainers\.image\.(\w+)="([^"]*)"', "\n".join(all_of(tree, "LABEL"))))
    if labels.get("version") != package["version"]:
        yield f"Dockerfile: labelled {labels.get('version')}, and Cargo.toml says {package['version']}"
    if labels.get("licenses") != package["license"]:
        yield f"Dockerfile: its licences are labelled {labels.get('licenses')}, and Cargo.toml says {package['license']}"
    program = json.loads(all_of(tree, "ENTRYPOINT")[-1])
    checked = [rest.partition("CMD")[2].strip() for rest in all_of(tree, "HEALTHCHECK")]
    for words in [program + json.loads(all_of(tree, "CMD")[-1]), *map(json.loads, checked)]:
        command = words[len(program)]
        if words[: len(program)] != program or not (tree.root / f"src/cli/{command}.rs").exists():
            yield f"Dockerfile: {' '.join(words)} is no command of the program"


@check(
    Mistake("Dockerfile", "COPY askama.toml ./", "COPY askama.toml docs ./", "docs"),
    Mistake("Dockerfile", "COPY .sqlx .sqlx", "", ".sqlx"),
    Mistake(".dockerignore", "!.cargo\n", "", ".cargo"),
    Mistake(".dockerignore", "!build.rs", "!build.rs\n!docs", "docs"),
    Mistake(".dockerignore", "*\n!", "!", "everything"),
    Mistake("askama.toml", "", None, "askama.toml"),
)
def context(tree):
    """What the build copies is there and is sent to it, and nothing else is: neither target nor .git."""
    copied = [rest.split()[:-1] for rest in all_of(tree, "COPY") if not rest.startswith("--")]
    copied = {source for sources in copied for source in sources}
    rules = [line for line in tree.text(".dockerignore").splitlines() if line and not line.startswith("#")]
    if rules[0] != "*" or not all(rule.startswith("!") for rule in rules[1:]):
        yield ".dockerignore does not leave out everything and then let in what is needed"
    for source in sorted(copied ^ {rule.removeprefix("!") for rule in rules} - {"*"}):
        yield f"{source}: copied by the Dockerfile or let in by .dockerignore, and not both"
    for source in sorted(copied):
        if not (tree.root / source).exists():
            yield f"Dockerfile: {source} is not there to be copied"


def calls(tree, name, program):
    """Every call of a program in a file: its flags, each with its value, in whichever order and on however many lines."""
    code = "\n".join(line for line in tree.text(name).splitlines() if not line.lstrip().startswith("#"))
    for call in re.findall(rf"\b{program} (-[^&|;\n]*)", re.sub(r"\\\n\s*", " ", code)):
        call = call.replace('"', "")
        found = {}
        for flag, value in re.findall(r"(?<!\S)(--[\w-]+)(?:[= ]([\w,]+))?(?!\S)", call):
            # What is said twice adds up.
            found[flag] = ",".join(filter(None, [found.get(flag), value]))
        yield found


def compiled_in(tree, flags):
    """The features that a build has, those that a feature of its stands for in its place."""
    known, found = cargo(tree)["features"], set()
    open_ = [name for name in flags.get("--features", "").split(",") if name]
    while open_:
        name = open_.pop()
        named = [one for one in known.get(name, []) if one in known]
        found |= set() if named else {name}
        open_ += named
    return found


@check(
    Mistake("tests/image", "cargo build --locked --profile dist", "cargo build --profile dist", "cargo build"),
    Mistake("Dockerfile", "--bin godwit \\\n    && strip", "--bin godwit --offline \\\n    && strip", "differ"),
    Mistake("Dockerfile", "--features platforms", "\\\n        --features rds", "cargo build without cloudnativepg"),
    Mistake("tests/image", " --features platforms", "", "differ"),
    Mistake("Dockerfile", "--features platforms", "--features platforms --features broken", "with broken, which is no feature of a release"),
    Mistake("Cargo.toml", 'platforms = ["cloudnativepg", "rds"]', 'platforms = ["cloudnativepg"]', "cargo build without rds"),
    Mistake("Dockerfile", "strip --strip-all", "strip --strip-debug", "strip"),
    Mistake("Dockerfile", "cc-debian12", "base-debian12", "base-debian12"),
    Mistake("Cargo.toml", "[profile.dist]", "[profile.shipped]", "dist"),
)
def by_hand(tree):
    """tests/image does what the build stage does, both builds of it alike, and looks for what the final image has."""
    for program in ("cargo build", "strip"):
        called = [(name, found) for name in ("Dockerfile", "tests/image") for found in calls(tree, name, program)]
        if {name for name, _ in called} != {"Dockerfile", "tests/image"} or any(found != called[0][1] for _, found in called):
            yield f"{program}: the Dockerfile and tests/image differ: {called}"
        for name, found in called if program == "cargo build" else ():
            if found.get("--profile") not in cargo(tree)["profile"] or "--locked" not in found:
                yield f"{name}: {found}: not by the lock file, or by no profile of Cargo.toml (dist)"
            has = compiled_in(tree, found)
            released = compiled_in(tree, {"--features": ",".join(set(cargo(tree)["features"]) - NOT_RELEASED)})
            for feature in sorted(has - released):
                yield f"{name}: cargo build with {feature}, which is no feature of a release (Cargo.toml)"
            for feature in sorted(released - has):
                yield f"{name}: cargo build without {feature}, which every release has (Cargo.toml)"
    final = all_of(tree, "FROM")[-1].rpartition(":")[0]
    if f"Of {final}:" not in tree.text("tests/image"):
        yield f"tests/image does not speak of {final}"


def composed(tree):
    return tree.once("compose", lambda: tree.yaml("compose.yaml"))


def called(service, kind):
    """What a service names of the configs or secrets."""
    return [one if isinstance(one, str) else one["source"] for one in service.get(kind, [])]


@check(
    Mistake("compose.yaml", "restart: unless-stopped", "restartt: unless-stopped", "restartt"),
    Mistake("compose.yaml", "cap_drop: [ALL]", "cap_drop: [ALL]\n  read_only: true", "cannot put the texts"),
    Mistake("compose.yaml", "postgres:15-bookworm", "postgres", "postgres has no tag"),
    Mistake("compose.yaml", '"127.0.0.1:8082:8081"', '"8082:8081"', "8082:8081"),
    Mistake("compose.yaml", '"127.0.0.1:8082:8081"', '"127.0.0.1:8089:8081"', "8089"),
    Mistake("compose.yaml", "cap_drop: [ALL]", "cap_drop: [NET_RAW]", "cap_drop"),
    Mistake("compose.yaml", "  user: redis\n", "", "redis-"),
    Mistake("compose.yaml", "  secrets: [redis]", "  secrets: [radish]", "radish"),
    Mistake("compose.yaml", "{condition: service_healthy}", "{condition: service_started}", "is waited for"),
    Mistake("compose.yaml", "  secrets: [superuser]", "  environment: {PGPASSWORD: secret}", "PGPASSWORD"),
    Mistake("compose.yaml", "deploy: {resources: {limits: {cpus: \"0.5\", memory: 384M}}}", "deploy: {}", "no limits"),
    Mistake("compose.yaml", "{internal: true}", "{}", "reaches out"),
)
def compose(tree):
    """compose.yaml is one that Compose takes, and every container of it is as locked up as a pod would be."""
    whole = composed(tree)
    services = whole["services"]
    try:
        PyCompose.from_json(json.dumps({name: part for name, part in whole.items() if not name.startswith("x-")})).validate()
    except ValueError as error:
        yield f"compose.yaml: {error}"
    for name, service in services.items():
        image, _, tag = service["image"].partition(":")
        if image != "godwit" and tag in ("", "latest"):
            yield f"{name}: {service['image']} has no tag"
        # The image's own user is a number that is not root's.
        if image != "godwit" and not service.get("user"):
            yield f"{name}: runs as root"
        if service.get("cap_drop") != ["ALL"]:
            yield f"{name}: cap_drop is not ALL"
        if service.get("read_only") and service.get("configs"):
            yield f"{name}: is read_only, where Compose cannot put the texts of its configs"
        if service.get("security_opt") != ["no-new-privileges:true"]:
            yield f"{name}: may gain privileges"
        if set(service.get("deploy", {}).get("resources", {}).get("limits", {})) != {"cpus", "memory"}:
            yield f"{name}: no limits"
        for variable in service.get("environment", {}):
            if re.search(r"PASSWORD|SECRET|_URL|TOKEN", variable) and not variable.endswith("_FILE"):
                yield f"{name}: {variable} is a secret in the environment"
        for other, wanted in service.get("depends_on", {}).items():
            ends = services.get(other, {}).get("restart") == "no"
            right = "service_completed_successfully" if ends else "service_healthy"
            if other not in services or wanted["condition"] != right:
                yield f"{name}: {other} is waited for until {wanted['condition']}"
            if not ends and "healthcheck" not in services.get(other, {}):
                yield f"{name}: nothing tells whether {other} is healthy"
    for kind in ("secrets", "configs"):
        used = {one for service in services.values() for one in called(service, kind)}
        for odd in sorted(used ^ whole[kind].keys()):
            yield f"compose.yaml: {odd} of {kind} is used or declared, and not both"
    listed = tree.yaml("regions.yaml")["regions"]
    for index, region in enumerate(listed):
        ports = [f"127.0.0.1:{8081 + index}:8081", f"127.0.0.1:{9181 + index}:9181"]
        if services[f"godwit-{region}"]["ports"] != ports:
            yield f"godwit-{region}: {services[f'godwit-{region}']['ports']} is not {ports}"
        if whole["networks"][region] != {"internal": True}:
            yield f"compose.yaml: the network {region} reaches out"


@check(
    Mistake("compose.yaml", "public_addr =", "public_address =", "server.public_address"),
    Mistake("compose.yaml", "GODWIT__DATABASE__READ_URL_FILE", "GODWIT__DATABASE__READER_URL_FILE", "database.reader_url"),
    Mistake("compose.yaml", 'envelope_key_current = "first"', 'envelope_key_current = "second"', "second"),
    Mistake("compose.yaml", "-c wal_log_hints=on", "-c 'wal_log_hints=on", "start-postgres"),
    Mistake("compose.yaml", "{file: .godwit/compose/pgpass}", "{file: .godwit/compose/passwords}", "passwords"),
    Mistake("compose.yaml", "redis envelope; do", "redis; do", "envelope"),
    Mistake("compose.yaml", " >primary     #", " >first     #", "nothing makes .godwit/compose/primary"),
    Mistake("compose.yaml", '[ "$$REGION" = "$$primary" ]', '[ "$$REGION" != "$$primary" ]', "the first of all: copy and not new"),
    Mistake("compose.yaml", "                  exit 1\n", "", "whose data is lost: new and not refused"),
    Mistake("compose.yaml", "      REGION: eu-west-1\n", "      REGION: eu-west-1\n      PRIMARY: us-east-1\n", "PRIMARY"),
    Mistake("compose.yaml", "GRANT godwit_failover TO godwit_control", "GRANT godwit_failover TO godwit_app", "godwit_failover TO godwit_control"),
    Mistake("src/lab/postgres.rs", "GRANT pg_checkpoint TO", "GRANT pg_checkpoint, pg_monitor TO", "pg_monitor TO godwit_replication"),
)
def containers(tree):
    """What the containers are told: settings that there are, shell that parses, secrets that its steps make, the laboratory's grants."""
    whole = composed(tree)
    known = set(re.findall(r"^\| `([a-z_.A-Z]+)` \|", tree.text("docs/SETTINGS.md"), re.M))
    texts = {name: config["content"].replace("$$", "$") for name, config in whole["configs"].items()}
    settings = tomllib.loads(texts["godwit"])
    regions = tree.yaml("regions.yaml")["regions"]
    if set(settings["regions"]) != set(regions):
        yield "compose.yaml: the settings have other regions"
    told = {re.sub(r"^regions\.[a-z0-9-]+", "regions.NAME", name) for name in flat(settings)}
    variables = {name for service in whole["services"].values() for name in service.get("environment", {})}
    keys = set()
    for variable in variables:
        if variable.startswith("GODWIT__"):
            name = variable.removesuffix("_FILE").removeprefix("GODWIT__").lower().replace("__", ".")
            keys |= set(re.findall(r"^cluster\.envelope_keys\.(\w+)\.secret$", name))
            told.add(re.sub(r"(envelope_keys)\.\w+", r"\1.NAME", name))
    for name in sorted(told - known):
        yield f"compose.yaml: {name} is no setting (docs/SETTINGS.md)"
    if settings["cluster"]["envelope_key_current"] not in keys:
        yield f"compose.yaml: {settings['cluster']['envelope_key_current']} is none of the keys {sorted(keys)}"
    shell = {name: texts[name] for name in ("start-postgres", "roles")}
    for name, service in whole["services"].items():
        words = [*service.get("entrypoint", []), *service.get("command", [])]
        if words[:2] == ["sh", "-euc"]:
            shell[name] = words[2].replace("$$", "$")
    for name, text in shell.items():
        parsed = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        if parsed.returncode != 0:
            yield f"compose.yaml: {name} is no shell: {parsed.stderr.strip()}"
    yield from makes_secrets(tree, whole)
    yield from begins(texts["start-postgres"], list(regions))
    # Changed after a move, it would have every container made anew.
    for name, service in whole["services"].items():
        if "PRIMARY" in service.get("environment", {}):
            yield f"{name}: where the primary is is no matter of the environment: PRIMARY"
    there = grants(texts["roles"] + texts["grants"])
    for grant in sorted(grants(tree.text("src/lab/postgres.rs")) ^ there):
        yield f"compose.yaml and the laboratory differ: {grant}"


# What there is when a region's Postgres starts, and what then becomes of it.
BEGINNINGS = {
    "the first of all": ({"region": 0, "up": ""}, "new"),
    "one of the others": ({"region": 1, "up": "postgres-0"}, "copy"),
    "the first again, whose data is lost": ({"region": 0, "up": "postgres-1"}, "refused"),
    "one that has its data": ({"region": 0, "up": "postgres-1", "data": "15"}, "started"),
}


def begins(text, regions):
    """Runs the start of a region's Postgres, with words in the places of the programs that it calls."""
    here = pathlib.Path(tempfile.mkdtemp())
    try:
        for name, body in {
            "install": "exit 0",
            "pg_isready": 'case " $UP " in *" ${2#--host=} "*) exit 0;; esac; exit 2',
            "pg_basebackup": 'echo copy >"$OUT"',
            "docker-entrypoint.sh": '[ -e "$OUT" ] || if [ -s "$PGDATA/PG_VERSION" ]; then echo started >"$OUT"; else echo new >"$OUT"; fi',
        }.items():
            (here / name).write_text(f"#!/bin/sh\n{body}\n")
            (here / name).chmod(0o755)
        (here / "primary").write_text(f"{regions[0]}\n")
        for what, (state, expected) in BEGINNINGS.items():
            data, out = here / what / "data", here / what / "out"
            data.mkdir(parents=True)
            if "data" in state:
                (data / "PG_VERSION").write_text(state["data"])
            up = re.sub(r"postgres-(\d)", lambda match: f"postgres-{regions[int(match[1])]}", state["up"])
            own = os.environ | {"PATH": f"{here}:{os.environ['PATH']}", "REGION": regions[state["region"]], "PGDATA": str(data), "OUT": str(out), "UP": up}
            script = text.replace("/run/secrets", str(here))
            ran = subprocess.run(["sh"], input=script, env=own, capture_output=True, text=True, check=False)
            became = out.read_text().strip() if out.exists() else "refused" if ran.returncode else "nothing"
            if became != expected:
                yield f"compose.yaml: {what}: {became} and not {expected}; {ran.stderr.strip()}"
    finally:
        shutil.rmtree(here)


def flat(table, before=""):
    for name, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def grants(text):
    """Every GRANT, one line and one privilege each."""
    text = re.sub(r"\\?\s*\n\s*", " ", text)
    found = set()
    for what, who in re.findall(r"GRANT ([^;\"]+?) TO (godwit_\w+)", text):
        kind, on, objects = what.partition(" ON ")
        # A list of privileges without an object, or of objects with one.
        several = re.split(r", (?![^(]*\))", objects if on else kind)
        prefix = f"{kind} ON {objects.split()[0]} " if on else ""
        found |= {f"{prefix}{one.removeprefix(objects.split()[0]).strip() if on else one} TO {who}" for one in several}
    return found


def makes_secrets(tree, whole):
    """Runs the steps of the head's comment that make passwords and keys, in a directory of their own."""
    lines = [line.removeprefix("#   ") for line in tree.text("compose.yaml").splitlines() if line.startswith("#   ")]
    first = next(number for number, line in enumerate(lines) if line.startswith("mkdir"))
    last = next(number for number, line in enumerate(lines) if line.startswith(" chmod"))
    here = pathlib.Path(tempfile.mkdtemp())
    try:
        made = subprocess.run(["sh", "-eu"], input="\n".join(lines[first : last + 1]), cwd=here, capture_output=True, text=True,
                              check=False)
        if made.returncode != 0:
            yield f"compose.yaml: the steps that make secrets fail: {made.stderr.strip()}"
        for name, secret in whole["secrets"].items():
            file = here / secret["file"]
            if not file.is_file() or not file.stat().st_size:
                yield f"compose.yaml: nothing makes {secret['file']} ({name})"
            # Its reader has a user of its own in the container; the directory is nobody's but its owner's.
            elif file.stat().st_mode & 0o777 != 0o444 or file.parent.stat().st_mode & 0o077:
                yield f"compose.yaml: {secret['file']} can be read by others, or not by its container"
    finally:
        shutil.rmtree(here)
