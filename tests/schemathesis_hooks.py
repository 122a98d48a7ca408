"""What a client of Godwit knows and a schema cannot say, for `tests/schemathesis`.

Valid requests are given a bookmark, a cursor and preconditions that the API can have handed out; a
made-up one of the right form is still refused, rightly. Requests that are meant to be invalid are
left alone.
"""

import itertools
import json
import os
import random
import urllib.request
import uuid

import schemathesis

RUN = uuid.UUID(int=random.SystemRandom().getrandbits(128)).hex
counter = itertools.count()
cursors = {}
bookmark = "1-1-0"


def place(mark):
    """Epoch first, then position."""
    return [int(part, 16) for part in mark.split("-")]


def valid(case):
    return case.meta is None or case.meta.generation.mode.is_positive


def listing(case):
    query = case.query or {}
    return case.formatted_path, query.get("order", "id")


def keys_in_use(case):
    """Keys that were there before this run: revoking one would end the run, or somebody's day."""
    if not keys:
        request = urllib.request.Request(
            f"{os.environ['GODWIT_URL']}/v1/admin/keys?limit=200",
            headers={"Authorization": f"Bearer {os.environ['GODWIT_KEY']}"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            keys.update(key["id"] for key in json.load(answer)["items"])
    return keys


keys = set()
made = set()

# Requests that make a user or change one.
OF_USERS = ("createUser", "changeUser", "register", "setUserPassword", "signIn", "setPassword")


def believable(body):
    """An address that nobody has, a password that nobody guesses, a name and a tenant that there are."""
    fitting = {
        "email": f"{uuid.uuid4().hex}@example.com",
        "password": f"kettle {uuid.uuid4().hex}",
        "tenant": "demo",
        "name": f"Somebody {next(counter)}",
    }
    return {name: fitting.get(name, value) for name, value in body.items()}


@schemathesis.hook
def before_call(ctx, case, kwargs):
    operation = case.operation.definition.raw.get("operationId")
    if operation == "revokeKey":
        parameters = case.path_parameters or {}
        if str(parameters.get("id")).lower() in keys_in_use(case) - made:
            parameters["id"] = str(uuid.uuid4())
    if not valid(case):
        return
    if operation in OF_USERS and isinstance(case.body, dict):
        case.body = believable(case.body)
    headers = case.headers
    if headers is not None:
        for name in ("If-Match", "If-None-Match"):
            # Generated fields are letters and digits, or empty where that cannot fit the pattern.
            if headers.get(name) == "":
                headers[name] = '"1.1"' if operation != "putItem" else "*"
        if "Godwit-Bookmark" in headers or os.environ.get("GODWIT_KEEPS_BOOKMARK"):
            headers["Godwit-Bookmark"] = bookmark
        if "Idempotency-Key" in headers:
            # The same key for another request is refused, and generated keys are few.
            headers["Idempotency-Key"] = f"{headers['Idempotency-Key'][:200]}.{RUN}.{next(counter)}"
        if operation == "putItem" and ("If-Match" in headers) == ("If-None-Match" in headers):
            headers.pop("If-Match", None)
            headers["If-None-Match"] = "*"
    query = case.query or {}
    if "cursor" in query:
        cursor = cursors.get(listing(case))
        if cursor:
            query["cursor"] = cursor
        else:
            del query["cursor"]


@schemathesis.hook
def after_call(ctx, case, response):
    global bookmark
    seen = (response.headers.get("godwit-bookmark") or [None])[0]
    # One that was made up comes back as it was sent where nobody had to look at it (`eventual`).
    made_up = seen == (case.headers or {}).get("Godwit-Bookmark")
    if seen and not made_up and place(seen) > place(bookmark):
        bookmark = seen
    if response.status_code >= 300:
        return
    operation = case.operation.definition.raw.get("operationId")
    if operation in ("listItems", "listKeys", "listUsers"):
        cursor = response.json().get("next_cursor")
        if cursor:
            cursors[listing(case)] = cursor
    elif operation == "createKey":
        made.add(response.json()["id"])
