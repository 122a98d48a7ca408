"""Alerts, recording rules, dashboards, and what is written of them."""

import json
import re
import tempfile

import promql_parser
import yaml

import rendering
from judge import Mistake, check
from promql import Metric, Unknown, labels, numbers, program

RULES = "helm/godwit/rules"
DASHBOARDS = "helm/godwit/dashboards"
TESTS = "tests/deployment/rules"
DOCS = "docs/ALERTS.md"
FAILURES = "docs/FAILURE-MODES.md"

POD = {"namespace", "pod", "container"}
# Metrics of others, each with why the program's own do not do.
OTHERS = {
    # Whether a scrape works, and which alerts fire: Prometheus' own.
    "up": Metric({"namespace", "pod"}),
    "ALERTS": Metric({"alertname", "alertstate", "severity"}),
    # A process cannot tell that it was ended, what it may have, or how many of it there may be: kube-state-metrics, cAdvisor.
    "kube_pod_container_status_restarts_total": Metric(POD),
    "kube_pod_container_resource_limits": Metric(POD | {"resource", "unit"}),
    "kube_horizontalpodautoscaler_status_current_replicas": Metric({"namespace", "horizontalpodautoscaler"}),
    "kube_horizontalpodautoscaler_spec_max_replicas": Metric({"namespace", "horizontalpodautoscaler"}),
    "kube_horizontalpodautoscaler_spec_min_replicas": Metric({"namespace", "horizontalpodautoscaler"}),
    "container_memory_working_set_bytes": Metric(POD),
    "container_cpu_cfs_periods_total": Metric(POD),
    "container_cpu_cfs_throttled_periods_total": Metric(POD),
    "container_cpu_usage_seconds_total": Metric(POD),
    # The program does not look at slots: the monitoring of CloudNativePG, and postgres_exporter.
    "cnpg_pg_replication_slots_pg_wal_lsn_diff": Metric({"namespace", "pod", "slot_name", "slot_type", "database"}),
    "pg_replication_slot_safe_wal_size_bytes": Metric({"slot_name", "slot_type"}),
    "pg_replication_slot_wal_status": Metric({"slot_name", "slot_type", "wal_status"}),
    # The program does not tell when its certificates end: cert-manager.
    "certmanager_certificate_expiration_timestamp_seconds": Metric({"name", "namespace"}),
}


def rule_files(tree):
    """Each file of rules with its rules, in order."""
    def read():
        found = {}
        for file in tree.files(f"{RULES}/*.yaml"):
            groups = yaml.safe_load(file.read_text())["groups"]
            found[file.stem] = [rule for group in groups for rule in group["rules"]]
        return found

    return tree.once("rules", read)


def alerts(tree):
    """Each alert by its name, with the file that it is in."""
    return {
        rule["alert"]: (stem, rule)
        for stem, rules in rule_files(tree).items()
        for rule in rules
        if "alert" in rule
    }


def dashboards(tree):
    return {file.stem: json.loads(file.read_text()) for file in tree.files(f"{DASHBOARDS}/*.json")}


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(board):
    """What a dashboard asks, with what Grafana would put in the place of its variables."""
    found = [(panel["title"], target["expr"]) for panel in panels(board) for target in panel["targets"]]
    found += [(one["name"], one["expr"]) for one in board["annotations"]["list"] if "expr" in one]
    places = {"$region": "us-east-1", "$__rate_interval": "1m", "$__range": "3h"}
    for title, expr in found:
        for variable, value in places.items():
            expr = expr.replace(variable, value)
        yield title, expr


def metrics(tree):
    """Everything that an expression may name, what the rules record too."""
    def known():
        found = {**program(tree), **OTHERS}
        recorded: dict[str, Metric] = {}
        # A rule may record what another one reads that comes after it.
        for _ in range(2):
            for rule in (rule for rules in rule_files(tree).values() for rule in rules if "record" in rule):
                try:
                    of = labels(promql_parser.parse(rule["expr"]), {**found, **recorded})
                except Unknown:
                    continue
                named = rule.get("labels", {})
                metric = recorded.setdefault(rule["record"], Metric(set()))
                metric.labels |= of | named.keys()
                for label, value in named.items():
                    metric.values.setdefault(label, set()).add(value)
        for name, metric in recorded.items():
            # Which indicators there are is told where they are counted.
            if "sli" in metric.labels:
                metric.values["sli"] = recorded["region:godwit_sli_total:rate2m"].values["sli"]
        return {**found, **recorded}

    return tree.once("metrics", known)


@check(
    Mistake(f"{RULES}/replication.yaml", "godwit_region_role{role=\"unknown\"}) == 1", "godwit_region_role{role=\"unknown\"} == 1", "replication.yaml"),
    Mistake(f"{RULES}/primary.yaml", "{{ $value }} regions", "{{ $valu }} regions", "primary.yaml"),
    Mistake(f"{RULES}/loops.yaml", "alert: GodwitLoopPanicked", "alert: Godwit LoopPanicked\n        lable: x", "loops.yaml"),
)
def rules_are_valid(tree):
    """Prometheus takes each file of rules, and finds nothing to remark on."""
    for file in tree.files(f"{RULES}/*.yaml"):
        tried = tree.run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(file))
        if tried.returncode != 0:
            yield f"{file.name}: {tried.stdout}{tried.stderr}"


@check(
    Mistake(f"{RULES}/replication.yaml", ") > 10\n", ") >= 10\n", "GodwitLagHigh"),
    Mistake(f"{RULES}/objectives.yaml", 'status=~"5.."', 'status=~"[45].."', "region:godwit_slo_burn"),
    Mistake(f"{RULES}/regions.yaml", "for: 2m", "for: 20m", "GodwitRegionDown"),
    Mistake(f"{TESTS}/loops.test.yaml", "values: 0+42x60", "values: 0+39x60", "GodwitSessionChangesSlow"),
)
def tests_of_rules_pass(tree):
    """Every alert fires, and keeps still, as its tests say."""
    tried = tree.run("promtool", "test", "rules", *map(str, tree.files(f"{TESTS}/*.test.yaml")))
    if tried.returncode != 0:
        yield (tried.stdout + tried.stderr).partition("FAILED:")[2] or tried.stderr


@check(
    Mistake(f"{RULES}/people.yaml", "for: 15m", "keep_firing: 1m", "no `for`"),
    Mistake(f"{RULES}/people.yaml", "severity: warning", "severity: page", "critical or warning"),
    Mistake(f"{RULES}/people.yaml", "summary:", "sumary:", "summary"),
    Mistake(f"{RULES}/people.yaml", "#godwitsessionsowed", "#godwitsessions", "runbook_url"),
    Mistake(f"{RULES}/people.yaml", "alert: GodwitSessionsOwed", "alert: SessionsOwed", "named Godwit"),
    Mistake(f"{RULES}/people.yaml", "alert: GodwitGuessesUntold", "alert: GodwitSessionsOwed", "twice"),
    Mistake(f"{RULES}/forwarding.yaml", "{{ $labels.peer }} no more", "{{ $labels.pear }} no more", "pear"),
    Mistake(f"{TESTS}/people.test.yaml", "alertname: GodwitGuessesUntold\n        exp_alerts: []", "alertname: GodwitSessionsOwed\n        exp_alerts: []", "keeps still"),
    Mistake(f"{TESTS}/telemetry.test.yaml", "alertname: GodwitLogLinesDropped\n        exp_alerts:\n", "alertname: GodwitSpansNotExported\n        exp_alerts:\n", "GodwitLogLinesDropped: no test in which it fires"),
    Mistake(f"{TESTS}/primary.test.yaml", "  - godwit.regions\n", "", "group_eval_order"),
    Mistake(f"{TESTS}/objectives.test.yaml", "region:godwit_slo_burn:rate2h{", "region:godwit_slo_burn:rate1d{", "rate2h"),
)
def alerts_are_whole(tree):
    """Each alert says what it should, leads to its section, and has a test in which it fires and one in which it does not."""
    files = {file: yaml.safe_load(file.read_text()) for file in tree.files(f"{TESTS}/*.test.yaml")}
    for file, content in files.items():
        read = [yaml.safe_load((file.parent / rules).read_text()) for rules in content["rule_files"]]
        groups = [group["name"] for rules in read for group in rules["groups"]]
        # Else each run has an order of its own, and what one group records comes to another now or a minute later.
        if len(groups) > 1 and set(content.get("group_eval_order", [])) != set(groups):
            yield f"{file.name}: group_eval_order does not name {', '.join(groups)}"
    tests = [test for content in files.values() for test in content["tests"]]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    seen = set()
    for stem, rules in rule_files(tree).items():
        if not (tree.root / TESTS / f"{stem}.test.yaml").is_file():
            yield f"{stem}: no tests"
        for rule in rules:
            if "record" in rule:
                continue
            name, notes = rule["alert"], rule.get("annotations", {})
            if name in seen:
                yield f"{name} is there twice"
            seen.add(name)
            if not re.fullmatch(r"Godwit[A-Z]\w+", name):
                yield f"{name} is not named Godwit..."
            if "for" not in rule:
                yield f"{name}: no `for`"
            if rule.get("labels", {}).get("severity") not in ("critical", "warning"):
                yield f"{name}: severity is neither critical or warning"
            for note in ["summary", "description"]:
                if not notes.get(note, "").rstrip().endswith("."):
                    yield f"{name}: no {note}, or no sentence"
            if notes.get("runbook_url") != f"{DOCS}#{name.lower()}":
                yield f"{name}: runbook_url does not lead to its section"
            try:
                there = labels(promql_parser.parse(rule["expr"]), metrics(tree)) | rule.get("labels", {}).keys()
            except Unknown:
                there = None  # Told by `metrics_exist`.
            if there is not None:
                for label in re.findall(r"\$labels\.(\w+)", " ".join(notes.values())):
                    if label not in there:
                        yield f"{name}: its text has the label {label}, which it has not"
            own = [case for case in cases if case["alertname"] == name]
            if not any(case.get("exp_alerts") for case in own):
                yield f"{name}: no test in which it fires"
            if not any(not case.get("exp_alerts") for case in own):
                yield f"{name}: no test in which it keeps still"
    asked = " ".join(case["expr"] for test in tests for case in test.get("promql_expr_test", []))
    # The parts of what is recorded from them need no test of their own.
    for record in {rule["record"] for rules in rule_files(tree).values() for rule in rules if "record" in rule}:
        if record not in asked and not record.startswith(("region:godwit_sli_", "godwit:slo_")):
            yield f"{record}: no test of what it records"


@check(
    Mistake(f"{RULES}/telemetry.yaml", "godwit_log_lines_dropped_total", "godwit_log_lines_lost_total", "no metric godwit_log_lines_lost_total"),
    Mistake(f"{RULES}/telemetry.yaml", 'outcome="failed"', 'outcome="fail"', "outcome is never fail"),
    Mistake(f"{RULES}/objectives.yaml", '/v1/session|.+:batch', '/v1/sesion|.+:batch', "route is never"),
    Mistake(f"{RULES}/objectives.yaml", 'le="0.5"', 'le="0.25"', "le is never 0.25"),
    Mistake(f"{RULES}/burn.yaml", 'rate1h{sli="writes"} > 14.4', 'rate1h{sli="write"} > 14.4', "sli is never write"),
    Mistake(f"{RULES}/forwarding.yaml", "max by (region, peer) (godwit_breaker", "max by (region, peers) (godwit_breaker", "no label peers"),
    Mistake(f"{RULES}/loops.yaml", "topology.note|", "topology.notes|", "loop is never"),
    Mistake(f"{RULES}/processes.yaml", "kube_pod_container_status_restarts_total", "kube_pod_restarts_total", "no metric kube_pod_restarts_total"),
    Mistake(f"{DASHBOARDS}/region.json", "godwit_http_requests_in_flight", "godwit_requests_in_flight", "no metric godwit_requests_in_flight"),
    Mistake(f"{DASHBOARDS}/forwarding.json", 'decision=\\"forwarded\\"', 'decision=\\"forward\\"', "decision is never forward"),
    Mistake(DOCS, "`changes(godwit_peer_reachable[1d])`", "`changes(godwit_peer_reached[1d])`", "godwit_peer_reached"),
    Mistake(DOCS, "`changes(godwit_peer_reachable[1d])`", "`changes(godwit_peer_reachable[1d]`", "docs/ALERTS.md: changes"),
    Mistake("src/telemetry/metrics/mod.rs", "        godwit_guesses_untold_total{}\n", "", "no metric godwit_guesses_untold_total"),
)
def metrics_exist(tree):
    """Each metric, label and value of a label that rules, dashboards and text name is the program's, or another's that is listed."""
    known = metrics(tree)
    asked = [
        (f"{stem}.yaml {rule.get('alert') or rule['record']}", rule["expr"])
        for stem, rules in rule_files(tree).items()
        for rule in rules
    ]
    asked += [
        (f"{stem}.json {title}", expr) for stem, board in dashboards(tree).items() for title, expr in expressions(board)
    ]
    for where, expr in asked:
        try:
            labels(promql_parser.parse(expr), known)
        except Unknown as unknown:
            yield f"{where}: {unknown}"
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known} | set(known)
    for span in re.findall(r"`([^`]+)`", tree.text(DOCS)):
        # The role of the database is no metric.
        names = set(re.findall(r"(?:\w+:)?(?:godwit|process)_\w+(?::\w+)?", span)) - {"godwit_control"}
        for name in names - families:
            yield f"{DOCS}: there is no metric {name}"
        if names and "(" in span:
            try:
                labels(promql_parser.parse(span), known)
            except (Unknown, ValueError) as error:
                yield f"{DOCS}: {span}: {error}"
    used = {name for _, expr in asked for name in re.findall(r"[a-zA-Z_:][\w:]+", expr)}
    for name in OTHERS:
        if name not in used and name not in tree.text(DOCS):
            yield f"{name} is listed, and nothing asks for it"


@check(
    Mistake(DOCS, "### GodwitBreakerOpen", "### GodwitBreakersOpen", "GodwitBreakerOpen has no section"),
    Mistake(DOCS, "### GodwitBreakerOpen", "### GodwitBreakersOpen", "GodwitBreakersOpen is no alert"),
    Mistake(DOCS, "- **Over** once it is half open or closed.", "", "GodwitBreakerOpen: no **Over**"),
    Mistake(DOCS, "RUNBOOK.md#after-the-fact", "RUNBOOK.md#after", "RUNBOOK.md#after"),
    Mistake(DOCS, "(#godwitlaghigh)", "(#godwitlag)", "#godwitlag"),
    Mistake(DOCS, "| GodwitRegionDown | GodwitRegionNotMeasured,", "| GodwitRegionDown | GodwitRegionNotScraped,", "GodwitRegionNotScraped"),
    Mistake(DOCS, "| evicts keys without expiry (`allkeys-*`) | GodwitLeaseNoteLost |\n", "", "evicts keys without expiry"),
    Mistake(DOCS, "| two standbys go by one name | none: no", "| two standbys go by one name | no", "two standbys go by one name"),
    Mistake(FAILURES, "| a laggard is promoted |", "| somebody who lags is promoted |", "a laggard is promoted"),
    Mistake(DOCS, "| 99.95 % |", "| 99.9 % |", "reads"),
)
def each_alert_has_its_section(tree):
    """Every alert has a section, every section an alert; what links in the text is there; every failure mode has an alert or a reason."""
    text = tree.text(DOCS)
    sections = re.findall(r"^### (Godwit\w+)\n(.*?)(?=^##|\Z)", text, re.S | re.M)
    named = {name for name, _ in sections}
    known = alerts(tree)
    for name in known.keys() - named:
        yield f"{name} has no section"
    for name in named - known.keys():
        yield f"{name} is no alert, and has a section"
    for name, body in sections:
        for part in ["**Users see**", "**Look**", "**Do**", "**Over**"]:
            if part not in body:
                yield f"{name}: no {part}"
        if not re.match(r"\n[A-Z].*\.\n", body):
            yield f"{name}: does not begin with what it means"
    for name in set(re.findall(r"\bGodwit[A-Z][A-Za-z]+", text)) - known.keys():
        yield f"{name} is no alert"
    for file, anchor in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", text):
        target = f"docs/{file}" if file else DOCS
        if anchor not in anchors(tree.text(target)):
            yield f"{DOCS}: {file}#{anchor} leads nowhere"
    for file in re.findall(r"\]\(([\w./-]+?)(?:#[\w-]+)?\)", text):
        if not (tree.root / "docs" / file).exists():
            yield f"{DOCS}: there is no {file}"
    for rule in rule_files(tree)["objectives"]:
        if rule.get("record") == "godwit:slo_objective:ratio":
            sli, share = rule["labels"]["sli"], float(re.search(r"[\d.]+", rule["expr"])[0]) * 100
            if not re.search(rf"^\| `{sli}` \|.*\| {share:g} % \|", text, re.M):
                yield f"{DOCS}: the objective of {sli} is {share:g} %"
    yield from failure_modes(tree.text(FAILURES), text[text.index("## Failure modes and their alerts") :])


@check(
    Mistake("helm/godwit/templates/prometheusrule.yaml", "(print $prefix ", "(print ", "does not begin with"),
    Mistake("helm/godwit/templates/prometheusrule.yaml", "(print $prefix ", '(print $prefix "/" ', "does not lead"),
)
def runbooks_are_found_where_people_read_them(tree):
    """Each alert's `runbook_url` as the chart gives it: the path of its section, after the prefix where there is one."""
    sections = {rule["annotations"]["runbook_url"] for _, rule in alerts(tree).values()}
    for way, _, objects in rendering.ways(tree):
        prefix = rendering.GITOPS["monitoring"]["runbookUrlPrefix"] if way.endswith("by GitOps") else ""
        for one in rendering.of_kind(objects, "PrometheusRule"):
            for rule in (rule for group in one["spec"]["groups"] for rule in group["rules"] if "alert" in rule):
                url = rule["annotations"]["runbook_url"]
                if not url.startswith(prefix):
                    yield f"{way}: {rule['alert']}: {url} does not begin with {prefix}"
                elif url.removeprefix(prefix) not in sections:
                    yield f"{way}: {rule['alert']}: {url} does not lead to its section"


def anchors(text):
    """Of each heading, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def failure_modes(modes, answers):
    """Every state that can be looked at is an alert, or is said not to be."""
    told = {section: dict(body) for section, body in tables(answers, "### ")}
    for section, body in tables(modes, "## "):
        # What clients are answered, and what a choice costs, are no states.
        if section in ("Clients", "What is lost"):
            continue
        answered = told.get(section, {})
        for what, _ in body:
            if what not in answered:
                yield f"{DOCS}: {section}: `{what}` has neither an alert nor a reason"
            elif not re.search(r"\bGodwit[A-Z]", answered[what]) and not answered[what].startswith("none"):
                yield f"{DOCS}: {section}: `{what}` names no alert and no reason"
        for what in answered.keys() - {what for what, _ in body}:
            yield f"{DOCS}: {section}: `{what}` is no failure mode"


def tables(text, mark):
    for part in re.split(rf"^{mark}", text, flags=re.M)[1:]:
        rows = [line.strip().strip("|").split(" | ") for line in part.splitlines() if line.startswith("|")]
        # The head, and the line under it.
        yield part.splitlines()[0].strip(), [(row[0].strip(), row[1].strip() if len(row) > 1 else "") for row in rows[2:]]


@check(
    Mistake(f"{DASHBOARDS}/regions.json", '"schemaVersion": 39', '"schemaVersion": "39"', "schemaVersion"),
    Mistake(f"{DASHBOARDS}/regions.json", '"uid": "godwit-regions"', '"uid": "godwit-region"', "uid"),
    Mistake(f"{DASHBOARDS}/regions.json", '"unit": "reqps"', '"unit": ""', "no unit"),
    Mistake(f"{DASHBOARDS}/regions.json", '"id": 2,', '"id": 1,', "id"),
    Mistake(f"{DASHBOARDS}/regions.json", '"y": 4,', '"y": 3,', "over one another"),
    Mistake(f"{DASHBOARDS}/regions.json", '"uid": "${datasource}"', '"uid": "prometheus"', "datasource"),
    Mistake(f"{DASHBOARDS}/regions.json", "sum by (region) (rate(", "sum by (region) (rat(", "parse"),
    Mistake(f"{DASHBOARDS}/replication.json", '"value": 1073741824', '"value": 1000000000', "GodwitReplicationBacklog"),
    Mistake(f"{DASHBOARDS}/replication.json", "GodwitSessionChangesSlow", "GodwitSessionsSlow", "GodwitSessionsSlow is no alert"),
    Mistake(f"{DASHBOARDS}/region.json", '"name": "region"', '"name": "place"', "variable region"),
    Mistake(f"{DASHBOARDS}/forwarding.json", '"legendFormat": "{{region}} {{decision}}"', '"legendFormat": "{{region}} {{verdict}}"', "verdict"),
)
def dashboards_are_valid(tree):
    """Grafana takes each dashboard, Prometheus each of its expressions, and a line across a panel is where its alert fires."""
    known, uids = alerts(tree), []
    for stem, board in dashboards(tree).items():
        where = f"{stem}.json"
        if not isinstance(board.get("schemaVersion"), int) or board["schemaVersion"] < 36:
            yield f"{where}: schemaVersion is no number, or of a Grafana before 9"
        uids.append(board.get("uid"))
        if board.get("uid") != f"godwit-{stem}" or not board.get("title", "").startswith("Godwit: "):
            yield f"{where}: its uid is not godwit-{stem}, or its title not Godwit: ..."
        variables = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
        for name, kind in {"datasource": "datasource", "region": "query"}.items():
            if variables.get(name) != kind:
                yield f"{where}: no variable {name}"
        if len({panel["id"] for panel in board["panels"]}) != len(board["panels"]):
            yield f"{where}: two panels have one id"
        taken = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            if cells & taken or place["x"] + place["w"] > 24:
                yield f"{where}: {panel['title']}: panels lie over one another, or past the edge"
            taken |= cells
        for panel in panels(board):
            yield from judged(f"{where}: {panel['title']}", panel, known, metrics(tree))
        yield from emitted(tree, where, board)
        if any(one.get("uid") != "${datasource}" for one in sources(board)):
            yield f"{where}: its datasource is not the variable"
    if len(set(uids)) != len(uids):
        yield f"{DASHBOARDS}: two have one uid"


def sources(part):
    """Every data source that is named anywhere in it."""
    if isinstance(part, dict):
        if part.get("type") == "prometheus":
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from sources(one)


def judged(where, panel, known, metrics):
    defaults = panel["fieldConfig"]["defaults"]
    if not defaults.get("unit"):
        yield f"{where}: no unit"
    if any("datasource" not in one for one in [panel, *panel["targets"]]):
        yield f"{where}: no datasource"
    refs = [target["refId"] for target in panel["targets"]]
    if not refs or len(set(refs)) != len(refs):
        yield f"{where}: no targets, or two of one refId"
    named = re.findall(r"\bGodwit[A-Z][A-Za-z]+", panel["description"])
    for name in named:
        if name not in known:
            yield f"{where}: {name} is no alert"
    if panel["fieldConfig"]["defaults"]["custom"].get("thresholdsStyle", {}).get("mode") == "dashed":
        steps = {step["value"] for step in defaults["thresholds"]["steps"]} - {None}
        fires = set().union(*(numbers(promql_parser.parse(known[name][1]["expr"])) for name in named if name in known))
        if not steps or not steps <= fires:
            yield f"{where}: its line is at {sorted(steps)}, where none of {', '.join(named)} fires"
    for target in panel["targets"]:
        expr = target["expr"].replace("$__rate_interval", "1m")
        try:
            there = labels(promql_parser.parse(expr), metrics)
        except (Unknown, ValueError):
            continue  # Told by `metrics_exist`, and below.
        for label in re.findall(r"\{\{\s*(\w+)\s*\}\}", target["legendFormat"]):
            # One metric's indicator has a peer, the others have none.
            if label not in there | {"peer"}:
                yield f"{where}: its legend has the label {label}, which its series have not"


def emitted(tree, where, board):
    """Prometheus judges an expression as what a rule records."""
    rules = [{"record": f"panel:{at}", "expr": expr} for at, (_, expr) in enumerate(expressions(board))]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}, file)
        file.flush()
        tried = tree.run("promtool", "check", "rules", "--lint=all", file.name)
    if tried.returncode != 0:
        yield f"{where}: {tried.stdout}{tried.stderr}"
