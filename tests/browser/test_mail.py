"""Mail that wants to do harm, and mail that does not, as an agent's browser shows it."""

import base64
import html
import re
import struct
import threading
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from hostile_html import ASKS, ELSEWHERE, ODD, RUNS

from convsdk.core.model import Attachment
from convsdk.web.mail_html import attachment_headers, show_mail

SETTLE_MS = 700
PATIENCE_S = 20


def _png(size):
    """Give a square of one colour."""
    row = b"\0" + b"\x19\x76\xd2" * size
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(row * size)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


LOGO = _png(40)
NEWSLETTER = f"""<html><head><style>.a{{color:red}}</style><title>News</title></head>
<body bgcolor="#f4f4f4" style="margin:0"><center>
<table width="600" cellpadding="0" cellspacing="0" style="background:#fff;border:1px solid #ddd;font-family:Arial">
<tr><td style="padding:24px;background-color:#0b57d0;color:#fff;font-size:22px">
<img src="cid:logo@shop.example" width="40" height="40" alt="Logo"> Chairs for less</td></tr>
<tr><td style="padding:24px"><h2>Hello Ann,</h2><p>your <b>order 17</b> is on its way:</p>
<ul><li>one chair, oak<li>two cushions, &lt;green&gt;</ul>
<table border="1" cellpadding="6" style="border-collapse:collapse"><tr><th>What<th align="right">Price
<tr><td>Chair<td align="right">99.00<tr><td>Cushions<td align="right">20.00</table>
<p><a href="https://shop.example/track?order=17&amp;x=1" style="background:#0b57d0;color:#fff;padding:10px 18px;
text-decoration:none;border-radius:4px;display:inline-block">Where is it?</a></p>
<img src="{ELSEWHERE}/chair.jpg" width="520" alt="A chair"><img src="{ELSEWHERE}/pixel.gif" width="1" height="1">
</td></tr><tr><td background="{ELSEWHERE}/foot.png" style="padding:16px;color:#777;font-size:12px">Shop</td></tr>
</table></center><blockquote>On Monday you wrote: where is it? aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa</blockquote>
</body></html>"""


@contextmanager
def _served(answers):
    """Serve `answers`, (headers, content) by path, and give the origin and what was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            headers, content = answers.get(self.path, ({}, b""))
            self.send_response(200 if self.path in answers else 404)
            for name, value in ({"content-length": str(len(content))} | dict(headers)).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _harm(browser, documents, *, headers=None, sandbox=None, is_expected=False):
    """Give the names of the documents, each in a frame, of which a script ran or asked for something elsewhere.

    Where that `is_expected` of all of them, it is waited for.
    """
    frame = "<iframe src='/{}/'></iframe>" if sandbox is None else f"<iframe sandbox='{sandbox}' src='/{{}}/'></iframe>"
    plain = {"content-type": "text/html; charset=utf-8"}
    answers = {"/": (plain, "".join(frame.format(at) for at in range(len(documents))).encode())}
    context = browser.new_context()
    with _served(answers) as (origin, asked):
        for at, markup in enumerate(documents.values()):
            place = f"elsewhere.localhost:{urlsplit(origin).port}/{at}"
            answers[f"/{at}/"] = (headers or plain, markup.replace("elsewhere.example", place).encode())
        page = context.new_page()
        page.goto(f"{origin}/", wait_until="load")
        for _ in range(PATIENCE_S * 10 if is_expected else SETTLE_MS // 100):
            page.wait_for_timeout(100)
            harmful = {int(found[1]) for one in asked if (found := re.match(r"/(\d+)/(?:ran|a|b)", one))}
            if len(harmful) == len(documents):
                break
        context.close()
    return {name for at, name in enumerate(documents) if at in harmful}


def test_each_example_does_harm_where_nothing_is_done(browser):
    """The examples are no paper tigers: as it is, each runs its script or asks elsewhere."""
    harm = _harm(browser, RUNS | {f"asks: {name}": one for name, one in ASKS.items()}, is_expected=True)

    assert sorted({*RUNS, *(f"asks: {name}" for name in ASKS)} - harm) == []


def test_cleaned_mail_does_no_harm_without_any_walls(browser):
    """What is left of a mail does nothing, were it shown in a page without policy and sandbox."""
    cleaned = {name: _body(show_mail(one).document) for name, one in (RUNS | ASKS | ODD).items()}

    assert sorted(_harm(browser, cleaned)) == []


def test_walls_hold_whatever_is_within(browser):
    """The policy of the answer stops each example that nobody cleaned, and so does the frame's sandbox the scripts."""
    headers = show_mail("").headers

    assert sorted(_harm(browser, RUNS | ASKS, headers=headers)) == []
    assert sorted(_harm(browser, RUNS, sandbox="")) == []


def _body(document):
    return re.search(r"<body>.*</body>", document, re.DOTALL)[0]


def _framed(shown):
    """Give the answers of a server with a page that shows a mail in a frame."""
    outer = (
        "<!doctype html><meta name=viewport content='width=device-width'><body style='margin:0;font:14px sans-serif'>"
        f"<p style='margin:8px'>{shown.images_off} images are off</p><iframe sandbox='allow-popups "
        "allow-popups-to-escape-sandbox' src='/mail' title='Mail' style='width:100%;height:700px;border:0'></iframe>"
    )
    logo = Attachment(name="logo.png", media_type="image/png")
    return {
        "/": ({"content-type": "text/html; charset=utf-8"}, outer.encode()),
        "/mail": (shown.headers, shown.document.encode()),
        "/files/logo": (attachment_headers(logo), LOGO),
    }


@pytest.mark.parametrize("screen", ["desktop", "mobile"])
def test_images_within_the_mail_are_shown_and_no_others(browser, shoot, screen):
    """Of an image inside the mail the agent's own server is asked, and of those elsewhere nobody, until they are on."""
    for is_on in (False, True):
        shown = show_mail(NEWSLETTER, images={"logo@shop.example": "/files/logo"}, has_remote_images=is_on)
        context = browser.new_context(
            viewport={"width": 390, "height": 760} if screen == "mobile" else {"width": 1100, "height": 760},
            is_mobile=screen == "mobile",
        )
        elsewhere = []
        context.on("request", lambda one: "127.0.0.1" in one.url or elsewhere.append(one.url))  # noqa: B023
        with _served(_framed(shown)) as (origin, asked):
            page = context.new_page()
            page.goto(f"{origin}/", wait_until="load")
            page.wait_for_timeout(SETTLE_MS)
            shoot(page, f"mail-{screen}-{'on' if is_on else 'off'}")
            context.close()

        assert asked.count("/files/logo") == 1
        wanted = [f"{ELSEWHERE}/{name}" for name in ("chair.jpg", "foot.png", "pixel.gif")] if is_on else []
        assert (sorted(elsewhere), shown.images_off) == (wanted, 0 if is_on else 3)


def test_link_opens_a_page_of_its_own(browser):
    """A link leaves the frame, and tells the other side neither where it was nor how to reach it."""
    answers = _framed(show_mail(""))
    context = browser.new_context()
    with _served(answers) as (origin, _):
        shown = show_mail(f"<a href='{origin}/mail?opened'>Where is it?</a>")
        answers["/mail"] = (shown.headers, shown.document.encode())
        answers["/mail?opened"] = ({"content-type": "text/html"}, b"Here.")
        page = context.new_page()
        page.goto(f"{origin}/")

        with context.expect_page() as opened:
            page.frame_locator("iframe").get_by_text("Where is it?").click()

        assert opened.value.get_by_text("Here.").is_visible()
        assert opened.value.evaluate("[window.opener, document.referrer]") == [None, ""]
        assert page.url == f"{origin}/"
        context.close()


def test_mail_within_a_page_is_shown_the_same(browser):
    """The document can stand in `srcdoc`, where its own policy holds."""
    shown = show_mail(
        NEWSLETTER, images={"logo@shop.example": f"data:image/png;base64,{base64.b64encode(LOGO).decode()}"}
    )
    page_with = f"<iframe sandbox srcdoc='{html.escape(shown.document)}'></iframe>"
    context = browser.new_context()
    elsewhere = []
    context.on(
        "request", lambda one: "127.0.0.1" in one.url or one.url.startswith("data:") or elsewhere.append(one.url)
    )
    with _served({"/": ({"content-type": "text/html"}, page_with.encode())}) as (origin, _):
        page = context.new_page()
        page.goto(f"{origin}/", wait_until="load")

        assert page.frame_locator("iframe").get_by_text("order 17").is_visible()
        assert [one for one in elsewhere if not one.startswith("about:")] == []
        context.close()
