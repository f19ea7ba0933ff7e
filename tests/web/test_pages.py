import pytest
from servers import fresh_store
from visits import HOST, OTHER_SITE, Browser, opened, shop_channels

from convsdk.core.ports import Widget

ALLOWED = [HOST, OTHER_SITE]
FORBIDDEN = [
    "null",
    "",
    "https://evil.example",
    "https://shop.example.evil.example",
    "https://evilshop.example",
    "https://shop.example@evil.example",
    "https://evil.example/https://shop.example",
    "https://shop.example:444",
    "https://shop.example.",
    "https://www.blog.example",
    "https://blog.example.evil.example",
    "https://blog.example:444",
    "http://blog.example",
    "https://blog.example/",
    "https://BLOG.example",
    "https://blog.example, https://evil.example",
    "https://[",
    "http://[::1",
    "://",
    "file://",
    "chrome-extension://blog.example",
    "*",
]


def cors(answer):
    """Give what an answer tells a browser of pages that may read it."""
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", ALLOWED)
def test_allowed_page_may_read_with_its_session(shop, origin):
    """The app's own pages, and those of the channel's list, are named in the answer, and never a star."""
    answer = shop.ask("POST", "/widget/chat/session", json={}, headers={"Origin": origin})

    assert answer.status_code == 200
    assert cors(answer) == {
        "access-control-allow-origin": origin,
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": "retry-after",
    }
    assert answer.headers["vary"] == "origin"


@pytest.mark.parametrize("origin", FORBIDDEN)
def test_other_pages_are_refused(shop, origin):
    """No other page reads or writes anything, however alike its name is; it may read that it may not, and no more."""
    browser = Browser(shop)
    browser.open()
    headers = {"Origin": origin, "Cookie": f"__Host-convsdk-chat={browser.cookie}"}

    answers = [
        shop.ask("GET", "/widget/chat", headers=headers),
        shop.ask("GET", "/widget/chat/messages", headers=headers),
        shop.ask("POST", "/widget/chat/messages", json={"id": "1", "text": "x"}, headers=headers),
        shop.ask("DELETE", "/widget/chat/session", headers=headers),
        shop.ask("GET", "/widget/chat/events", headers=headers),
    ]

    assert [(one.status_code, one.json()["error"]["code"]) for one in answers] == [(403, "origin")] * 5
    told = {"access-control-allow-origin": origin, "access-control-allow-credentials": "true"}
    assert [cors(one) for one in answers] == [told] * 5
    assert browser.texts() == []


@pytest.mark.parametrize("origin", ALLOWED)
def test_allowed_page_may_ask_beforehand(shop, origin):
    """A browser's question is answered with the methods and header fields of the API, and counts for nothing."""
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}

    answer = shop.ask("OPTIONS", "/widget/chat/messages", headers=asked)

    assert (answer.status_code, answer.content) == (204, b"")
    assert cors(answer) == {
        "access-control-allow-origin": origin,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET, POST, DELETE",
        "access-control-allow-headers": "authorization, content-type",
        "access-control-max-age": "600",
    }


@pytest.mark.parametrize("origin", FORBIDDEN)
def test_other_pages_are_not_told_that_they_may(shop, origin):
    """A browser that asks for another page hears nothing that would let it."""
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}

    answer = shop.ask("OPTIONS", "/widget/chat/messages", headers=asked)

    assert cors(answer) == {}


@pytest.mark.parametrize("path", ["/channels/chat", "/health", "/metrics", "/widget/nobody", "/widgets/chat", "/"])
def test_other_addresses_are_for_no_page(shop, path):
    """What is no widget is told to no page of another site, and not to one of this either."""
    answers = [shop.ask(method, path, headers={"Origin": OTHER_SITE}) for method in ("GET", "OPTIONS", "POST")]

    assert not any(cors(one) for one in answers)


def test_refusal_can_be_read_by_the_page(shop):
    """An allowed page can read why it was refused, and how long to wait."""
    browser = Browser(shop, site=OTHER_SITE)

    answers = [browser.get("/messages"), browser.post("/messages", id=""), browser.send("POST", "/forms", content=b"")]

    assert [one.status_code for one in answers] == [401, 400, 415]
    assert {one.headers.get("access-control-allow-origin") for one in answers} == {OTHER_SITE}


def test_caches_keep_pages_apart(shop):
    """Every answer of a widget depends on the page, said also where none was named: no cache gives one to another."""
    browser = Browser(shop)
    file = browser.upload().json()["id"]

    answers = [browser.get(), browser.get(f"/files/{file}"), Browser(shop).get("/messages")]

    assert {one.headers.get("vary") for one in answers} == {"origin"}


@pytest.mark.parametrize(
    "origin", ["null", "*", "https://*.shop.example", "shop.example", "https://shop.example/", "https://Shop.example"]
)
def test_what_is_no_origin_cannot_be_configured(origin):
    """A list that would let anybody in, or could never match, is refused where it is made."""
    with pytest.raises(ValueError, match="no origin"):
        Widget(origins=(origin,))


@pytest.mark.parametrize(
    ("fields", "has_cookie"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site", "Origin": OTHER_SITE}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": OTHER_SITE}, False),
        ({"Origin": HOST}, True),
        ({"Origin": OTHER_SITE}, False),
    ],
)
def test_cookie_is_for_pages_of_the_same_site(shop, fields, has_cookie):
    """A page of the same site keeps a cookie, also on another of its hosts; where it is another's it gets the token."""
    answer = shop.ask("POST", "/widget/chat/session", json={}, headers=fields)

    assert ("set-cookie" in answer.headers, answer.json()["token"] is None) == (has_cookie, has_cookie)


def test_each_channel_has_its_own_pages(tmp_path):
    """A page of one channel's list may not use another's widget."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, channels=shop_channels(origins=())) as shop:
        answer = Browser(shop, site=OTHER_SITE).get()

    assert answer.status_code == 403
