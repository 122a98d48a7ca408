"""The pages in a real browser.

`tests/pages` starts it, with a laboratory in LAB; arguments are names of tests.
"""

import os
import sys
import tempfile
import time
import traceback

from playwright.sync_api import Error, expect, sync_playwright

import forgery
import journeys
import looks
from window import SOON_SECONDS, Site, pictures

BROWSER = os.environ.get("CHROMIUM", "target/tools/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main(wanted):
    tests = {test.__name__: test for test in looks.ALL + journeys.ALL + forgery.ALL}
    unknown = set(wanted) - set(tests)
    assert not unknown, f"no such test: {', '.join(unknown)}; there are: {', '.join(tests)}"
    site, failed, began = Site(os.environ["LAB"]), [], time.monotonic()
    expect.set_options(timeout=SOON_SECONDS * 1000)
    for old in pictures().glob("*.png"):
        old.unlink()
    # Playwright gives the browser an empty directory of its own, in this one.
    with tempfile.TemporaryDirectory() as empty, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=FLAGS, env=os.environ | {"TMPDIR": empty, "HOME": empty}
        )
        for name in wanted or tests:
            try:
                tests[name](site, browser).close()
            except (AssertionError, Error) as error:
                failed.append(name)
                told(name, error, browser)
            # The windows of a test that failed, and the second ones of one that did not.
            for context in browser.contexts:
                context.close()
        browser.close()
    seconds = time.monotonic() - began
    passed = len(wanted or tests) - len(failed)
    print(f"{passed} passed, {len(failed)} failed, {seconds:.0f} s; pictures in {pictures()}")
    return 1 if failed else 0


def told(name, error, browser):
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(os.path.dirname(__file__))]
    lines = ", ".join(f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in ours[1:])
    print(f"FAILED {name} ({lines})\n  {str(error).strip()}", file=sys.stderr)
    for number, context in enumerate(browser.contexts):
        for tab in context.pages:
            picture = pictures() / f"failed-{name}-{number}.png"
            tab.screenshot(path=picture, full_page=True)
            print(f"  at {tab.url}, {picture}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
