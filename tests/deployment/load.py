"""loadtest/k6: what k6 itself makes of every scenario, and that none of them knows of a region but from the list."""

import json
import re
import sys

from judge import Mistake, check

HERE = "loadtest/k6"


def scenarios(tree):
    return tree.files(f"{HERE}/*.js")


def sources(tree):
    files = [*tree.files(f"{HERE}/**/*.js"), *tree.files(f"{HERE}/*.py"), tree.root / HERE / "run"]
    return [(str(file.relative_to(tree.root)), file.read_text()) for file in files]


@check(
    Mistake(f"{HERE}/mixed.js", "thresholds: levels()", "", "mixed.js: no threshold"),
    Mistake(f"{HERE}/soak.js", "duration('4h')", "duration('4 hours')", "soak.js: k6"),
    Mistake(f"{HERE}/regions.json", '"share": 50', '"share": 51', "101 percent"),
    Mistake(f"{HERE}/writes.js", "setup, visit, handleSummary };", "visit, handleSummary };", "writes.js: no setup"),
    Mistake(f"{HERE}/lib/load.js", "exec: 'visit'", "exec: 'visti'", "visti"),
    Mistake(f"{HERE}/lib/load.js", "Object.fromEntries(regions.filter", "Object.fromEntries(regions.slice(1).filter", "users of"),
    Mistake(f"{HERE}/lib/levels.js", "...times('read', ms),", "", "godwit_read_ms"),
)
def run(tree):
    """Each is one that k6 can run, from every region that has a share, held to thresholds."""
    regions = json.loads(tree.text(f"{HERE}/regions.json"))["regions"]
    used = {name for name, region in regions.items() if region["share"] > 0}
    if not scenarios(tree):
        yield f"{HERE} has no scenarios"
    for file in scenarios(tree):
        inspected = tree.run("k6", "inspect", f"{HERE}/{file.name}")
        if inspected.returncode != 0:
            yield f"{file.name}: k6 says {inspected.stderr.strip()}"
            continue
        facts = json.loads(inspected.stdout)
        thresholds = facts.get("thresholds") or {}
        if not thresholds:
            yield f"{file.name}: no threshold"
        if set(facts["scenarios"]) != used:
            yield f"{file.name}: users of {sorted(facts['scenarios'])}, and {sorted(used)} have a share"
        exported = set(re.findall(r"\b\w+\b", " ".join(re.findall(r"^export \{(.*)\}", file.read_text(), re.M))))
        exported |= set(re.findall(r"^export (?:const|function) (\w+)", file.read_text(), re.M))
        for needed in {"setup", "handleSummary", *(one["exec"] for one in facts["scenarios"].values())} - exported:
            yield f"{file.name}: no {needed}"
        # A promotion leaves a region without a database for a while; all others are held to the times of each region.
        for region in used if file.stem != "promote" else ():
            if not any(name.startswith("godwit_read_ms") and region in name for name in thresholds):
                yield f"{file.name}: no threshold for godwit_read_ms in {region}"


@check(
    Mistake(f"{HERE}/lib/uuid.js", "'k6/crypto'", "'https://modules.example/uuid.js'", "modules.example"),
    Mistake(f"{HERE}/lib/client.js", "from './regions.js'", "from '/regions.js'", "'/regions.js'"),
    Mistake(f"{HERE}/lib/report.js", "</style>", '</style><script src="https://cdn.example/a.js"></script>', "cdn.example"),
)
def imports(tree):
    """Nothing comes from elsewhere: neither what they are made of nor what their reports show."""
    for name, text in sources(tree):
        if not name.endswith(".js"):
            continue
        for module in re.findall(r"^(?:import|export)\b.*?from '([^']*)'", text, re.M):
            if not (module == "k6" or module.startswith(("k6/", "./")) and not module.startswith("k6/x/")):
                yield f"{name}: imports '{module}'"
        for address in re.findall(r"https?://\w[\w.-]*", text):
            yield f"{name}: {address}"


@check(
    Mistake(f"{HERE}/evacuation.js", "bySize(0)", "named('us-east-1')", "evacuation.js"),
    Mistake(f"{HERE}/run", "target = lab.replicas[-1]", 'target = "eu-west-1"', "run: eu-west-1"),
)
def regions(tree):
    """No region is named but in the list; a comment may, where it shows how one is named."""
    names = json.loads(tree.text(f"{HERE}/regions.json"))["regions"]
    for name, text in sources(tree):
        code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("//", "#")))
        for region in names:
            if region in code:
                yield f"{name}: {region} is named; regions.json names it"


@check(
    Mistake("loadtest/README.md", "| `spike` |", "| `peak` |", "spike"),
    Mistake(f"{HERE}/run", "def rolling(", "def roling(", "roling"),
    Mistake(f"{HERE}/rolling.js", "`loadtest/k6/run rolling`", "somebody", "rolling.js"),
)
def runner(tree):
    """What the runner does meanwhile belongs to a scenario, which says so; and loadtest/README.md has them all."""
    names = {file.stem for file in scenarios(tree)}
    table = tree.text("loadtest/README.md").partition("\n## Scenarios\n")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    for name in sorted(names ^ listed):
        yield f"loadtest/README.md and the scenarios differ in {name}"
    done = re.findall(r"^@meanwhile\(.*\)\ndef (\w+)\(", tree.text(f"{HERE}/run"), re.M)
    if not done:
        yield f"{HERE}/run: nothing happens meanwhile"
    for name in done:
        if name not in names:
            yield f"{HERE}/run: {name} is no scenario"
        elif f"`loadtest/k6/run {name}`" not in tree.text(f"{HERE}/{name}.js"):
            yield f"{HERE}/{name}.js does not say that the runner is needed"


# What the client makes of an answer, told without asking anybody.
CLIENT = """
import { Session, pause } from './client.js';

class Told extends Session {
  ask() { return { status: 201, headers: {}, body: '', json: () => 'id' }; }
}

export const options = { iterations: 1, vus: 1, summaryTrendStats: ['count'] };
export default function () {
  for (const counted of [false, true]) new Told({ counted }).create({ name: 'here', url: '' }, 'c', { key: 'k' });
}

export function handleSummary({ metrics }) {
  const refused = (status, told) => pause({ status, headers: told === undefined ? {} : { 'Retry-After': told } });
  const date = new Date(Date.now() + 5000).toUTCString();
  return { stdout: JSON.stringify({
    writes: metrics.godwit_writes_failed.values.fails + metrics.godwit_writes_failed.values.passes,
    attempts: metrics.godwit_attempts_failed.values.fails + metrics.godwit_attempts_failed.values.passes,
    times: metrics.godwit_write_ms.values.count,
    seconds: refused(503, '7'), date: refused(429, date) > 3 && refused(429, date) <= 5, past: refused(503, 'Wed, 21 Oct 2015 07:28:00 GMT'),
    nonsense: `${refused(503, 'soon')}`, untold: refused(503), elsewhere: refused(500, '1'), balancer: refused(502),
  }) };
}
"""
MADE_OF_IT = {
    "writes": 1, "attempts": 1, "times": 1, "seconds": 7, "date": True, "past": 0, "nonsense": "null", "untold": None, "elsewhere": None,
    "balancer": 1,
}  # fmt: skip


@check(
    Mistake(f"{HERE}/lib/client.js", "return secondsOf(told);", "return Number(told);", "date: False"),
    Mistake(f"{HERE}/lib/client.js", "Number.isNaN(at) ? null", "Number.isNaN(at) ? at", "nonsense"),
    Mistake(f"{HERE}/lib/client.js", "if (this.counted) {", "{", "writes: 2"),
    Mistake(f"{HERE}/lib/client.js", "if (this.counted && attempt", "if (attempt", "attempts: 2"),
    Mistake(f"{HERE}/lib/load.js", "new Session({ counted: false })", "new Session()", "setup is counted"),
)
def client(tree):
    """It comes again when it is told to, and what is made before the load is in no figure of the load."""
    place = tree.root / HERE / "lib/judged.js"
    place.write_text(CLIENT)
    ran = tree.run("k6", "run", "--quiet", "--no-usage-report", "--address", "", str(place))
    place.unlink()
    try:
        made = json.loads(ran.stdout)
    except ValueError:
        yield f"{HERE}/lib/client.js: k6 says {ran.stderr.strip()[-500:]}"
        return
    for what, expected in MADE_OF_IT.items():
        if made[what] != expected:
            yield f"{HERE}/lib/client.js: {what}: {made[what]} and not {expected}"
    if "new Session({ counted: false })" not in tree.text(f"{HERE}/lib/load.js").partition("export function setup")[2].partition("\n}")[0]:
        yield f"{HERE}/lib/load.js: setup is counted with the load"


# Each ledger of attempts, and whether the runner may find something wrong with it. In milliseconds from when the primary was lost
# in `dead`, to when there was another.
ATTEMPTS = """
import importlib.machinery, importlib.util, json, os, pathlib, sys, tempfile, types
sys.path.insert(0, "loadtest/k6")
loader = importlib.machinery.SourceFileLoader("runner", "loadtest/k6/run")
runner = importlib.util.module_from_spec(importlib.util.spec_from_loader("runner", loader))
loader.exec_module(runner)

def attempt(**other):
    return {"failed": "write", "region": "alive", "asked": 50, "ended": 60, "status": 503, "problem": "no-primary",
            "retry_after": "1"} | other

here = tempfile.TemporaryDirectory()
os.environ |= {"WRITE_PERCENT": "100", "K6_VUS": "1", "DURATION": "1s"}
run = runner.Run("mixed", types.SimpleNamespace(duration=None), pathlib.Path(here.name))
for name in run.environment(RATE="1").keys() - {"HOME", "PATH", "TMPDIR", "RATE"}:
    print(f"{name} of whoever calls it goes to k6")
run.excuses = [runner.Excuse(0, 100, without_database="dead")]
for name, line, fine in (
    ("a refused write", attempt(), True),
    ("one that was under way before", attempt(asked=-20), True),
    ("one from before", attempt(asked=-20, ended=-10), False),
    ("one from after", attempt(asked=110, ended=120), False),
    ("another status", attempt(status=500), False),
    ("no answer", attempt(status=0, retry_after=None), False),
    ("no time to come again", attempt(retry_after=None), False),
    ("a read elsewhere", attempt(failed="read"), False),
    ("a read where the database is dead", attempt(failed="read", region="dead"), True),
    ("a read of what nobody alive has", attempt(failed="read", problem="bookmark-timeout"), True),
):
    run.failed = lambda kind=None: [line]
    if (list(run.unexcused()) == []) != fine:
        print(f"{name}: {'held against' if fine else 'not held against'} the cluster")

THROWN = 'time="..." level=error msg="TypeError: ... at visit" executor=constant-arrival-rate scenario=users'
for name, line, fine in (
    ("a word of warning", 'time="..." level=warning msg="Request Failed" error="EOF" executor=a', True),
    ("a threshold that was breached", 'time="..." level=error msg="thresholds on metrics ... have been crossed"', True),
    ("an operation that threw", THROWN, False),
):
    (run.dir / "k6.log").write_text(line)
    if (list(run.broke_off()) == []) != fine:
        print(f"{name}: {'wrong' if fine else 'not found'}")

ledger = [{"collection": "c"}, *({"acknowledged": key.upper(), "key": key} for key in "abc")]
(run.dir / "ledger.ndjson").write_text("".join(json.dumps(line) + "\\n" for line in ledger))
for name, there, fine in (
    ("all there", "aA bB cC dD", True),
    ("one missing", "aA bB", False),
    ("one under another id", "aA bB cX", False),
    ("one twice", "aA bB cC cX", False),
):
    run.wrong = []
    items = [{"id": pair[1], "data": {"key": pair[0]}} for pair in there.split()]
    run.page = lambda *_: {"items": items, "next_cursor": None}
    run.read_back(None)
    if (run.wrong == []) != fine:
        print(f"{name}: {'wrong' if fine else 'not found'}")
"""


@check(
    Mistake(f"{HERE}/run", "line[\"asked\"] <= self.to_ms", "True", "one from after"),
    Mistake(f"{HERE}/run", 'line["status"] == 503', "True", "another status"),
    Mistake(f"{HERE}/run", 'line["failed"] == "write" or', "True or", "a read elsewhere"),
    Mistake(f"{HERE}/run", "if id not in there[key]]", "if not there[key]]", "under another id"),
    Mistake(f"{HERE}/run", '"level=error" in line and', "False and", "an operation that threw"),
    Mistake(f"{HERE}/run", "return kept | its", "return os.environ | its", "K6_VUS of whoever calls it"),
    Mistake(f"{HERE}/run", "if len(ids) > 1]", "if len(ids) > 2]", "one twice"),
)
def judgment(tree):
    """The runner finds every lost or doubled write, and every attempt that failed when or as none may, and nothing else; and
    what is set where it is called makes no other test of it."""
    judged = tree.run(sys.executable, "-B", "-c", ATTEMPTS)
    yield from judged.stdout.splitlines()
    if judged.returncode != 0:
        yield f"{HERE}/run: {judged.stderr.strip()[-300:]}"
