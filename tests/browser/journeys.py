"""What people do on the pages, in more than one region, without a script."""

import re
import secrets

from playwright.sync_api import expect

from window import AP, EU, FIREFOX, OTHER, PASSWORD, US, Window, eventually


def from_registration_to_signing_out(site, browser):
    window, ada = Window(browser, site), site.nobody("Ada King")
    window.go("/", US)
    window.is_at("/sign-in")
    window.follow("Make an account", "/register")
    window.fill(tenant=site.tenant, email=ada.email, name=ada.name, password=ada.password)
    window.sent("Make the account", "/sign-in?done=registered")
    # Elsewhere, at once.
    window.region = AP
    window.sign_in(ada)
    expect(window.main).to_contain_text(ada.name)
    expect(window.main).to_contain_text(ada.email)
    for region in (EU, US, AP):
        window.go("/account", region)
        expect(window.main).to_contain_text(ada.email)
    # Whoever is signed in need not sign in.
    window.go("/")
    window.is_at("/account")
    name_is_changed(window)
    password_is_changed(window)
    window.go("/account", EU)
    window.sent("Sign out", "/sign-in?done=signed-out")
    assert not window.tokens(), "signed out, and the browser still has a token"
    window.tab.go_back()
    expect(window.main).not_to_contain_text(ada.email)
    for region in (EU, AP, US):
        for path in ("/account", "/account/name", "/account/password", "/sessions", "/accounts"):
            window.go(path, region)
            window.is_at("/sign-in")
    return window


def name_is_changed(window):
    # What would be markup, were it written as it is.
    name = '<b id="b">Ada</b> & "O\'Hara" &lt;'
    window.go("/account", AP)
    window.follow("Change name", "/account/name")
    expect(window.field("Name")).to_have_value("Ada King")
    window.fill(name=name)
    window.sent("Save", "/account?done=name")
    for region in (AP, EU, US):
        window.go("/account", region)
        expect(window.main).to_contain_text(name)
    window.go("/account/name")
    expect(window.field("Name")).to_have_value(name)
    # What is not a name.
    window.fill(name=" ")
    window.refused("Save", 422)


def password_is_changed(window):
    window.go("/account", AP)
    window.follow("Change password", "/account/password")
    window.fill(current=OTHER, new="a-heron-on-the-eleventh-step")
    window.refused("Change the password", 401, 403, 422)
    for label in ("Current password", "New password"):
        expect(window.field(label)).to_have_value("")
    window.fill(current=PASSWORD, new="password1")
    window.refused("Change the password", 422)
    expect(window.field("New password")).to_have_attribute("aria-invalid", "true")
    window.fill(current=PASSWORD, new=OTHER)
    window.sent("Change the password", "/account?done=password")


def a_new_password_ends_the_old_one_and_the_other_sessions(site, browser):
    ada = site.person("Ada Byron")
    here, there = Window(browser, site, ada, EU), Window(browser, site, ada, AP)
    here.go("/account/password")
    here.fill(current=ada.password, new=OTHER)
    here.sent("Change the password", "/account?done=password")
    eventually("signed out elsewhere by a new password", there.is_out)
    there.go("/sign-in", US)
    there.fill(tenant=site.tenant, email=ada.email, password=PASSWORD)
    there.refused("Sign in", 401)
    there.fill(password=OTHER)
    there.sent("Sign in", "/account")
    here.go("/account", US)
    here.shows("Your account")
    there.close()
    return here


def entries(window):
    return window.main.locator("li, tbody tr")


def sessions_are_seen_and_ended(site, browser):
    ada = site.person("Ada Lovelace")
    here = Window(browser, site, ada, US)
    there = Window(browser, site, ada, AP, user_agent=FIREFOX)
    third = Window(browser, site, ada, EU, user_agent=FIREFOX)

    def listed(count):
        def look():
            here.go("/sessions")
            here.shows("Where you are signed in")
            others = ended_by(here)
            return len(others) + 1 == count, f"others that can be ended: {others}"

        return look

    eventually("three sessions", listed(3))
    current = entries(here).filter(has_text="This session")
    expect(current).to_have_count(1)
    expect(current).to_contain_text(US)
    expect(current.get_by_role("button")).to_have_count(0)
    other = entries(here).filter(has_text="Firefox").filter(has_text=AP)
    expect(other).to_have_count(1)
    expect(other).to_contain_text("127.0.0.1")
    names = ended_by(here)
    assert len(set(names)) == 2, f"buttons that do not say what they end: {names}"
    # As the other one sees it.
    there.go("/sessions", EU)
    expect(entries(there).filter(has_text="This session")).to_contain_text(AP)

    answer = here.press(other.get_by_role("button"))
    assert answer.status == 303 and answer.at.startswith("/sessions?done="), answer
    expect(here.tab.get_by_role("status")).not_to_be_empty()
    expect(other).to_have_count(0)
    # This page is refused at once, the others soon.
    there.region = AP
    assert there.is_out("/sessions")[0], f"at {there.at} with a session that was ended"
    eventually("signed out by another session", there.is_out)
    third.go("/account")
    third.shows("Your account")

    answer = here.press("End all others")
    assert answer.status == 303 and answer.at.startswith("/sessions?done="), answer
    assert third.is_out("/sessions")[0], f"at {third.at} with a session that was ended"
    eventually("one session", listed(1))
    for window in (there, third):
        window.close()
    return here


def ended_by(window):
    """What the buttons are called that end one session each."""
    buttons = window.main.get_by_role("button", name=re.compile("^End (?!all others$)"))
    return [button.get_attribute("aria-label") or button.inner_text() for button in buttons.all()]


def three_accounts_in_one_browser(site, browser):
    ada, ben, cleo, dora = (site.person(name) for name in ("Ada A", "Ben B", "Cleo C", "Dora D"))
    window = Window(browser, site, ada, US)
    for person, region in ((ben, AP), (cleo, EU)):
        window.go("/account", region)
        window.follow("Accounts in this browser", "/accounts")
        window.follow("Add an account", "/sign-in")
        window.sign_in(person)
        expect(window.main).to_contain_text(person.email)
    assert len(window.tokens()) == 3, window.tokens()
    accounts_are(window, cleo, ben, ada)
    # To the third: it is the one to use, everywhere, and the others keep their order.
    window.go("/accounts", AP)
    window.press(account(window, ada).get_by_role("button"))
    for region in (AP, US, EU):
        window.go("/account", region)
        expect(window.main).to_contain_text(ada.email)
        expect(window.main).not_to_contain_text(cleo.email)
    accounts_are(window, ada, cleo, ben)
    # A fourth takes the place of the one that was used longest ago.
    window.region = US
    window.sign_in(dora)
    accounts_are(window, dora, ada, cleo)
    # The same one again is no fourth.
    window.sign_in(ada)
    accounts_are(window, ada, dora, cleo)
    for left in (dora, cleo):
        window.go("/account", AP)
        answer = window.press("Sign out")
        assert answer.status == 303 and answer.at.partition("?")[0] == "/accounts", answer
        expect(account(window, left)).to_contain_text("Active")
    window.go("/account", AP)
    window.sent("Sign out", "/sign-in?done=signed-out")
    return window


def account(window, person):
    return entries(window).filter(has_text=person.email)


def accounts_are(window, active, *others):
    window.go("/accounts")
    window.shows("Accounts in this browser")
    expect(entries(window).filter(has_text="@example.com")).to_have_count(1 + len(others))
    expect(account(window, active)).to_contain_text("Active")
    expect(account(window, active).get_by_role("button")).to_have_count(0)
    names = set()
    for person in others:
        button = account(window, person).get_by_role("button")
        expect(button).to_have_accessible_name(re.compile("^Switch"))
        names.add(button.get_attribute("aria-label") or button.inner_text())
    assert len(names) == len(others), f"buttons that do not say to whom they switch: {names}"


def a_wrong_password_is_told_and_not_kept(site, browser):
    ada = site.person("Ada Wrong")
    window = Window(browser, site, region=AP)
    window.go("/sign-in")
    window.fill(tenant=site.tenant, email=ada.email, password=OTHER)
    window.refused("Sign in", 401)
    expect(window.field("Organisation")).to_have_value(site.tenant)
    expect(window.field("E-mail address")).to_have_value(ada.email)
    expect(window.field("Password")).to_have_value("")
    assert OTHER not in window.tab.content(), "the page holds the password"
    assert not window.tokens(), "a token for a wrong password"
    told = window.alert.inner_text()
    # So that it is read out, and Tab goes on from there.
    expect(window.alert).to_be_focused()
    # Nobody learns who has an account.
    window.fill(email="nobody.at.all@example.com", password=OTHER)
    window.refused("Sign in", 401)
    assert window.alert.inner_text() == told, (told, window.alert.inner_text())
    window.fill(email=ada.email, password=PASSWORD)
    window.sent("Sign in", "/account")
    return window


def leads_to_a_field(window):
    """The summary of what is wrong has a link, which puts one where it can be put right."""
    link = window.alert.get_by_role("link").first
    target = link.get_attribute("href")
    assert re.fullmatch("#[A-Za-z][-_A-Za-z0-9]*", target or ""), (
        f"a summary that links to {target}"
    )
    link.focus()
    window.tab.keyboard.press("Enter")
    field = window.tab.locator(f"input{target}")
    expect(field).to_be_focused()
    return field


def what_is_wrong_with_a_registration_is_told_at_its_field(site, browser):
    window, ada = Window(browser, site, region=EU), site.nobody("Ada <Easy>")
    window.go("/register")
    window.fill(tenant=site.tenant, email=ada.email, name=ada.name, password="password1")
    window.refused("Make the account", 422)
    field = leads_to_a_field(window)
    expect(field).to_have_attribute("name", "password")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile(".+"))
    expect(field).to_have_value("")
    expect(window.field("Name")).to_have_value(ada.name)
    expect(window.field("E-mail address")).to_have_value(ada.email)
    window.fill(password=ada.password, tenant="no-such-organisation")
    window.refused("Make the account", 422)
    expect(window.field("Organisation")).to_have_attribute("aria-invalid", "true")
    window.fill(password=ada.password, tenant=site.tenant)
    window.sent("Make the account", "/sign-in?done=registered")
    # One address has one account.
    window.go("/register")
    window.fill(tenant=site.tenant, email=ada.email, name="Eve", password=OTHER)
    window.refused("Make the account", 409, 422)
    return window


def guessing_is_held_up(site, browser):
    """`tests/pages` lets an account be guessed at a few times only."""
    ada = site.person("Ada Guessed")
    window = Window(browser, site, region=AP)
    window.go("/sign-in")
    for _ in range(25):
        window.fill(tenant=site.tenant, email=ada.email, password=secrets.token_hex(8))
        answer = window.refused("Sign in", 401, 429)
        if answer.status == 429:
            break
    assert answer.status == 429, "so many guesses, and none was held up"
    assert int(answer.headers.get("retry-after", 0)) > 0, answer.headers
    expect(window.field("E-mail address")).to_have_value(ada.email)
    return window


def of_two_tabs_the_later_is_told(site, browser):
    ada = site.person("Ada Twice")
    window = Window(browser, site, ada, AP)
    window.go("/account/name")
    first, window.tab = window.tab, window.context.new_page()
    window.go("/account/name")
    window.fill(name="Ada the Second")
    window.sent("Save", "/account?done=name")
    window.tab = first
    window.fill(name="Ada the Third")
    window.refused("Save", 409, 412)
    # What was typed is still there. It is sent again, or the name is looked at first.
    expect(window.field("Name")).to_have_value("Ada the Third")
    as_it_is = window.alert.locator('a[href="/account/name"]')
    if as_it_is.count():
        with window.tab.expect_navigation():
            as_it_is.click()
        expect(window.field("Name")).to_have_value("Ada the Second")
        window.fill(name="Ada the Third")
    window.sent("Save", "/account?done=name")
    expect(window.main).to_contain_text("Ada the Third")
    return window


def without_a_mouse(site, browser):
    ada = site.person("Ada Keys")
    window = Window(browser, site, region=EU)
    window.go("/sign-in")
    press, focused = window.tab.keyboard.press, window.tab.locator(":focus")
    press("Tab")
    expect(focused).to_have_role("link")
    expect(focused).to_have_text(re.compile("^Skip"))
    expect(focused).to_be_in_viewport()
    press("Enter")
    press("Tab")
    for name, typed in (("tenant", site.tenant), ("email", ada.email), ("password", ada.password)):
        expect(focused).to_have_attribute("name", name)
        # As it came, a remembered name may stand there.
        press("ControlOrMeta+a")
        window.tab.keyboard.type(typed)
        press("Tab")
    expect(focused).to_have_role("button")
    with window.tab.expect_navigation():
        press("Enter")
    window.is_at("/account")
    # On to a page, and out again.
    tab_to(window, "link", "Sessions")
    with window.tab.expect_navigation():
        press("Enter")
    window.is_at("/sessions")
    window.go("/account")
    tab_to(window, "button", "Sign out")
    with window.tab.expect_navigation():
        press("Space")
    window.is_at("/sign-in?done=signed-out")
    return window


def tab_to(window, role, name):
    wanted = window.tab.get_by_role(role, name=name, exact=True).and_(window.tab.locator(":focus"))
    for _ in range(40):
        window.tab.keyboard.press("Tab")
        if wanted.count():
            return
    raise AssertionError(f"no way to the {role} {name!r} by Tab")


def while_the_primary_is_away(site, browser):
    """Reading and signing in go on; what is to be changed is refused, kept, and sent again later."""
    ada, ben = site.person("Ada Away"), site.person("Ben Away")
    window = Window(browser, site, ada, AP)
    other = Window(browser, site, region=AP)
    # So that the replica has heard of him.
    other.sign_in(ben)
    other.sent("Sign out", "/sign-in?done=signed-out")
    window.go("/account/name")
    try:
        for region in (EU, AP):
            site.laboratory("cut", US, region)
        eventually("no primary", lambda: is_health(site, "degraded"))
        window.fill(name="Ada Back")
        answer = window.refused("Save", 503)
        assert int(answer.headers.get("retry-after", 0)) > 0, answer.headers
        expect(window.field("Name")).to_have_value("Ada Back")
        other.sign_in(ben)
        expect(other.main).to_contain_text(ben.email)
        form, window.tab = window.tab, window.context.new_page()
        window.go("/account")
        expect(window.main).to_contain_text("Ada Away")
        window.tab = form
    finally:
        site.laboratory("heal")
    eventually("a primary again", lambda: is_health(site, "ok"))
    window.sent("Save", "/account?done=name")
    expect(window.main).to_contain_text("Ada Back")
    other.close()
    return window


def is_health(site, wanted):
    seen = site.health(AP)
    return seen == wanted, seen


ALL = [
    from_registration_to_signing_out,
    a_new_password_ends_the_old_one_and_the_other_sessions,
    sessions_are_seen_and_ended,
    three_accounts_in_one_browser,
    a_wrong_password_is_told_and_not_kept,
    what_is_wrong_with_a_registration_is_told_at_its_field,
    guessing_is_held_up,
    of_two_tabs_the_later_is_told,
    without_a_mouse,
    while_the_primary_is_away,
]
