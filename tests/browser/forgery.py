"""What others may try with somebody's browser: none of it changes anything."""

import contextlib
import html
import http.server
import threading

from playwright.sync_api import expect

from window import AP, OTHER, PASSWORD, US, Window


@contextlib.contextmanager
def elsewhere(pages):
    """Pages of somebody else's, at a port of their own; `pages` is filled while they are served."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            page = pages.get(self.path)
            self.send_response(200 if page else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write((page or "").encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def form(action, fields):
    inputs = "".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in fields.items()
    )
    head = "<!doctype html><title>A prize</title>"
    return f'{head}<form method="post" action="{action}">{inputs}<button>Win</button></form>'


def hidden(window):
    """What a form sends that nobody typed."""
    fields = window.tab.locator("form input[type=hidden]")
    return {field.get_attribute("name"): field.get_attribute("value") for field in fields.all()}


def forms_of_other_places(site, browser):
    """Another port is the same site and gets the cookies along; another host is another site."""
    ada, eve = site.person("Ada Real"), site.person("Eve Forger")
    window, pages = Window(browser, site, ada, US), {}
    window.go("/account/name")
    # The most that anybody could know: the very fields of her own form.
    known = hidden(window)
    assert known.get("csrf"), known
    url = site.urls[US]
    pages["/name"] = form(f"{url}/account/name", known | {"name": "Forged"})
    window.go("/account/password")
    new = {"current_password": PASSWORD, "password": OTHER, "current": PASSWORD, "new": OTHER}
    pages["/password"] = form(f"{url}/account/password", hidden(window) | new)
    window.go("/account")
    pages["/sign-out"] = form(f"{url}/sign-out", hidden(window))
    window.go("/sign-in")
    credentials = {"tenant": site.tenant, "email": eve.email, "password": eve.password}
    pages["/sign-in"] = form(f"{url}/sign-in", hidden(window) | credentials)
    before = window.tokens()
    with elsewhere(pages) as port:
        for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
            window.allowed.add(origin)
            for path in pages:
                window.tab.goto(origin + path)
                answer = window.press("Win")
                assert answer.status == 403, (
                    f"from {origin}, to {path}: {answer.status}, at {answer.at}"
                )
                assert window.tokens() == before, f"from {origin}, to {path}: other tokens"
    window.go("/account")
    expect(window.main).to_contain_text("Ada Real")
    # The password is what it was.
    Window(browser, site, ada, AP).close()
    return window


def forms_without_their_secret(site, browser):
    ada, eve = site.person("Ada Secret"), site.person("Eve Curious")
    window, other = Window(browser, site, ada, AP), Window(browser, site, eve, AP)
    other.go("/account/name")
    hers = hidden(other)["csrf"]
    secret = 'form:has(button:text-is("Save")) input[name=csrf]'
    for tamper in (
        lambda: window.hide(secret),
        lambda: window.put(secret, ""),
        lambda: window.put(secret, hers),
        # The nonce of the cookie is not what the form holds, or it would be for whoever sets cookies.
        lambda: window.context.clear_cookies(name="__Host-godwit_form"),
    ):
        window.go("/account/name")
        window.fill(name="Forged")
        tamper()
        answer = window.press("Save")
        assert answer.status == 403, f"without a form's secret: {answer.status}, at {answer.at}"
        # There is a way on, and nothing has happened.
        expect(window.tab.get_by_role("heading", level=1)).to_have_count(1)
        window.go("/account")
        expect(window.main).to_contain_text("Ada Secret")
    # By its address alone nothing is done.
    for path in ("/sign-out", "/account/name?name=Forged"):
        window.go(path)
    assert window.tokens(), "signed out by an address"
    window.go("/account")
    expect(window.main).to_contain_text("Ada Secret")
    other.close()
    return window


def a_page_that_frames_another(site, browser):
    ada = site.person("Ada Framed")
    window, pages = Window(browser, site, ada, US), {}
    with elsewhere(pages) as port:
        origin = f"http://127.0.0.1:{port}"
        window.allowed.add(origin)
        pages["/"] = (
            f'<!doctype html><title>A frame</title><iframe src="{site.urls[US]}/account"></iframe>'
        )
        window.tab.goto(f"{origin}/")
        frame = window.tab.frame_locator("iframe")
        expect(frame.get_by_text(ada.email)).to_have_count(0)
        # Chromium says why.
        assert any("frame-ancestors" in what for what in window.complaints), window.complaints
        window.complaints.clear()
    return window


ALL = [forms_of_other_places, forms_without_their_secret, a_page_that_frames_another]
