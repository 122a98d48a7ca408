"""What is measured, and by which program."""

import contextlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from lab import TOP, program, run, say
from people import PASSWORD, THREADS, Sessions, SignIns

HERE = Path(__file__).parent
CONNECTIONS = 32
# So few that cores are left: then what is taken from them shows in the latency, not in the rate alone.
FEW = 2
# Who make users at once: more than there are passwords hashed at a time.
MAKERS = 8
PGBENCH_SCALE = 5
BODY = {"city": "Pune", "country": "IN", "note": "x" * 200, "tags": ["a", "b"], "population": 2935744}


def wrk(url, script, seconds, expect, connections=CONNECTIONS, **settings):
    """Rate and latencies; anything but the expected answers ends the benchmark."""
    command = ["wrk", f"-t{THREADS}", f"-c{connections}", f"-d{seconds}s", "--latency"]
    if script:
        command += ["-s", HERE / script]
    text = run([*command, url], env=os.environ | {f"BENCH_{k.upper()}": str(v) for k, v in settings.items()})
    requests = int(re.search(r"(\d+) requests in", text).group(1))
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    refused, failed = int(refused.group(1)) if refused else 0, "Socket errors" in text
    if failed or refused != (0 if expect.startswith("2") else requests):
        sys.exit(f"bench: {url} gave other answers than {expect}:\n{text}")
    return {
        "requests": requests,
        "per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
        "p50_ms": milliseconds(re.search(r"(?m)^\s+50%\s+(\S+)", text).group(1)),
        "p99_ms": milliseconds(re.search(r"(?m)^\s+99%\s+(\S+)", text).group(1)),
    }


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def pgbench(url, seconds, *arguments):
    text = run([program("pgbench"), *arguments, "-M", "prepared", "-n", "-c16", "-j2", f"-T{seconds}", url])
    return {
        "per_second": float(re.search(r"tps = ([\d.]+)", text).group(1)),
        "p50_ms": float(re.search(r"latency average = ([\d.]+) ms", text).group(1)),
    }


class Bench:
    """The data, nginx, and `things`: a name to a function of seconds that measures."""

    def __init__(self, lab):
        self.lab = lab
        self.made = itertools.count()
        self.scratch = Path(tempfile.mkdtemp(prefix="godwit-bench-"))
        self.nginx = None

    def __enter__(self):
        lab = self.lab
        say("filling pgbench's tables and the collection to be read")
        lab.psql(lab.primary, "CREATE DATABASE pgbench")
        run([program("pgbench"), "-i", "-q", "-s", str(PGBENCH_SCALE), lab.database(lab.primary, "pgbench")])
        self.bookmark = self.fill()
        lab.caught_up()
        self.look()
        self.sessions = Sessions(lab, lab.replica, self.scratch)
        self.sign_ins = SignIns(lab, self.scratch)
        self.look_by_session()
        self.start_nginx()
        self.things = self.make_things()
        return self

    def __exit__(self, *_):
        if self.nginx:
            self.nginx.terminate()
            self.nginx.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def fill(self):
        """The sample cities, as items of `bench`; the bookmark of the last."""
        cities = [json.loads(line) for line in (TOP / "loadtest/data/cities.ndjson").open()]
        for city in cities:
            city.pop("id")
        headers = {}
        for start in range(0, len(cities), 500):
            operations = [{"op": "create", "data": city} for city in cities[start:start + 500]]
            body = {"operations": operations}
            status, headers, text = self.lab.call(self.lab.primary, "POST", "/v1/collections/bench/items:batch", body)
            if status != 200:
                sys.exit(f"bench: the batch was answered {status}: {text[:500]}")
        self.note_items()
        return headers["godwit-bookmark"]

    def note_items(self):
        """Ids for the reads, ids with ETags for the updates."""
        items, cursor = [], ""
        while cursor is not None:
            path = f"/v1/collections/bench/items?limit=200&cursor={cursor}".removesuffix("&cursor=")
            status, _, text = self.lab.call(self.lab.primary, "GET", path)
            if status != 200:
                sys.exit(f"bench: the list was answered {status}: {text[:500]}")
            page = json.loads(text)
            items += page["items"]
            cursor = page["next_cursor"]
        epoch = self.lab.facts["epoch"]
        (self.scratch / "ids").write_text("".join(f"{item['id']}\n" for item in items))
        etags = (f"{item['id']} \"{epoch}.{item['version']}\"\n" for item in items)
        (self.scratch / "etags").write_text("".join(etags))
        self.item = items[0]["id"]

    def look(self):
        """That what is measured is the thing itself, answered where it should be."""
        lab, path = self.lab, f"/v1/collections/bench/items/{self.item}"
        status, headers, text = lab.call(lab.replica, "GET", path, Godwit_Bookmark=self.bookmark)
        answered = (status, headers.get("godwit-region"), headers.get("godwit-route"))
        if answered != (200, lab.replica, "local") or json.loads(text)["id"] != self.item:
            sys.exit(f"bench: a read at {lab.replica} was answered {answered}: {text[:500]}")
        status, headers, text = lab.call(lab.replica, "POST", "/v1/collections/created/items", BODY)
        if (status, headers.get("godwit-route")) != (201, "forwarded"):
            sys.exit(f"bench: a create at {lab.replica} was answered {status}, {headers}: {text[:500]}")

    def look_by_session(self):
        """The same of what is asked by session."""
        lab, path = self.lab, "/v1/collections/bench/items/"
        by = {"Authorization": f"Bearer {self.sessions.tokens[0]}"}
        for id, expected in ((self.item, 200), ("none", 404)):
            status, headers, text = lab.call(lab.replica, "GET", path + id, Godwit_Bookmark=self.bookmark, **by)
            answered = (status, headers.get("godwit-region"), headers.get("godwit-route"))
            if answered != (expected, lab.replica, "local"):
                sys.exit(f"bench: a session's read at {lab.replica} was answered {answered}: {text[:500]}")

    def start_nginx(self):
        """In front of the primary, as a plain proxy would be."""
        upstream = self.lab.region(self.lab.primary)["public"].removeprefix("http://")
        port = self.lab.port_base + 90
        user = "user root;" if os.geteuid() == 0 else ""
        (self.scratch / "nginx.conf").write_text(f"""
            {user} daemon off; worker_processes auto; pid {self.scratch}/pid; error_log stderr crit;
            events {{ worker_connections 1024; }}
            http {{
                access_log off; client_body_temp_path {self.scratch}/body; proxy_temp_path {self.scratch}/proxy;
                fastcgi_temp_path {self.scratch}/f; uwsgi_temp_path {self.scratch}/u; scgi_temp_path {self.scratch}/s;
                keepalive_requests 1000000;
                upstream primary {{ server {upstream}; keepalive 64; keepalive_requests 1000000; }}
                server {{
                    listen 127.0.0.1:{port};
                    location / {{
                        proxy_pass http://primary; proxy_http_version 1.1; proxy_set_header Connection "";
                    }}
                }}
            }}
        """)
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        self.nginx_url = f"http://127.0.0.1:{port}"
        self.nginx = subprocess.Popen([nginx, "-p", self.scratch, "-c", self.scratch / "nginx.conf"])
        self.answers(self.nginx_url)

    def answers(self, url, deadline_seconds=10):
        until = time.monotonic() + deadline_seconds
        host, _, port = url.removeprefix("http://").partition(":")
        while True:
            try:
                return socket.create_connection((host, int(port)), timeout=1).close()
            except OSError:
                if time.monotonic() > until or self.nginx.poll() is not None:
                    sys.exit(f"bench: nothing answers at {url}")
                time.sleep(0.05)

    def settle(self):
        """What the last measurement wrote is replayed and on disk before the next begins."""
        self.lab.psql(self.lab.primary, "CHECKPOINT")
        self.lab.caught_up()

    @contextlib.contextmanager
    def passwords(self):
        """Users are made at the primary as fast as their passwords are hashed, for as long as this lasts."""
        ended, failures = threading.Event(), []

        def make():
            while not ended.is_set():
                body = {"email": f"u{next(self.made)}@example.com", "name": "Bench", "password": PASSWORD}
                status, _, text = self.lab.call(self.lab.primary, "POST", "/v1/admin/users", body)
                if status != 201:
                    failures.append(f"{status}: {text[:500]}")
                    return

        makers = [threading.Thread(target=make) for _ in range(MAKERS)]
        for maker in makers:
            maker.start()
        try:
            yield
        finally:
            ended.set()
            for maker in makers:
                maker.join()
        if failures:
            sys.exit(f"bench: a user could not be made: {failures[0]}")

    def make_things(self):
        lab = self.lab
        replica, primary = lab.region(lab.replica)["public"], lab.region(lab.primary)["public"]
        ids, etags, body = self.scratch / "ids", self.scratch / "etags", json.dumps(BODY)

        def read(seconds, key=lab.key, **bookmark):
            return wrk(replica, "item.lua", seconds, "200", ids=ids, key=key, **bookmark)

        def by_sessions(expect, **settings):
            def send(seconds, each):
                then = lab.answered(lab.replica)
                tokens = self.sessions.file
                figures = wrk(replica, "session.lua", seconds, expect, tokens=tokens, each=each, **settings)
                now = lab.answered(lab.replica)
                other = {status for status in now if now[status] > then.get(status, 0)} - {expect}
                if other:
                    sys.exit(f"bench: reads by session were answered with {other} as well")
                return figures

            return lambda seconds: self.sessions.looked_up(seconds, send)

        def read_few(seconds):
            return wrk(primary, "item.lua", seconds, "200", connections=FEW, ids=ids, key=lab.key)

        def read_few_beside(meanwhile):
            def measure(seconds):
                with meanwhile():
                    return read_few(seconds)

            return measure

        def create(url):
            return lambda seconds: wrk(url, "create.lua", seconds, "201", key=lab.key, body=body)

        def update(seconds):
            self.note_items()
            return wrk(primary, "update.lua", seconds, "200", etags=etags, key=lab.key)

        return {
            "constant JSON": lambda seconds: wrk(f"{replica}/api/health/liveness", None, seconds, "200"),
            "read by session": lambda seconds: read(seconds, key=self.sessions.tokens[0], bookmark=self.bookmark),
            "read": lambda seconds: read(seconds, bookmark=self.bookmark),
            "read by sessions": by_sessions("200", ids=ids, bookmark=self.bookmark),
            "pgbench -S": lambda seconds: pgbench(lab.database(lab.replica, "pgbench"), seconds, "-S"),
            "read, no bookmark": read,
            "session look-up": lambda seconds: self.sessions.looked_up_alone(seconds, CONNECTIONS),
            "request with a look-up": by_sessions("404"),
            "redis-benchmark GET": lambda seconds: self.sessions.redis.benchmark(
                seconds, CONNECTIONS, "GET", self.sessions.key),
            "forwarded create": create(replica),
            "create through nginx": create(self.nginx_url),
            "create": create(primary),
            "pgbench -N": lambda seconds: pgbench(lab.database(lab.primary, "pgbench"), seconds, "-N"),
            "update": update,
            "read, two connections": read_few,
            "the same beside passwords": read_few_beside(self.passwords),
            "the same beside sign-ins": read_few_beside(self.sign_ins.going_on),
        }
