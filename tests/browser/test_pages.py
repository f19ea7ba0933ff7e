"""The pages that the widget is on: what they allow it, what it does to them, and what they cannot do to it."""

import zlib

from playwright.sync_api import expect
from shops import Visitor

HOSTILE = "<img src=x onerror=ran=1><script>ran=1</script> javascript:ran=1 https://shop.example/<b>"


def png(width=200, height=120, noise=b""):
    """Give a picture; `noise` makes it as large as wanted."""

    def chunk(kind, data):
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    head = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    lines = zlib.compress((b"\0" + b"\x2f\x6b\x4f" * width) * height)
    parts = [(b"IHDR", head), (b"noIs", noise), (b"IDAT", lines), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


PICTURE = ("pot.png", "image/png", png())
FROM_END = "(log) => log.scrollHeight - log.scrollTop - log.clientHeight"


def test_picture_and_document_are_sent(shop, desktop, shoot):
    """A picture is shown, a document is a link, both are at the message in the store, and the newest stays in view."""
    visitor = Visitor(desktop).come(shop.page()).open().sees("What is it about?")

    visitor.attach(PICTURE, ("bill.pdf", "application/pdf", b"%PDF-1.7"))
    shoot(desktop, "attached")
    visitor.write("Look.").sees("Look.")
    image = visitor.log.get_by_role("img", name="pot.png")
    visitor.waits(lambda: image.evaluate("(image) => image.naturalWidth"), 200)
    visitor.waits(lambda: visitor.log.evaluate(FROM_END) < 2, wanted=True)
    shoot(desktop, "picture")
    with desktop.expect_download() as download:
        visitor.log.get_by_role("link", name="bill.pdf").click()

    assert download.value.suggested_filename == "bill.pdf"
    (message,) = [one for one in shop.messages(shop.conversations()[0].id) if one.text == "Look."]
    assert [(one.name, one.media_type, one.size) for one in message.attachments] == [
        ("pot.png", "image/png", len(png())),
        ("bill.pdf", "application/pdf", 8),
    ]


def test_file_that_may_not_be_sent_is_refused_with_a_reason(shop, desktop):
    """What is too large or of another type is named, and is not sent with the message."""
    visitor = Visitor(desktop).come(shop.page()).open().sees("What is it about?")

    visitor.attach(("big.png", "image/png", png(noise=bytes(100_000))), ("page.html", "text/html", b"<script>"))
    alerts = visitor.chat.get_by_role("alert")
    expect(alerts.filter(has_text="big.png is larger than 0.1 MB.")).to_be_visible()
    expect(alerts.filter(has_text="Files such as page.html cannot be sent.")).to_be_visible()
    visitor.write("Nothing comes with this.")
    visitor.waits(lambda: shop.texts(shop.conversations()[0].id), ["Nothing comes with this."])

    assert not any(one.attachments for one in shop.messages(shop.conversations()[0].id))


def test_page_of_another_site_goes_by_token(open_shop, desktop):
    """Where browsers keep no cookie, an allowed page holds the visitor's token, and a reload goes on with it."""
    shop = open_shop(is_allowed_elsewhere=True)
    visitor = Visitor(desktop).come(shop.page(host=shop.elsewhere)).open().sees("What is it about?")
    visitor.attach(PICTURE).write("From elsewhere.").sees("From elsewhere.")
    desktop.reload()
    visitor.sees("From elsewhere.")
    image = visitor.log.get_by_role("img", name="pot.png")
    visitor.waits(lambda: image.evaluate("(image) => image.naturalWidth"), 200)
    shop.hub.reply(shop.conversations()[0].id, "Welcome from there.", by="Kim")
    visitor.sees("Welcome from there.")

    assert visitor.cookie is None
    assert [shop.texts(one.id) for one in shop.conversations()] == [["From elsewhere."]]


def test_page_of_another_site_that_is_not_allowed_is_told_so(shop, desktop, complaints):
    """The console says why there is no chat; the rest of the page works, and no visitor is made."""
    desktop.goto(shop.page(host=shop.elsewhere))
    desktop.wait_for_timeout(500)
    desktop.get_by_role("button", name="Buy").click()

    assert any("this page may not use the widget: add its origin" in one for one in complaints), complaints
    assert not any(one.startswith("page:") for one in complaints), complaints
    assert desktop.locator("convsdk-chat").count() == 0
    assert shop.conversations() == []
    complaints.clear()


def test_cookie_comes_with_the_visitor_or_with_consent_only(shop, desktop):
    """Looking at a page leaves nothing in the browser; a yes sets the cookie, a no takes it away, the chat goes on."""
    visitor = Visitor(desktop).come(shop.page())
    before = visitor.cookie, desktop.evaluate("localStorage.length")

    desktop.evaluate("convsdk('consent', true)")
    visitor.waits(lambda: visitor.cookie is not None, wanted=True)
    given = visitor.cookie
    desktop.evaluate("convsdk('consent', false)")
    visitor.waits(lambda: visitor.cookie, None)
    visitor.open().press("My order").sees("Which number does your order have?").write("4711")
    visitor.sees("How can we reach you?")
    after = visitor.cookie, desktop.evaluate("localStorage.length")

    assert before == after == (None, 0)
    assert (given["httpOnly"], given["secure"], given["sameSite"]) == (True, True, "Lax")
    assert [shop.texts(one.id) for one in shop.conversations()] == [["My order", "4711"]]


def test_opened_chat_stays_open_on_the_next_page_and_works_on_a_telephone(shop, mobile, shoot):
    """On a small screen the chat fills it; on the next page it is there as it was left."""
    visitor = Visitor(mobile).come(shop.page())
    shoot(mobile, "mobile-closed")
    visitor.open().sees("What is it about?")
    shoot(mobile, "mobile-greeted")

    visitor.press("A human, please").sees("How can we reach you?").come(shop.page()).sees("How can we reach you?")
    shoot(mobile, "mobile-form")

    screen = {"x": 0, "y": 0, "width": 390, "height": 844}
    visitor.waits(lambda: {name: round(value) for name, value in visitor.dialog.bounding_box().items()}, screen)
    expect(visitor.launcher).to_be_hidden()
    visitor.close()
    expect(visitor.launcher).to_be_visible()


def test_chat_under_a_prefix(open_shop, desktop):
    """Mounted in another app, the script finds its server by its own address."""
    shop = open_shop(prefix="/talk/here")
    visitor = Visitor(desktop).come(shop.page()).open().sees("What is it about?")
    visitor.attach(PICTURE).write("Hello from below.").sees("Hello from below.")
    image = visitor.log.get_by_role("img", name="pot.png")
    visitor.waits(lambda: image.evaluate("(image) => image.naturalWidth"), 200)
    shop.hub.reply(shop.conversations()[0].id, "Hello from above.", by="Kim")
    visitor.sees("Hello from above.")

    assert visitor.cookie["path"] == "/"


def test_what_people_write_is_shown_as_text(shop, desktop):
    """Markup of a visitor or an agent runs nothing, and only an address of the web becomes a link."""
    visitor = Visitor(desktop).come(shop.page()).open().sees("What is it about?")

    visitor.write(HOSTILE).sees(HOSTILE)
    visitor.waits(lambda: shop.texts(shop.conversations()[0].id), [HOSTILE])
    shop.hub.reply(shop.conversations()[0].id, f"You wrote: {HOSTILE}", by="<b>Kim</b>")
    visitor.sees(f"You wrote: {HOSTILE}", "<b>Kim</b>")

    assert desktop.evaluate("window.ran") is None
    links = visitor.log.get_by_role("link").evaluate_all("(links) => links.map((one) => one.href)")
    assert links == ["https://shop.example/"] * 2


def test_longest_text_arrives_whole(shop, desktop):
    """A visitor can write 10,000 characters, and no more."""
    text = "Pot! " * 2000
    visitor = Visitor(desktop).come(shop.page()).open().sees("What is it about?")

    visitor.input.fill(text)
    visitor.input.press("End")
    visitor.input.press_sequentially("more")
    typed = visitor.input.input_value()
    visitor.input.press("Enter")
    visitor.waits(lambda: shop.texts(shop.conversations()[0].id), [text.strip()])

    assert typed == text


LOOK = """(element) => {
    const style = getComputedStyle(element);
    return Object.fromEntries([...style].map((name) => [name, style[name]]));
}"""


def test_styles_of_the_page_do_not_reach_the_chat(shop, desktop, shoot):
    """Whatever the page says of all elements, the chat looks the same."""

    def looks():
        visitor = Visitor(desktop).come(shop.page())
        if not visitor.dialog.is_visible():
            visitor.open()
        visitor.sees("What is it about?")
        desktop.wait_for_timeout(300)  # until it stands still
        desktop.locator("main button").focus()
        parts = visitor.chat.locator(".launcher, .dialog, h2, .bubble, .choices button, textarea")
        return [part.evaluate(LOOK) for part in parts.all()]

    before = looks()
    shop.style = """* { all: unset !important; font-size: 40px !important; color: red !important; direction: rtl }
        div, section, convsdk-chat { display: none; } html { font-size: 99px; letter-spacing: 9px; }"""
    after = looks()
    shoot(desktop, "hostile-styles")

    assert before == after


def test_styles_of_the_chat_do_not_reach_the_page(shop, desktop):
    """The elements of the page look the same with the chat open as without it."""
    parts = desktop.locator("html, body, main, h1, p, button:not(convsdk-chat *)")
    desktop.route("**/widget.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
    desktop.goto(shop.page())
    before = [part.evaluate(LOOK) for part in parts.all()]
    desktop.unroute("**/widget.js")

    Visitor(desktop).come(shop.page()).open().sees("What is it about?")
    after = [part.evaluate(LOOK) for part in desktop.locator("html, body, main, h1, p, main button").all()]

    assert before == after[: len(before)]
