"""Debian's Chromium, and visitors' pages in it: the tests ask for `desktop`, `mobile` or `new_page`.

Playwright keeps an event loop running in the thread of the tests: a server under test needs another thread or process.
"""

import os
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from shops import Shop

CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--no-sandbox",  # it refuses to run as root with one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE *.localhost",
]


@pytest.fixture(scope="session")
def browser():
    """Give the browser that all tests share."""
    if not (CHROMIUM.exists() and find_spec("playwright")):
        give_up = pytest.fail if "CONVSDK_TEST_REQUIRE_BROWSER" in os.environ else pytest.skip
        give_up(f"no browser: needs {CHROMIUM} (apt-get install chromium) and pip install '.[browser-test]'")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  (may be missing)

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def complaints():
    """Give the list of errors on the pages and of requests to other hosts: a test fails with what is left in it.

    A test that wants an error takes it out, once it has asserted it.
    """
    found = []
    yield found
    assert not found, "\n".join(found)


@pytest.fixture
def new_page(browser, complaints):
    """Give a function that opens a page for a new visitor; its options are those of Playwright's `new_context`."""
    contexts = []

    def note_request(request):
        host = urlsplit(request.url).hostname or "localhost"  # data: and blob: name none
        if host not in {"127.0.0.1", "localhost"} and not host.endswith(".localhost"):
            complaints.append(f"request to another host: {request.url}")

    def open_page(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.on("request", note_request)
        context.on("console", lambda line: line.type == "error" and complaints.append(f"console: {line.text}"))
        context.on("weberror", lambda raised: complaints.append(f"page: {raised.error}"))
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def desktop(new_page):
    """Give a page on a desktop's screen."""
    return new_page(viewport={"width": 1280, "height": 800})


@pytest.fixture
def mobile(new_page):
    """Give a page on a telephone's screen, touched instead of clicked."""
    screen = {"width": 390, "height": 844}
    return new_page(viewport=screen, screen=screen, device_scale_factor=3, is_mobile=True, has_touch=True)


@pytest.fixture
def violations():
    """Give a function that tells what axe-core finds wrong on a page, as `rule: element` lines."""
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415  (may be missing)

    def find_violations(page):
        found = Axe().run(page).response["violations"]
        return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]

    return find_violations


@pytest.fixture
def open_shop(tmp_path):
    """Give a function that opens a shop with the chat on its pages; it takes the options of `Shop`.

    A test names it before its pages: it is closed after them.
    """
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Shop(tmp_path, **options).open())


@pytest.fixture
def shop(open_shop):
    """Give a shop with the chat on its pages, open."""
    return open_shop()


@pytest.fixture
def shoot():
    """Give a function that keeps a picture of a page, in the folder of `CONVSDK_TEST_SCREENSHOTS` where that is set."""

    def keep(page, name):
        if folder := os.environ.get("CONVSDK_TEST_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"{name}.png", animations="disabled")

    return keep
