"""How the pages look and read: axe-core's judgement, what it does not judge, and pictures."""

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from window import AP, EU, FIREFOX, OTHER, US, Window, pictures

SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 800}}
SCHEMES = "light", "dark"
# The narrowest a page must bear without scrolling sideways (WCAG 2.2, 1.4.10).
NARROW = {"width": 320, "height": 640}
HIGH_PX_MIN = 24

AXE = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations", "incomplete"],
}


def every_page(site, browser):
    """Each page in each state that somebody may meet it in."""
    ada, ben = site.person("Ada Looks"), site.person("Ben Looks")
    window = Window(browser, site, region=AP, script=True)
    titles = {}

    def looked_at(name):
        title = window.tab.title()
        same = [other for other, taken in titles.items() if taken == title]
        assert not same, f"the pages {name} and {same[0]} are both called {title!r}"
        titles[name] = title
        look(window, name)

    window.go("/sign-in")
    looked_at("sign-in")
    has_hints(window, {"E-mail address": "username|email", "Password": "current-password"})
    window.fill(tenant=site.tenant, email=ada.email, password=OTHER)
    window.refused("Sign in", 401)
    looked_at("sign-in-refused")
    window.go("/register")
    looked_at("register")
    has_hints(
        window, {"E-mail address": "username|email", "Name": "name", "Password": "new-password"}
    )
    eve = site.nobody("Eve Looks")
    window.fill(tenant=site.tenant, email=eve.email, name=eve.name, password="password1")
    window.refused("Make the account", 422)
    looked_at("register-refused")
    window.fill(password=OTHER)
    window.sent("Make the account", "/sign-in?done=registered")
    look(window, "sign-in-registered")
    for person in (ben, ada):
        window.sign_in(person)
    looked_at("account")
    window.go("/account/name")
    looked_at("name")
    window.fill(name=" ")
    window.refused("Save", 422)
    looked_at("name-refused")
    window.fill(name="Ada of the Estuary " + "Llanfairpwllgwyngyll" * 4)
    window.sent("Save", "/account?done=name")
    look(window, "account-renamed")
    window.go("/account/password")
    looked_at("password")
    has_hints(window, {"Current password": "current-password", "New password": "new-password"})
    others = [Window(browser, site, ada, region, user_agent=FIREFOX) for region in (US, EU)]
    window.go("/sessions")
    looked_at("sessions")
    window.go("/accounts")
    looked_at("accounts")
    window.go("/account/name")
    window.hide("main input[name=csrf]")
    window.press("Save")
    looked_at("forbidden")
    for other in others:
        other.close()
    return window


def look(window, name):
    """One page in both schemes, at every width."""
    tab = window.tab
    # First the pictures, for what follows takes the focus elsewhere.
    for scheme in SCHEMES:
        tab.emulate_media(color_scheme=scheme)
        for size, viewport in SIZES.items():
            tab.set_viewport_size(viewport)
            tab.screenshot(path=pictures() / f"{name}-{size}-{scheme}.png", full_page=True)
    for scheme in SCHEMES:
        tab.emulate_media(color_scheme=scheme)
        has_no_fault(tab, f"{name}, {scheme}")
        shows_what_is_focused(tab, f"{name}, {scheme}")
    for viewport in (NARROW, SIZES["desktop"]):
        tab.set_viewport_size(viewport)
        wide = tab.evaluate("document.documentElement.scrollWidth")
        assert wide <= viewport["width"], (
            f"{name}: {wide} px wide in a window of {viewport['width']}"
        )
    tab.set_viewport_size(SIZES["phone"])
    has_no_fault(tab, f"{name}, phone")
    expect(tab.get_by_role("heading", level=1)).to_have_count(1)
    repeated = tab.evaluate(
        """() => [...document.querySelectorAll("[id]")].map(element => element.id)
            .filter((id, place, all) => all.indexOf(id) !== place)"""
    )
    assert not repeated, f"{name}: ids that are there twice: {repeated}"
    for control in tab.locator("button, input").filter(visible=True).all():
        high = control.bounding_box()["height"]
        assert high >= HIGH_PX_MIN, (
            f"{name}: {control.evaluate('it => it.outerHTML')} is {high} px high"
        )


def has_no_fault(tab, where):
    found = Axe().run(tab, options=AXE).response
    # A contrast that cannot be computed is none that was proven.
    unsure = [rule for rule in found["incomplete"] if rule["id"] == "color-contrast"]
    told = [
        f"{rule['id']}: {rule['help']}\n    "
        + "\n    ".join(
            f"{node['html']}: {node.get('failureSummary', '')}" for node in rule["nodes"]
        )
        for rule in found["violations"] + unsure
    ]
    assert not told, f"{where}:\n" + "\n".join(told)


def shows_what_is_focused(tab, where):
    """Tab reaches each control once, in order, and what it has reached looks different."""
    focusable = tab.evaluate(
        """() => [...document.querySelectorAll("a[href], button, input:not([type=hidden]), summary")]
            .filter(element => element.checkVisibility()).length"""
    )
    # From the page's beginning, whatever had the focus.
    tab.evaluate(
        """() => {
            document.body.tabIndex = -1;
            document.body.focus();
            document.body.removeAttribute("tabindex");
            scrollTo(0, 0);
        }"""
    )
    plain, reached = tab.screenshot(full_page=True), 0
    while reached < focusable:
        tab.keyboard.press("Tab")
        on = tab.evaluate("() => document.activeElement.outerHTML.slice(0, 120)")
        assert not on.startswith("<body"), (
            f"{where}: {focusable} controls, and Tab reaches {reached}"
        )
        assert tab.screenshot(full_page=True) != plain, f"{where}: nothing shows the focus on {on}"
        reached += 1


def has_hints(window, hints):
    """What a browser fills in, and whatever keeps passwords."""
    for label, wanted in hints.items():
        expect(window.field(label)).to_have_attribute("autocomplete", re.compile(f"^({wanted})$"))


ALL = [every_page]
