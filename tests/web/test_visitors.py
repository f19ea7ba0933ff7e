from hashlib import sha256

import jwt
import pytest
from servers import fresh_store
from structlog.testing import capture_logs
from visits import HOST, OTHER_SITE, SIGNING_SECRET, Browser, opened, shop_channels

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.web.chat import Chat
from convsdk.web.files import Files

COOKIE = "__Host-convsdk-chat"


def attributes(answer):
    """Give the attributes of the cookie that an answer sets."""
    return set(answer.headers["set-cookie"].split("; ")[1:])


def stored(shop, token):
    """Give what the store has of the session of that token."""
    return shop.hub.store.memo("default", "session", sha256(token.encode()).hexdigest())


# -- the cookie


def test_reading_sets_no_cookie(shop):
    """Nothing that a page only reads gives a cookie to a browser that has none."""
    browser = Browser(shop)

    answers = [browser.get(path) for path in ("", "/conversations", "/messages", "/files/0", "/events")]

    assert [one.status_code for one in answers] == [200, 401, 401, 401, 401]
    assert not any("set-cookie" in one.headers for one in answers)


@pytest.mark.parametrize("how", ["open", "consent", "message", "form", "file"])
def test_writing_or_opening_sets_the_cookie(shop, how):
    """The cookie comes with the opening of the chat, the site's yes, the first message, form or file."""
    browser = Browser(shop)

    answer = {
        "open": browser.open,
        "consent": lambda: browser.open(is_open=False),
        "message": lambda: browser.post("/messages", id="m", text="Hello"),
        "form": lambda: browser.submit(email="ann@shop.example"),
        "file": browser.upload,
    }[how]()

    assert answer.status_code in {200, 201}
    assert browser.cookie


def test_cookie_is_first_party_and_out_of_reach(shop):
    """The cookie belongs to this very host, goes by TLS alone, is hidden from scripts and lasts 30 days."""
    answer = Browser(shop).open()

    assert answer.headers["set-cookie"].startswith(f"{COOKIE}=")
    assert attributes(answer) == {"HttpOnly", "Secure", "SameSite=lax", "Path=/", "Max-Age=2592000"}
    assert answer.json()["token"] is None


def test_token_that_a_client_made_up_is_no_session(any_shop):
    """Only what the server made opens a session: another value is replaced by one of the server's."""
    browser = Browser(any_shop)
    browser.cookies.set(COOKIE, "chosen-by-me", domain="shop.example")

    read = browser.get("/messages")
    browser.say("Hello")

    assert read.status_code == 401
    assert browser.cookie != "chosen-by-me"


def test_token_of_one_channel_opens_no_other(tmp_path):
    """A session is one of its channel: its token says nothing to another widget."""
    both = (*shop_channels(), ChatChannel("sales", ChatSettings()))
    with opened(fresh_store("sqlite", tmp_path), tmp_path, channels=both) as shop:
        browser = Browser(shop, keep=False)
        browser.open()
        there = Browser(shop, channel="sales")
        there.token = browser.token

        assert browser.get("/messages").status_code == 200
        assert there.get("/messages").status_code == 401


def test_cookie_is_told_to_no_script(shop):
    """A page cannot have the token of a cookie told, whatever it asks for."""
    browser = Browser(shop)
    browser.open()

    answers = [browser.open(keep=False), browser.identify(email="ann@shop.example"), browser.get()]

    assert not any(browser.cookie in one.text for one in answers)
    assert browser.token is None


# -- pages that keep no cookie


def test_nothing_is_kept_where_the_site_says_so(shop):
    """Without leave to keep anything there is no cookie, and the token for the page's memory is the session."""
    browser = Browser(shop, keep=False)

    browser.open()
    browser.say("Hello")

    assert browser.cookie is None
    assert browser.texts() == ["Hello"]


def test_page_of_another_site_gets_a_token(shop):
    """Across sites browsers keep no cookie: the page gets the token itself, and none of the answers has a cookie."""
    browser = Browser(shop, site=OTHER_SITE)

    answers = [browser.open(), browser.post("/messages", id="m", text="Hello"), browser.identify(phone="+4930123456")]

    assert not any("set-cookie" in one.headers for one in answers)
    assert browser.texts() == ["Hello"]


@pytest.mark.parametrize("site", [None, OTHER_SITE])
def test_page_whose_session_is_over_gets_the_token_of_the_next(shop, site):
    """Who holds a token that opens nothing any more and writes, gets the new one: no message is left without reader."""
    browser = Browser(shop, site=site, keep=False)
    browser.open()
    browser.say("Before")
    shop.clock.advance(days=31)

    browser.say("Hello")
    browser.say("again")

    assert browser.texts() == ["Hello", "again"]


def test_password_of_a_site_that_is_not_public_is_no_session(shop):
    """A header that a browser adds for the site's own password changes nothing about the cookie."""
    browser = Browser(shop)
    password = {"Authorization": "Basic c2hvcDpzaG9w"}

    browser.send("POST", "/messages", json={"id": "m", "text": "Hello"}, headers=password)
    read = browser.send("GET", "/messages", headers=password)

    assert browser.cookie
    assert [one["text"] for one in read.json()["messages"]] == ["Hello"]


def test_token_of_the_page_goes_before_the_cookie(shop):
    """Where both come, the token counts, and the cookie of another session is neither read nor changed."""
    first, second = Browser(shop), Browser(shop, keep=False)
    first.say("From the cookie")
    second.open()
    second.say("From the token")

    read = first.send("GET", "/messages", headers={"Authorization": f"Bearer {second.token}"})
    wrote = first.send(
        "POST", "/messages", json={"id": "m", "text": "More"}, headers={"Authorization": f"Bearer {second.token}"}
    )

    assert [one["text"] for one in read.json()["messages"]] == ["From the token"]
    assert "set-cookie" not in wrote.headers
    assert first.texts() == ["From the cookie"]


# -- thirty days


def test_conversation_goes_on_on_day_29(any_shop):
    """Back within 30 days it is the same visitor in the same conversation, and the 30 days begin anew."""
    browser = Browser(any_shop)
    conversation = browser.say("Day 0")

    any_shop.clock.advance(days=29)
    same = browser.say("Day 29")
    any_shop.clock.advance(days=29)

    assert same == conversation
    assert browser.texts() == ["Day 0", "Day 29"]


def test_reading_begins_the_time_anew(shop):
    """A visit counts, whether or not anything is written: the 30 days are those without any."""
    browser = Browser(shop)
    browser.say("Hello")

    for _ in range(3):
        shop.clock.advance(days=20)
        seen = browser.texts()

    assert seen == ["Hello"]


def test_day_31_brings_a_new_visitor(any_shop):
    """After 30 days the browser is a stranger's: a new visitor, who reads nothing of what was there."""
    browser = Browser(any_shop)
    conversation = browser.say("Day 0")
    visitor = browser.session()["visitor"]
    any_shop.clock.advance(days=31)

    config, read = browser.get(), browser.get("/messages", conversation=conversation)
    browser.say("Day 31")

    assert (config.json()["session"], read.status_code) == (None, 401)
    assert browser.session()["visitor"] != visitor
    assert browser.get("/messages", conversation=conversation).status_code == 404
    assert browser.texts() == ["Day 31"]


def test_what_has_ended_is_forgotten(shop):
    """A session that ended is no longer in the store some time later: it holds addresses."""
    browser = Browser(shop)
    browser.open()
    browser.identify(email="ann@shop.example")
    old = browser.cookie
    shop.clock.advance(days=61)

    Browser(shop).open()

    assert stored(shop, old) is None


# -- log-out


def test_reset_ends_the_session_on_the_server(any_shop):
    """After a log-out the old cookie opens nothing, wherever it was copied to, and the next visitor is a new one."""
    browser, thief = Browser(any_shop), Browser(any_shop)
    conversation = browser.say("Hello")
    visitor = browser.session()["visitor"]
    thief.cookies.set(COOKIE, browser.cookie, domain="shop.example")

    answer = browser.reset()
    browser.open()

    assert (answer.status_code, "Max-Age=0" in answer.headers["set-cookie"]) == (204, True)
    assert thief.texts() is None
    assert browser.session()["visitor"] != visitor
    assert browser.get("/messages", conversation=conversation).status_code == 404


def test_reset_without_a_session_is_harmless(shop):
    """Who has no session can log out too."""
    assert Browser(shop).reset().status_code == 204


# -- who is there


def test_proof_opens_the_contacts_verified_conversations(any_shop):
    """Once it is proven who is there, mails and what was written in another proven browser can be read."""
    mail = any_shop.mail("ann@shop.example", "By mail")
    phone = Browser(any_shop)
    phone.open()
    phone.prove(email="ann@shop.example")
    there = phone.say("From the phone")
    browser = Browser(any_shop)
    browser.open()

    answer = browser.prove(email="ann@shop.example")
    own = browser.say("From the desk")

    assert answer.json()["is_proven"] is True
    assert set(browser.conversations()) == {mail, there, own}
    assert [browser.texts(one) for one in (mail, there, own)] == [["By mail"], ["From the phone"], ["From the desk"]]


def test_claim_opens_nothing(any_shop):
    """Who only says who they are reads what this browser wrote, and nothing else."""
    mail = any_shop.mail("ann@shop.example")
    browser = Browser(any_shop)
    own = browser.say("Hello")

    answer = browser.identify(email="ann@shop.example", name="Ann")

    assert answer.json()["is_proven"] is False
    assert browser.conversations() == [own]
    assert browser.get("/messages", conversation=mail).status_code == 404


def test_what_was_only_claimed_elsewhere_stays_there(any_shop):
    """A proven visitor does not read what somebody wrote under their address without proof."""
    stranger = Browser(any_shop)
    stranger.open()
    stranger.identify(email="ann@shop.example")
    theirs = stranger.say("I am Ann, believe me")
    browser = Browser(any_shop)
    browser.open()

    browser.prove(email="ann@shop.example")

    assert theirs not in browser.conversations()
    assert browser.get("/messages", conversation=theirs).status_code == 404


def test_proof_rotates_the_token(any_shop):
    """Whoever knew the token before the proof knows nothing after it."""
    browser, thief = Browser(any_shop), Browser(any_shop)
    browser.say("Hello")
    thief.cookies.set(COOKIE, browser.cookie, domain="shop.example")

    browser.prove(email="ann@shop.example")

    assert browser.cookie != thief.cookie
    assert thief.texts() is None
    assert browser.texts() == ["Hello"]


def test_fixed_session_is_worth_nothing_after_the_proof(shop):
    """Who plants a session in another's browser does not get into what is proven there."""
    thief, victim = Browser(shop), Browser(shop)
    thief.open()
    mail = shop.mail("ann@shop.example")
    victim.cookies.set(COOKIE, thief.cookie, domain="shop.example")

    victim.prove(email="ann@shop.example")

    assert mail in victim.conversations()
    assert thief.get("/conversations").status_code == 401


def test_claim_after_a_proof_takes_nothing_away(shop):
    """A page that says the same without proof, on its next load, leaves the proof as it was."""
    mail = shop.mail("ann@shop.example")
    browser = Browser(shop)
    browser.open()
    browser.prove(email="ann@shop.example")

    answer = browser.identify(email="Ann@shop.example", name="Ann")

    assert answer.json()["is_proven"] is True
    assert mail in browser.conversations()


@pytest.mark.parametrize("is_proof", [True, False])
def test_another_person_in_the_browser_is_a_new_visitor(any_shop, is_proof):
    """Who is somebody else than before sees nothing of them, and what they wrote is not shown to the first again."""
    browser = Browser(any_shop)
    browser.open()
    browser.prove(email="ann@shop.example")
    anns = browser.say("From Ann")
    visitor = browser.session()["visitor"]

    browser.prove(email="bob@shop.example") if is_proof else browser.identify(email="bob@shop.example")
    bobs = browser.say("From Bob")

    assert browser.session()["visitor"] != visitor
    assert browser.conversations() == [bobs]
    assert browser.get("/messages", conversation=anns).status_code == 404


def test_token_for_one_browser_is_worth_nothing_in_another(shop):
    """What the backend signed for this visitor proves nothing elsewhere, nor for the next visitor here."""
    browser, other = Browser(shop), Browser(shop)
    browser.open(), other.open()
    token = browser.signed(email="ann@shop.example")

    elsewhere = other.identify(token=token)
    browser.reset()
    browser.open()
    later = browser.identify(token=token)

    assert [one.json()["is_proven"] for one in (elsewhere, later)] == [False, False]


def test_proof_lapses_after_a_day(any_shop):
    """A day after the last proof the browser is not known to be the contact's: its own conversation stays."""
    mail = any_shop.mail("ann@shop.example")
    browser = Browser(any_shop)
    browser.open()
    browser.prove(email="ann@shop.example")
    own = browser.say("Hello")

    any_shop.clock.advance(days=1)

    assert browser.session()["is_proven"] is False
    assert browser.conversations() == [own]
    assert browser.get("/messages", conversation=mail).status_code == 404
    assert browser.say("Still here") == own


def test_repeated_id_renews_no_proof(any_shop):
    """An id that once came with a proof proves nothing when it comes without one."""
    mail = any_shop.mail("ann@shop.example")
    browser = Browser(any_shop)
    browser.open()
    browser.identify(id="page-load", token=browser.signed(email="ann@shop.example"))
    any_shop.clock.advance(days=2)

    answer = browser.identify(id="page-load", email="ann@shop.example")

    assert answer.json()["is_proven"] is False
    assert mail not in browser.conversations()


def test_proof_is_renewed_by_a_proof(shop):
    """A page that proves who is there whenever it is loaded stays proven."""
    mail = shop.mail("ann@shop.example")
    browser = Browser(shop)
    browser.open()

    for _ in range(4):
        browser.prove(email="ann@shop.example")
        shop.clock.advance(days=0.5)

    assert browser.session()["is_proven"] is True
    assert mail in browser.conversations()


@pytest.mark.parametrize("wrong", ["expired", "audience", "key", "unverified", "nonsense"])
def test_bad_token_is_answered_as_a_claim(shop, wrong):
    """Whatever is wrong with a token, the answer is that to a claim, and nothing opens."""
    shop.mail("ann@shop.example")
    browser, other = Browser(shop), Browser(shop)
    browser.open(), other.open()
    good = {"aud": "shop", "exp": int(shop.clock().timestamp()) + 300, "visitor": browser.session()["visitor"]}
    good |= {"email": "ann@shop.example", "email_verified": True}
    token = {
        "expired": lambda: jwt.encode(good | {"exp": good["exp"] - 900}, SIGNING_SECRET),
        "audience": lambda: jwt.encode(good | {"aud": "other"}, SIGNING_SECRET),
        "key": lambda: jwt.encode(good, "b" * 40),
        "unverified": lambda: jwt.encode(good | {"email_verified": False}, SIGNING_SECRET),
        "nonsense": lambda: "a.b.c",
    }[wrong]()

    answer = browser.identify(token=token, email="ann@shop.example")
    claim = other.identify(email="ann@shop.example")

    assert {**answer.json(), "visitor": ""} == {**claim.json(), "visitor": ""}
    assert browser.conversations() == []


def test_identification_needs_a_session(shop):
    """A browser that has no session has nobody to be identified."""
    assert Browser(shop).identify(email="ann@shop.example").status_code == 401


def test_message_under_the_claim_of_before_is_in_the_current_conversation(shop):
    """The conversation that a message went into is the one that the page shows next."""
    browser = Browser(shop)
    browser.open()
    browser.identify(email="ann@shop.example")
    first = browser.say("One")
    shop.clock.advance(seconds=1)
    browser.identify(phone="+4930123456")
    second = browser.say("Two")
    shop.clock.advance(seconds=1)
    browser.identify(email="ann@shop.example")

    third = browser.say("Three")

    assert first != second
    assert (third, browser.texts()) == (first, ["One", "Three"])


# -- what nobody is told


def test_no_secret_is_shown(shop):
    """Neither the log nor any value that a program prints has the token, the cookie, or the inner visitor."""
    browser = Browser(shop)
    with capture_logs() as logs:
        browser.say("Hello")
        browser.identify(token="a.b.c", email="ann@shop.example")
        shop.ask("POST", "/widget/chat/messages", content=b"{", headers={"Origin": HOST})
    visit = Chat(shop.hub, receive=shop.hub.receive, files=Files(shop.folder), clock=shop.clock).visit(
        shop.hub.channel("chat"), browser.cookie
    )

    assert stored(shop, browser.cookie) is not None
    assert not any(one in f"{logs} {visit!r}" for one in (browser.cookie, "a.b.c", "ann@shop.example", "Hello"))
