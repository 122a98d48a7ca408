"""Sessions to read with, and people who sign in meanwhile."""

import base64
import contextlib
import csv
import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from lab import MAC_SECRET, SETTINGS, TOP, run, say

HERE = Path(__file__).parent
PASSWORD = "vex-lodestar-quibble-7"
# Of `wrk`; session.lua deals sessions out to two.
THREADS = 2
# How long a process believes what it has looked up (`identity.session.cache_ms`).
CACHED_SECONDS = 0.5
# So many that none comes round again sooner.
SESSIONS = 60_000
# Less of what is measured than this came from Redis: then it is something else that is measured.
LOOKED_UP_MIN = 0.98
WARM_SECONDS = 8
# Who sign in at once, and the accounts that they have.
SIGNING_IN = 8
ACCOUNTS = 30


class Redis:
    """A region's."""

    def __init__(self, lab, region):
        at = urlsplit(lab.region(region)["redis"])
        self.at = ["-h", at.hostname, "-p", str(at.port)]
        self.password = at.password
        self.env = os.environ | {"REDISCLI_AUTH": self.password}

    def ask(self, *words):
        return run(["redis-cli", *self.at, *words], env=self.env).strip()

    def found(self):
        """How many records it has found since it started, and how often it was told that one is in use."""
        stats = self.ask("INFO", "everything")
        words = (r"keyspace_hits:(\d+)", r"cmdstat_pexpire:calls=(\d+)")
        found = (re.search(word, stats) for word in words)
        return [int(one.group(1)) if one else 0 for one in found]

    def fill(self, pairs, lasts_ms):
        def command(*words):
            return f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)

        text = "".join(command("SET", key, value, "PX", str(lasts_ms)) for key, value in pairs)
        told = run(["redis-cli", *self.at, "--pipe"], env=self.env, input=text)
        if "errors: 0" not in told:
            sys.exit(f"bench: Redis did not take the sessions: {told}")

    def benchmark(self, seconds, clients, *command):
        def measure(count):
            arguments = ["-a", self.password, "-c", str(clients), "-n", str(count), "--csv", *command]
            text = run(["redis-benchmark", *self.at, *arguments])
            return next(csv.DictReader(text[text.index('"test"'):].splitlines()))

        figures = measure(int(float(measure(20_000)["rps"]) * seconds))
        return {
            "per_second": float(figures["rps"]),
            "p50_ms": float(figures["p50_latency_ms"]),
            "p99_ms": float(figures["p99_latency_ms"]),
        }


class Sessions:
    """Of one viewer at one region: some thousands in its Redis, as signing in would have left them there."""

    def __init__(self, lab, region, scratch):
        self.lab, self.region, self.redis = lab, region, Redis(lab, region)
        self.file = scratch / "tokens"
        say(f"beginning {SESSIONS:,} sessions")
        email = make_user(lab, "viewer")
        lab.caught_up()
        token, began = sign_in(lab, region, email)
        # That ours are made as theirs are.
        if minted(token.rpartition(".")[0]) != token:
            sys.exit("bench: a session's token is not signed as expected")
        self.key = kept_at(token)
        one = json.loads(self.redis.ask("GET", self.key))
        if one.get("id") != began:
            sys.exit(f"bench: a session's record is not as expected: {one}")
        random = (base64url(os.urandom(32)) for _ in range(SESSIONS))
        self.tokens = [minted(f"v1.{region}.{part}") for part in random]
        record = lambda: json.dumps(one | {"id": str(uuid.uuid4())}, separators=(",", ":"))
        self.redis.fill(((kept_at(token), record()) for token in self.tokens), 3_600_000)
        self.file.write_text("".join(f"{token}\n" for token in self.tokens))

    def looked_up(self, seconds, send):
        """What `send(seconds, each)` measures with `each` sessions a thread, every one looked up in Redis. All are in
        use: a process tells Redis so of each once a minute, and here it has before the seconds that count."""
        warm = send(WARM_SECONDS, SESSIONS // THREADS)
        each = min(SESSIONS // THREADS, int(0.6 * warm["requests"] / THREADS))
        # What it was used with last is believed no more.
        time.sleep(2 * CACHED_SECONDS)
        before = self.redis.found()
        figures = send(seconds, each)
        asked, renewed = ((now - then) / figures["requests"] for now, then in zip(self.redis.found(), before))
        if asked < LOOKED_UP_MIN:
            sys.exit(f"bench: only {asked:.2f} of the requests looked their session up in Redis")
        return figures | {"asked": round(asked, 3), "renewed": round(renewed, 3)}

    def looked_up_alone(self, seconds, at_once):
        """What `look_up` measures: the same without a request."""
        programs = [path for path in (TOP / "target/dist/deps").glob("look_up-*") if not path.suffix]
        program = max(programs, key=lambda path: path.stat().st_mtime)
        settings = self.lab.dir / "regions" / self.region / "godwit.toml"
        env = os.environ | {f"GODWIT__{name}": value for name, value in SETTINGS.items()}
        before = self.redis.found()
        figures = json.loads(run([program, settings, self.file, str(seconds), str(at_once)], env=env, stderr=None))
        found, _ = (now - then for now, then in zip(self.redis.found(), before))
        # It has looked up each once before.
        if found < LOOKED_UP_MIN * (figures["requests"] + len(self.tokens)):
            sys.exit(f"bench: of {figures['requests']} look-ups only {found} found something in Redis")
        return figures


def make_user(lab, role):
    email = f"{uuid.uuid4().hex}@example.com"
    body = {"email": email, "name": "Bench", "role": role, "password": PASSWORD}
    status, _, text = lab.call(lab.primary, "POST", "/v1/admin/users", body)
    if status != 201:
        sys.exit(f"bench: a user could not be made: {status}: {text[:500]}")
    return email


def sign_in(lab, region, email):
    body = {"tenant": lab.facts["tenant"]["name"], "email": email, "password": PASSWORD}
    status, _, text = lab.call(region, "POST", "/v1/session", body)
    if status != 201:
        sys.exit(f"bench: signing in was answered {status}: {text[:500]}")
    begun = json.loads(text)
    return begun["token"], begun["session"]


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def minted(signed):
    """A whole token (src/identity/token.rs)."""
    mac = hmac.digest(MAC_SECRET.encode(), b"session-token:" + signed.encode(), "sha256")
    return f"{signed}.{base64url(mac[:16])}"


def kept_at(token):
    """The key of its record (src/storage/redis/sessions.rs)."""
    return "gw:session:" + hashlib.sha256(token.encode()).hexdigest()


class SignIns:
    """People who sign in at the primary, every other time with a wrong password."""

    def __init__(self, lab, scratch):
        self.url = lab.region(lab.primary)["public"]
        self.tenant, self.file = lab.facts["tenant"]["name"], scratch / "accounts"
        say(f"making {ACCOUNTS} accounts to sign in to")
        self.file.write_text("".join(f"{make_user(lab, 'viewer')}\n" for _ in range(ACCOUNTS)))

    @contextlib.contextmanager
    def going_on(self):
        """As fast as their passwords are compared, for as long as this lasts."""
        settings = {"ACCOUNTS": self.file, "TENANT": self.tenant, "PASSWORD": PASSWORD}
        command = ["wrk", "-t1", f"-c{SIGNING_IN}", "-d1h", "-s", HERE / "signin.lua", self.url]
        env = os.environ | {f"BENCH_{key}": str(value) for key, value in settings.items()}
        process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            # As many as are ever under way are.
            time.sleep(0.5)
            yield
        finally:
            process.send_signal(signal.SIGINT)
            text = process.communicate(timeout=30)[0]
        told = re.search(r"right (\d+), wrong (\d+), other (\d+)", text)
        right, wrong, other = (int(count) for count in told.groups()) if told else (0, 0, 0)
        if not right or not wrong or other:
            sys.exit(f"bench: signing in was answered otherwise than with 201 or 401:\n{text}")
