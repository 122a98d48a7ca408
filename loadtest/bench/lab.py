"""A laboratory of the benchmark's own, and how to speak to it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
GODWIT = TOP / "target/dist/godwit"

# What the benchmark's own laboratory is told beyond its defaults: a key to sign sessions' tokens with, so that
# thousands of people need not sign in first, and limits beyond what one machine can ask.
MAC_SECRET = "of-the-benchmark-and-no-secret-at-all"
SETTINGS = {
    "IDENTITY__SESSION__MAC_KEY_CURRENT": "bench",
    "IDENTITY__SESSION__MAC_KEYS__BENCH__SECRET": MAC_SECRET,
} | {
    f"LIMITS__{kind}__{part}": "1000000"
    for kind in ("SIGN_IN_ADDRESS", "SIGN_IN_ACCOUNT", "SIGN_IN_FAMILIAR", "PERSON")
    for part in ("PER_HOUR", "BURST")
}


def say(text):
    print(f"\033[1m==>\033[0m {text}" if sys.stderr.isatty() else f"==> {text}", file=sys.stderr)


def run(command, show=False, **options):
    """Standard output of a command that must succeed; with `show` it goes to the terminal."""
    streams = {} if show else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, check=True, text=True, cwd=TOP, **(streams | options)).stdout


def program(name):
    """The newest PostgreSQL's program: Debian keeps the server's off the PATH."""
    homes = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/opt/homebrew/opt").glob("postgresql@*/bin")]
    homes.sort(key=lambda home: [int(part) for part in str(home).replace("@", "/").split("/") if part.isdigit()])
    found = [str(home / name) for home in homes if (home / name).exists()]
    return found[-1] if found else shutil.which(name) or sys.exit(f"bench: no {name}; `make setup` installs it")


def start(dir, port_base, *options, settings={}):
    """Seconds until a laboratory is up."""
    began = time.monotonic()
    env = os.environ | {f"GODWIT__{name}": value for name, value in settings.items()}
    run([GODWIT, "lab", "up", "--detach", "--dir", dir, "--port-base", str(port_base), *options], env=env)
    return time.monotonic() - began


def purge(dir):
    """Stops the laboratory there, and removes it with all that it kept elsewhere."""
    run([GODWIT, "lab", "down", "--purge", "--dir", dir])
    shutil.rmtree(dir, ignore_errors=True)


def starts(dir, port_base):
    """Seconds of a first start and of a restart at the real distances, as `make up` does them."""
    purge(dir)
    try:
        say("a laboratory's first start")
        first = start(dir, port_base)
        run([GODWIT, "lab", "down", "--dir", dir])
        say("its restart")
        return {"first start": first, "restart": start(dir, port_base)}
    finally:
        purge(dir)


class Lab:
    """Up within `with`. Starts from nothing each time, so that every run measures the same."""

    def __init__(self, dir, port_base):
        self.dir, self.port_base = dir, port_base

    def __enter__(self):
        purge(self.dir)
        say("starting a laboratory, no distance between its regions")
        start(self.dir, self.port_base, "--wan", "off", settings=SETTINGS)
        self.facts = json.loads((self.dir / "lab.json").read_text())
        self.key = self.facts["tenant"]["api_key"]
        self.primary = self.facts["primary"]
        self.replica = next(name for name in self.facts["regions"] if name != self.primary)
        return self

    def __exit__(self, *_):
        run([GODWIT, "lab", "down", "--dir", self.dir])

    def region(self, name):
        return self.facts["regions"][name]

    def psql(self, region, sql, database=None):
        url = self.database(region, database)
        return run([program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", url, "-c", sql]).strip()

    def database(self, region, name=None):
        """The superuser's address of a region's instance."""
        url = self.region(region)["global_db"]
        if name is None:
            return url
        before, slash, after = url.rpartition("/")
        return f"{before}{slash}{name}" + ("?" + after.split("?", 1)[1] if "?" in after else "")

    def call(self, region, method, path, body=None, **headers):
        """(status, headers in lower case, body) of one request."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            self.region(region)["public"] + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"} | headers,
        )
        try:
            answer = urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = answer.read().decode()
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, text

    def answered(self, region):
        """Reads of one item that a region has answered since it started, by status."""
        with urllib.request.urlopen(self.region(region)["ops"] + "/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        # Labels come in the order of their names.
        name = r'godwit_http_requests_total\{method="GET",.*route="/v1/collections/\{collection\}/items/\{id\}"'
        found = (re.match(name + r',status="(\d+)"\} (\d+)', line) for line in lines)
        return {one.group(1): int(one.group(2)) for one in found if one}

    def caught_up(self, deadline_seconds=60):
        """Waits until the replicas have replayed all that the primary has written."""
        goal = self.psql(self.primary, "SELECT pg_current_wal_flush_lsn()")
        until = time.monotonic() + deadline_seconds
        for name in self.facts["regions"]:
            if name == self.primary:
                continue
            sql = f"SELECT pg_last_wal_replay_lsn() >= '{goal}'"
            while self.psql(name, sql) != "t":
                if time.monotonic() > until:
                    sys.exit(f"bench: {name} has not caught up in {deadline_seconds} s")
                time.sleep(0.1)
