"""A laboratory's pages, and a browser's window on them that notices what no page may do."""

import dataclasses
import json
import os
import pathlib
import re
import secrets
import subprocess
import time
import urllib.parse
import urllib.request

from playwright.sync_api import expect

US, EU, AP = "us-east-1", "eu-west-1", "ap-south-1"
REGIONS = US, EU, AP

PASSWORD = "vex-lodestar-quibble-7"
OTHER = "seven-teapots-at-noon"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"

# What a replica, a session that was ended or a cut link needs to be seen, many times over.
SOON_SECONDS = 15


def eventually(what, holds):
    """Asks until the answer is yes; `holds` returns whether it is, and what it saw."""
    deadline = time.monotonic() + SOON_SECONDS
    while True:
        good, seen = holds()
        if good:
            return
        assert time.monotonic() < deadline, (
            f"not within {SOON_SECONDS} s: {what}; last seen: {seen}"
        )


@dataclasses.dataclass
class Person:
    name: str
    email: str
    password: str = PASSWORD


class Site:
    def __init__(self, lab):
        self.lab = pathlib.Path(lab)
        facts = json.loads((self.lab / "lab.json").read_text())
        assert facts["primary"] == US, f"these tests want the primary in {US}: {facts['primary']}"
        self.tenant = facts["tenant"]["name"]
        self.urls = {region: facts["regions"][region]["public"] for region in REGIONS}

    def nobody(self, name):
        """Somebody who has no account yet."""
        return Person(name, f"{name.split()[0].lower()}.{secrets.token_hex(4)}@example.com")

    def person(self, name):
        """Somebody who has one, made by the API."""
        person = self.nobody(name)
        body = {"tenant": self.tenant, "email": person.email, "name": name, "password": PASSWORD}
        request = urllib.request.Request(
            f"{self.urls[US]}/v1/account",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=SOON_SECONDS).close()
        return person

    def health(self, region):
        with urllib.request.urlopen(f"{self.urls[region]}/health", timeout=SOON_SECONDS) as answer:
            return json.load(answer)["status"]

    def laboratory(self, *command):
        done = subprocess.run(
            ["target/debug/godwit", "lab", *command, "--dir", self.lab],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"godwit lab {' '.join(command)}: {done.stderr}"


@dataclasses.dataclass
class Answer:
    """What became of a form: the status of its own answer, and where the browser is after it."""

    status: int
    headers: dict
    at: str


class Window:
    """Somebody's browser: cookies of its own, and a tab. Scripts are off, for no page may need them."""

    def __init__(self, browser, site, person=None, region=US, script=False, **options):
        self.site, self.region, self.complaints = site, region, []
        self.allowed = set(site.urls.values())
        self.context = browser.new_context(java_script_enabled=script, **options)
        self.context.set_default_timeout(SOON_SECONDS * 1000)
        self.context.on("request", self._request)
        self.context.on("response", self._response)
        self.context.on("console", self._console)
        self.context.on("weberror", lambda error: self.complaints.append(f"script: {error.error}"))
        self.tab = self.context.new_page()
        if person:
            self.sign_in(person)

    def _request(self, request):
        origin = "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(request.url))
        if origin not in self.allowed:
            self.complaints.append(f"a request to another place: {request.url}")

    def _response(self, response):
        if response.request.resource_type != "document":
            if response.status >= 400:
                self.complaints.append(f"{response.status} for {response.url}")
            return
        if 300 <= response.status < 400:
            return
        if not any(response.url.startswith(url) for url in self.site.urls.values()):
            return
        self.complaints += [f"{response.url}: {what}" for what in wrong_headers(response.headers)]

    def _console(self, message):
        # A form that is refused is meant to be answered so, and Chromium tells of it in the console.
        refused = r"Failed to load resource: the server responded with a status of (4\d\d|503)"
        if not re.match(refused, message.text):
            self.complaints.append(f"in the console: {message.text}")

    @property
    def at(self):
        """Path and query of the page."""
        url = urllib.parse.urlsplit(self.tab.url)
        return url.path + (f"?{url.query}" if url.query else "")

    @property
    def main(self):
        return self.tab.get_by_role("main")

    @property
    def alert(self):
        return self.tab.get_by_role("alert")

    def go(self, path, region=None):
        self.region = region or self.region
        return self.tab.goto(self.site.urls[self.region] + path)

    def field(self, label):
        return self.tab.get_by_label(label, exact=True)

    def fill(self, **fields):
        for name, value in fields.items():
            self.field(LABELS[name]).fill(value)

    def press(self, button):
        """Sends a form by its button, which is a name or a locator."""
        if isinstance(button, str):
            button = self.tab.get_by_role("button", name=button, exact=True)
        with self.tab.expect_navigation() as navigation:
            button.click()
        return self.answered(navigation.value)

    def answered(self, last):
        request = last.request
        while request.redirected_from:
            request = request.redirected_from
        assert request.method == "POST", f"{request.method} {request.url} is not a form's"
        answer = request.response()
        return Answer(answer.status, answer.headers, self.at)

    def sent(self, button, to):
        """Sends a form that is to be accepted, and arrives at `to`."""
        answer = self.press(button)
        told = self.alert.all_inner_texts()
        assert (answer.status, answer.at) == (303, to), (
            f"{button}: {answer.status}, at {answer.at}, not {to}: {told}"
        )
        if "?done=" in to:
            expect(self.tab.get_by_role("status")).not_to_be_empty()
        return answer

    def refused(self, button, *statuses):
        """Sends a form that is to be refused, which is then there again and says why."""
        answer = self.press(button)
        assert answer.status in statuses, (
            f"{button}: {answer.status} at {answer.at}, not {statuses}"
        )
        expect(self.alert).to_have_count(1)
        expect(self.alert).not_to_be_empty()
        return answer

    def follow(self, link, to):
        with self.tab.expect_navigation():
            self.tab.get_by_role("link", name=link, exact=True).click()
        self.is_at(to)

    def is_at(self, to):
        assert self.at == to, f"at {self.at}, not at {to}"

    def shows(self, heading):
        expect(self.tab.get_by_role("heading", level=1)).to_have_text(heading)

    def sign_in(self, person):
        self.go("/sign-in")
        self.fill(tenant=self.site.tenant, email=person.email, password=person.password)
        self.sent("Sign in", "/account")
        self.shows("Your account")
        self.look_at_cookies()

    def is_out(self, path="/account"):
        """Whoever is signed out is sent to sign in."""
        self.go(path)
        return self.at in ("/sign-in", "/sign-in?done=over"), self.at

    def cookies(self):
        return {cookie["name"]: cookie for cookie in self.context.cookies()}

    def tokens(self):
        cookie = self.cookies().get("__Host-godwit_session")
        return cookie["value"].split("~") if cookie else []

    def hide(self, selector):
        """A field that the form then does not send."""
        self.tab.locator(selector).first.evaluate("field => field.remove()")

    def put(self, selector, value):
        self.tab.locator(selector).first.evaluate(
            "(field, value) => { field.value = value }", value
        )

    def look_at_cookies(self):
        for name, cookie in self.cookies().items():
            # A bookmark is no secret.
            if not (name.startswith("__Host-") and cookie["secure"]) and name != "godwit_bookmark":
                self.complaints.append(f"a cookie that another host can set: {name}")
            if not cookie["httpOnly"]:
                self.complaints.append(f"a cookie that a script can read: {name}")
            if cookie["sameSite"] not in ("Lax", "Strict"):
                self.complaints.append(f"a cookie that other sites send: {name}")

    def close(self):
        self.look_at_cookies()
        self.context.close()
        assert not self.complaints, "\n".join(dict.fromkeys(self.complaints))


LABELS = {
    "tenant": "Organisation",
    "email": "E-mail address",
    "name": "Name",
    "password": "Password",
    "current": "Current password",
    "new": "New password",
}


def wrong_headers(headers):
    policy = headers.get("content-security-policy", "")
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    if "'unsafe-" in policy or "*" in policy:
        yield f"a content security policy that allows anything: {policy}"
    if rules.get("default-src") not in ("'none'", "'self'"):
        yield f"a content security policy without default-src: {policy}"
    for rule in ("base-uri", "form-action", "frame-ancestors"):
        if rules.get(rule) not in ("'none'", "'self'"):
            yield f"a content security policy without {rule}: {policy}"
    if "no-store" not in headers.get("cache-control", ""):
        yield f"the browser may keep it: {headers.get('cache-control')}"
    if headers.get("x-content-type-options") != "nosniff":
        yield "no x-content-type-options"
    if headers.get("content-type", "").replace(" ", "").lower() != "text/html;charset=utf-8":
        yield f"content type {headers.get('content-type')}"
    if headers.get("referrer-policy") not in ("no-referrer", "same-origin"):
        yield f"other places hear where one was: referrer-policy {headers.get('referrer-policy')}"


def pictures():
    """Where pictures go, for people to look at."""
    place = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "pages"
    place.mkdir(parents=True, exist_ok=True)
    return place
