"""The fixtures themselves: what they give, and what they complain of."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Shop</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"></head>
<body><main><h1>Shop</h1>{more}</main></body></html>"""


@contextmanager
def served(more=""):
    """Serve a page that ends with `more`, under a strict policy; give its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Security-Policy", "default-src 'none'; img-src * data:")
            self.end_headers()
            self.wfile.write(PAGE.format(more=more).encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


@pytest.mark.parametrize(("device", "width", "touches"), [("desktop", 1280, 0), ("mobile", 390, 1)])
def test_page_opens_on_device(request, device, width, touches):
    """A page of a loopback server opens on a screen of the device's size."""
    page = request.getfixturevalue(device)

    with served() as url:
        page.goto(url)

    assert page.title() == "Shop"
    assert page.evaluate("[innerWidth, Math.min(navigator.maxTouchPoints, 1)]") == [width, touches]


def test_violations_are_found_under_a_strict_policy(desktop, violations):
    """axe-core runs whatever the page forbids, and names the elements that it finds wrong."""
    with served("<button></button>") as url:
        desktop.goto(url)
        found = violations(desktop)

    assert found == ["button-name: <button></button>"]


def test_page_without_violations_has_none(desktop, violations):
    """axe-core finds nothing wrong on a page that is right."""
    with served("<button>Buy</button>") as url:
        desktop.goto(url)
        found = violations(desktop)

    assert found == []


def test_errors_and_other_hosts_are_complained_of(desktop, complaints):
    """An error of the console or of a script, and a request to another host, each leave a complaint."""
    with served('<img alt="" src="http://shop.example/logo.png">') as url:
        desktop.goto(url)
        desktop.evaluate("console.error('said'); setTimeout(() => { throw new Error('thrown') })")
        desktop.wait_for_timeout(100)

    assert sorted(complaints) == [
        "console: Failed to load resource: net::ERR_NAME_NOT_RESOLVED",
        "console: said",
        "page: thrown",
        "request to another host: http://shop.example/logo.png",
    ]
    complaints.clear()
