import hashlib
import hmac
import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convsdk.channels.messenger import (
    InstagramChannel,
    InstagramSettings,
    MessengerChannel,
    MessengerSettings,
    convsdk_channels,
)
from convsdk.core.events import DeliveryStatus, MessageReceived, Noted, StatusChanged
from convsdk.core.fold import Policy
from convsdk.core.identifiers import Kinds
from convsdk.core.model import Attachment, Claim, Direction, Outcome, Trait, Trust
from convsdk.core.ports import Headers, Request, Secret
from convsdk.errors import Forbidden, ParseError
from convsdk.hookspecs import Context
from convsdk.hub import Hub
from convsdk.testing import hint

GOLDEN = Path(__file__).parent / "messenger"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SENT = datetime(2016, 3, 23, 0, 25, 52, 478000, tzinfo=UTC)
APP_SECRET = "app-secret-of-the-shop"
VERIFY_TOKEN = "tökén-of-the-shop"


def channel(**settings):
    """Give a configured channel."""
    secrets = {"app_secret": Secret(APP_SECRET), "verify_token": Secret(VERIFY_TOKEN)}
    return MessengerChannel("shop-page", MessengerSettings(**(secrets | settings)))


def golden(name):
    """Give the body of a golden payload."""
    return (GOLDEN / f"{name}.json").read_bytes()


def parse(body, **settings):
    """Give the events of a body."""
    return channel(**settings).parse(Request(received_at=NOW, body=body))


def batch(*items, **entry):
    """Give a body with one entry of these items."""
    return json.dumps({"object": "page", "entry": [{"id": "1001", "messaging": list(items), **entry}]}).encode()


def item(**parts):
    """Give an item from person 7001 to page 1001."""
    return {"sender": {"id": "7001"}, "recipient": {"id": "1001"}, "timestamp": 1458692752478, **parts}


def signed(body, secret=APP_SECRET):
    """Give a request with this body and its signature."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return Request(received_at=NOW, body=body, headers=Headers({"x-hub-signature-256": f"sha256={signature}"}))


def handshake(method="GET", **query):
    """Give Meta's set-up request."""
    given = {"mode": "subscribe", "verify_token": VERIFY_TOKEN, "challenge": "1158201444"} | query
    return Request(received_at=NOW, method=method, query={f"hub.{name}": value for name, value in given.items()})


# -- settings and registration


@pytest.mark.parametrize("field", ["app_secret", "verify_token"])
@pytest.mark.parametrize("value", [Secret(""), Secret("  "), "hunter2"])
def test_setting_that_is_no_secret_is_refused(field, value):
    """An empty or bare secret is refused by the field's name, and never shown."""
    with pytest.raises(ValueError, match=field) as refusal:
        channel(**{field: value})

    assert "hunter2" not in str(refusal.value)


def test_unknown_way_to_a_contact_is_refused():
    """The field contact_from takes its two values only."""
    with pytest.raises(ValueError, match="contact_from"):
        channel(contact_from="always")


def test_secrets_are_not_shown():
    """No secret is in the repr of a channel or its settings."""
    shown = repr(channel()) + repr(channel().config)

    assert APP_SECRET not in shown
    assert VERIFY_TOKEN not in shown


def test_plugin_brings_channel_and_identifier_kind():
    """The hook gives both channels, and each the ids of its people as a kind of its own."""
    channels = list(convsdk_channels(Context(version="0")))

    assert channels == [MessengerChannel, InstagramChannel]
    assert [kind.name for one in channels for kind in one.kinds] == ["messenger_psid", "instagram_igsid"]


# -- handshake


def test_handshake_is_answered_with_its_challenge():
    """The right verify token is answered with the challenge as plain text."""
    response = channel().challenge(handshake())

    assert (response.status, response.body) == (200, b"1158201444")
    assert response.media_type.startswith("text/plain")


@pytest.mark.parametrize("token", ["", "guess", VERIFY_TOKEN + "x", "\ud800"])
def test_handshake_with_a_wrong_token_is_refused(token):
    """A wrong verify token, whatever its characters, is refused without showing the right one."""
    with pytest.raises(Forbidden) as refusal:
        channel().challenge(handshake(verify_token=token))

    assert VERIFY_TOKEN not in str(refusal.value)


@pytest.mark.parametrize("request_", [handshake(method="POST"), handshake(mode="other"), signed(golden("text"))])
def test_other_request_is_no_handshake(request_):
    """Only a GET in mode subscribe is a handshake."""
    assert channel().challenge(request_) is None


# -- signature


def test_signed_batch_is_accepted():
    """The signature covers the raw bytes of a batch with several entries."""
    channel().verify(signed(golden("batch")))


@pytest.mark.parametrize("place", range(0, len(golden("batch")), 37))
def test_changed_byte_is_refused(place):
    """A batch in which one byte differs from the signed one is refused."""
    body = bytearray(golden("batch"))
    body[place] ^= 1
    request = Request(received_at=NOW, body=bytes(body), headers=signed(golden("batch")).headers)

    with pytest.raises(Forbidden):
        channel().verify(request)


HEX = hmac.new(APP_SECRET.encode(), golden("text"), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("X-Hub-Signature-256", "")],
        [("X-Hub-Signature-256", HEX)],
        [("X-Hub-Signature-256", "sha256=")],
        [("X-Hub-Signature-256", f"sha256={HEX[:-1]}")],
        [("X-Hub-Signature-256", f"sha256={HEX}\n")],
        [("X-Hub-Signature-256", f"sha1={HEX}")],
        [("X-Hub-Signature-256", "sha256=" + "é" * 64)],
        [("X-Hub-Signature-256", "sha256=" + "\ud800" * 64)],
        [("X-Hub-Signature-256", "sha256=" + "0" * 64)],
        [("X-Hub-Signature-256", f"sha256={HEX}"), ("X-Hub-Signature-256", "sha256=" + "0" * 64)],
        [("X-Hub-Signature", f"sha256={HEX}")],
    ],
)
def test_missing_or_malformed_signature_is_refused(fields):
    """Anything but one well-formed, right signature is refused, and the refusal tells nothing."""
    request = Request(received_at=NOW, body=golden("text"), headers=Headers(fields))

    with pytest.raises(Forbidden) as refusal:
        channel().verify(request)

    assert all(part not in str(refusal.value) for part in (APP_SECRET, HEX, "blue one"))


def test_signature_of_another_app_is_refused():
    """A signature made with another secret is refused."""
    with pytest.raises(Forbidden):
        channel().verify(signed(golden("text"), secret="another"))


# -- what is read


def test_text_message_is_read():
    """A text has its id, time, thread, quoted message, quick reply and the person's attested page-scoped id."""
    (event,) = parse(golden("text"))

    assert isinstance(event, MessageReceived)
    assert (event.external_id, event.text) == ("m_text", "Hello, is the blue one in stock? 😀")
    assert (event.at, event.thread, event.direction) == (SENT, "1001/7001", Direction.INBOUND)
    assert event.references == ("m_earlier",)
    assert event.detail["quick_reply"] == {"payload": "BLUE"}
    assert event.hint.identifiers == (Claim("messenger_psid", "7001", Trust.CHANNEL, scope="1001"),)
    assert (event.hint.id, event.hint.at, event.hint.how) == ("", SENT, "Messenger message")


@pytest.mark.parametrize(("contact_from", "may_create"), [("manual", False), ("first_message", True)])
def test_setting_decides_whether_a_message_makes_a_contact(contact_from, may_create):
    """An unknown person who writes becomes a contact only where the channel is set so."""
    (event,) = parse(golden("text"), contact_from=contact_from)

    assert event.hint.may_create is may_create


@pytest.mark.parametrize("name", ["referral", "reaction", "echo"])
def test_only_writing_makes_a_contact(name):
    """Nobody becomes a contact by a link, a reaction or what the page wrote, even at "first_message"."""
    (event,) = parse(golden(name), contact_from="first_message")

    assert event.hint.identifiers
    assert not event.hint.may_create


def test_attachments_are_read():
    """Each sort of attachment keeps its URL, with a name and the media type that the URL tells."""
    (event,) = parse(golden("attachments"))

    assert event.attachments == (
        Attachment(name="photo 1.JPG", media_type="image/jpeg", url="https://cdn.example/v/photo%201.JPG?sig=1"),
        Attachment(name="voice.mp4", media_type="video/mp4", url="https://cdn.example/voice.mp4"),
        Attachment(name="clip.mov", media_type="video/quicktime", url="https://cdn.example/clip.mov"),
        Attachment(name="invoice.pdf", media_type="application/pdf", url="https://cdn.example/invoice.pdf"),
        Attachment(name="Ann's Location", media_type="text/html", url="https://maps.example/?q=1"),
        Attachment(name="Blue chair", media_type="text/html", url="https://shop.example/p/1"),
    )
    assert event.detail["attachments"][4]["payload"]["coordinates"] == {"lat": 48.1, "long": 11.5}


def test_postback_is_a_message_with_a_referral():
    """A tapped button is a message with its payload, and the link that led to it is noted after it."""
    message, referral = parse(golden("postback"))

    assert (message.external_id, message.text) == ("m_tap", "Get Started")
    assert message.detail == {"postback": {"title": "Get Started", "payload": "START"}}
    assert (referral.kind, referral.text, referral.thread) == ("referral", "spring", "1001/7001")


def test_referral_is_noted():
    """Somebody who came through a link is noted in their thread, with all that Meta says of the link."""
    (event,) = parse(golden("referral"))

    assert (event.kind, event.text, event.thread) == ("referral", "spring", "1001/7001")
    assert event.detail["ad_id"] == "6045246247433"


def test_referral_inside_a_message_is_noted():
    """The ad that a message came from is noted after the message."""
    message, referral = parse(batch(item(message={"mid": "m", "text": "Hi", "referral": {"ref": "ad"}})))

    assert message.text == "Hi"
    assert (referral.kind, referral.text) == ("referral", "ad")


def test_echo_is_outbound_and_about_its_recipient():
    """What the page wrote elsewhere is outbound in the thread of the person it went to."""
    (event,) = parse(golden("echo"))

    assert (event.external_id, event.direction, event.at) == ("m_echo", Direction.OUTBOUND, SENT)
    assert event.thread == "1001/7001"
    assert event.hint.identifiers == (Claim("messenger_psid", "7001", Trust.CHANNEL, scope="1001"),)


def test_delivery_names_messages_and_watermark():
    """A delivery report holds the messages, the watermark and the thread that it is about."""
    (event,) = parse(golden("delivery"))

    assert isinstance(event, StatusChanged)
    assert (event.status, event.messages) == (DeliveryStatus.DELIVERED, ("m_echo", "m_echo_2"))
    assert (event.thread, event.at) == ("1001/7001", SENT)
    assert event.watermark == datetime(2016, 3, 23, 0, 25, 52, tzinfo=UTC)


def test_read_report_has_a_watermark():
    """A read report holds the moment up to which all was read."""
    (event,) = parse(golden("read"))

    assert (event.status, event.messages) == (DeliveryStatus.READ, ())
    assert event.watermark == datetime(2016, 3, 23, 0, 25, 52, 1000, tzinfo=UTC)


def test_reaction_is_noted():
    """A reaction is a line in the thread that shows its emoji and names the message."""
    (event,) = parse(golden("reaction"))

    assert (event.kind, event.text, event.thread) == ("reaction", "\u2764\ufe0f", "1001/7001")
    assert (event.detail["mid"], event.detail["action"]) == ("m_echo", "react")


def test_reaction_that_is_taken_back_is_noted():
    """A reaction that is taken back is another kind of line, and names the message."""
    (event,) = parse(golden("unreact"))

    assert (event.kind, event.detail["mid"], event.thread) == ("reaction_removed", "m_echo", "1001/7001")


def test_edited_message_is_noted():
    """An edited message is a line with the new text, which names the message."""
    (event,) = parse(golden("edit"))

    assert (event.kind, event.text, event.detail["mid"]) == ("edited", "Hello!", "m_text")


def test_optin_is_noted():
    """Who lets the page write is noted, with what is needed to do so."""
    (event,) = parse(golden("optin"))

    assert (event.kind, event.text, event.thread) == ("optin", "News of the shop", "1001/7001")
    assert event.detail["notification_messages_token"] == "nmt"


def test_handover_is_noted():
    """Which app answers is noted in the person's thread, and the roles of apps in the page's."""
    passed, taken, requested, roles = parse(golden("handover"))

    assert [one.kind for one in (passed, taken, requested)] == [
        "pass_thread_control",
        "take_thread_control",
        "request_thread_control",
    ]
    assert (passed.thread, passed.detail["new_owner_app_id"]) == ("1001/7001", "2")
    assert passed.text == "app 1 passed the thread to app 2"
    assert (roles.kind, roles.thread, roles.hint) == ("app_roles", "1001", None)


@pytest.mark.parametrize("metadata", ["from-the-app", "", None])
def test_echo_of_another_app_has_no_token(metadata):
    """What the page's own inbox or another app wrote is no message of ours, and says which app it was."""
    message = {"mid": "m", "is_echo": True, "app_id": 1517776481860111, "metadata": metadata}
    (event,) = parse(batch({"sender": {"id": "1001"}, "recipient": {"id": "7001"}, "message": message}))

    assert "token" not in event.detail
    assert event.detail["app_id"] == 1517776481860111


def test_person_cannot_speak_for_us():
    """What a person sends is never taken for the echo of our own message."""
    (event,) = parse(batch(item(message={"mid": "m", "text": "Hi", "metadata": "convsdk/tok"})))

    assert "token" not in event.detail


@pytest.mark.parametrize("payload", ["BLUE", "convsdk:", "convsdk:[1]", 'convsdk:["a"]', "convsdk:\ud800", None, 7])
def test_button_of_somebody_else_is_no_choice(payload):
    """A button that no bot's block made stands for no choice."""
    (event,) = parse(batch(item(postback={"mid": "m", "title": "Blue", "payload": payload})))

    assert (event.block, event.choice) == ("", "")


# -- Instagram


def read_gram(name):
    """Give the one event of Instagram's golden payload."""
    settings = InstagramSettings(app_secret=Secret(APP_SECRET), verify_token=Secret(VERIFY_TOKEN))
    body = (GOLDEN.parent / "instagram" / f"{name}.json").read_bytes()
    (event,) = InstagramChannel("shop-gram", settings).parse(Request(received_at=NOW, body=body))
    return event


def test_instagram_message_has_its_own_kind_of_person():
    """Who writes on Instagram is known by an id of Instagram's own, scoped by the account."""
    event = read_gram("text")

    assert event.hint.identifiers == (Claim("instagram_igsid", "7001", Trust.CHANNEL, scope="1001"),)
    assert (event.thread, event.hint.how) == ("1001/7001", "Instagram message")


def test_story_is_kept_with_what_is_said_of_it():
    """An answer to a story, and a mention in one, keep which story it is."""
    reply, mention = read_gram("story_reply"), read_gram("story_mention")

    assert reply.detail["reply_to"]["story"]["id"] == "18001"
    assert mention.attachments[0].url == "https://cdn.example/mention"
    assert mention.detail["attachments"][0]["type"] == "story_mention"


def test_deleted_message_is_noted():
    """A message that was taken back is a line that names it, and no message of its own."""
    event = read_gram("deleted")

    assert isinstance(event, Noted)
    assert (event.kind, event.text, event.detail["mid"]) == ("deleted", "message ig_text was deleted", "ig_text")
    assert event.external_id != "ig_text"


def test_seen_report_names_its_message():
    """Instagram says which message was read."""
    event = read_gram("seen")

    assert (event.status, event.messages, event.watermark) == (DeliveryStatus.READ, ("ig_echo",), None)


def test_other_platforms_batch_is_a_parse_error():
    """Instagram's channel reads no page's events."""
    settings = InstagramSettings(app_secret=Secret(APP_SECRET), verify_token=Secret(VERIFY_TOKEN))

    with pytest.raises(ParseError, match="'instagram'"):
        InstagramChannel("shop-gram", settings).parse(Request(received_at=NOW, body=golden("text")))


def test_standby_message_is_read():
    """A message that another app answers is read all the same, and marked."""
    (event,) = parse(golden("standby"))

    assert (event.external_id, event.detail) == ("m_standby", {"standby": True})


def test_every_entry_and_item_is_read():
    """A batch gives all items of all entries in order, each person scoped by the page written to."""
    events = parse(golden("batch"))

    assert [(event.external_id, event.thread) for event in events] == [
        ("m_1", "1001/7001"),
        ("m_2", "1001/7002"),
        ("m_3", "1002/7001"),
    ]


def test_unknown_kinds_are_noted():
    """What is not known here is noted with its content instead of being lost."""
    unheard, nobody, change = parse(golden("unknown"))

    assert {event.kind for event in (unheard, nobody, change)} == {"unknown"}
    assert (unheard.thread, unheard.detail["item"]["messaging_dream"]["text"]) == ("1001/7001", "Hello!")
    assert (nobody.hint, nobody.thread) == (None, "1001")
    assert change.detail["item"]["changes"][0]["field"] == "feed"


def test_plugin_visitor_without_page_scoped_id_is_read():
    """A message from the chat plugin's checkbox has a thread but claims nobody."""
    (event,) = parse(batch(item(sender={"user_ref": "box-1"}, message={"mid": "m", "text": "Hi"})))

    assert (event.text, event.thread, event.hint.identifiers) == ("Hi", "1001/box-1", ())


@pytest.mark.parametrize("timestamp", [None, "soon", -1, 10**17, 1.5, True, [], 10**40])
def test_message_without_a_usable_time_takes_that_of_its_entry(timestamp):
    """A message is kept with the time of its entry where its own cannot be read."""
    (event,) = parse(batch(item(message={"mid": "m", "text": "Hi"}, timestamp=timestamp), time=1458692752478))

    assert (event.text, event.at) == ("Hi", SENT)


def test_time_in_digits_is_read():
    """A time that is written as a text of digits is a time."""
    (event,) = parse(batch(item(message={"mid": "m"}, timestamp="1458692752478")))

    assert event.at == SENT


def test_attachment_with_a_broken_url_is_kept():
    """An attachment whose URL is none is listed under its sort, with the URL as it came."""
    (event,) = parse(batch(item(message={"attachments": [{"type": "image", "payload": {"url": "http://["}}]})))

    assert event.attachments == (Attachment(name="image", url="http://["),)


def test_message_without_any_time_takes_that_of_its_arrival():
    """Where nothing says when, the request's arrival does."""
    (event,) = parse(batch({"sender": {"id": "7001"}, "message": {"mid": "m"}}))

    assert event.at == NOW


# -- external ids


@pytest.mark.parametrize("name", ["read", "delivery", "reaction", "referral", "unknown"])
def test_external_id_is_the_same_in_another_batch(name):
    """An item without an id of its own keeps its external id when it comes again among others."""
    document = json.loads(golden(name))
    first = document["entry"][0]["messaging"][0]
    again = batch(item(message={"mid": "m"}), dict(reversed(first.items())), time=1)

    assert parse(again)[1].external_id == parse(golden(name))[0].external_id


def test_items_without_ids_are_told_apart():
    """Reports that differ in anything have different external ids, all short enough to keep."""
    reports = [item(read={"watermark": number}) for number in range(5)]
    reports += [item(delivery={"watermark": 1}), item(message={"text": "a"}), item(message={"mid": "m" * 300})]

    ids = {event.external_id for event in parse(batch(*reports))}

    assert len(ids) == 8
    assert max(map(len, ids)) < 256


# -- what is malformed


@pytest.mark.parametrize(
    "bad",
    [
        b"null",
        b"7",
        b"[]",
        b"{}",
        b'{"sender":{"id":null},"message":{"mid":"x"}}',
        b'{"sender":{"id":"1001"},"recipient":{"id":"1001"},"message":{"mid":"x"}}',
        b'{"sender":{"id":"7001"},"message":{"mid":"x","text":5}}',
        b'{"sender":{"id":"7001"},"message":{"mid":"x","attachments":[1]}}',
        b'{"sender":{"id":"7001"},"message":null}',
        b'{"sender":{"id":"7001"},"read":{}}',
    ],
)
def test_malformed_item_does_not_lose_the_others(bad):
    """One item that cannot be read is noted, and its neighbours are read."""
    good = b'{"sender":{"id":"7002"},"message":{"mid":"%s","text":"fine"}}'
    body = (
        b'{"object":"page","entry":[{"id":"1001","messaging":[' + b",".join([good % b"a", bad, good % b"b"]) + b"]}]}"
    )

    first, noted, last = parse(body)

    assert (first.text, last.text) == ("fine", "fine")
    assert isinstance(noted, Noted)
    assert noted.kind == ("unknown" if bad == b"{}" else "unreadable")
    assert "item" in noted.detail


def test_malformed_entry_does_not_lose_the_others():
    """One entry that cannot be read is noted, and the other one is read."""
    document = json.loads(golden("text"))
    document["entry"][:0] = [5, {"time": 1}, {"id": "1001", "messaging": {}}]

    *bad, message = parse(json.dumps(document).encode())

    assert [event.kind for event in bad] == ["unreadable"] * 3
    assert message.external_id == "m_text"


@pytest.mark.parametrize(
    ("odd", "kept"),
    [(b'"\xff"', "\ufffd"), (b"1e999", "1e999"), (b"9" * 9000, "9" * 9000), (b"[" * 100 + b"]" * 100, None)],
)
def test_value_that_cannot_be_kept_costs_only_itself(odd, kept):
    """A message is read whose members no store could keep as they are."""
    body = (
        b'{"object":"page","entry":[{"id":"1","messaging":[{"sender":{"id":"7"},"message":{"text":"Hi","nlp":%s}}]}]}'
    )

    (event,) = parse(body % odd)

    assert event.text == "Hi"
    assert kept is None or event.detail["nlp"] == kept


def test_half_a_surrogate_pair_is_replaced():
    """A text that was cut inside an emoji keeps the rest of its words; escaped backslashes stay as they are."""
    (event,) = parse(golden("text").replace(rb"\ud83d\ude00", rb"\ud83d \ude00 \\ud800 \ud83d\ude00"))

    assert event.text.endswith("\ufffd \ufffd \\ud800 😀")


def test_events_hold_what_every_store_can_keep():
    """No NUL and no integer past 64 bits reaches an event."""
    (event,) = parse(batch(item(message={"mid": "m", "text": "a\0b", "n": 2**70})))

    assert (event.text, event.detail["n"]) == ("a\ufffdb", str(2**70))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"NaN",
        b'{"object":"page"}',
        b'{"object":"page","entry":{}}',
        b'{"object":"instagram","entry":[]}',
        b'{"object":7,"entry":[]}',
        b'{"object":"page","entry":[}',
        b'{"object":"page","entry":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
    ],
)
def test_other_body_is_a_parse_error(body):
    """Only a page's batch is read."""
    with pytest.raises(ParseError):
        parse(body)


def holds(body):
    """Say that parsing is deterministic and gives encodable events, or raises ParseError."""
    try:
        events = parse(body)
    except ParseError:
        with pytest.raises(ParseError):
            parse(body)
        return
    assert events == parse(body)
    for event in events:
        assert 0 < len(event.external_id) < 256
        msgspec.json.encode(event)


@given(st.binary())
@example(b'{"object":"page","entry":[{"id":"1","messaging":[' + b'{"message":' * 3000 + b"]}]}")
@example(b'{"object":"page","entry":[{"id":"1","messaging":["\\ud800"]}]}')
def test_any_bytes_give_events_or_a_parse_error(body):
    """No bytes make parsing raise anything but ParseError."""
    holds(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1001", "7001", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_json_gives_events_or_a_parse_error(value):
    """No JSON makes parsing raise anything but ParseError."""
    holds(json.dumps(value).encode())


def nearly(**shapes):
    """Give objects that have some of the named members, each of its shape or of any."""
    return st.fixed_dictionaries({}, optional={name: shape | JSON for name, shape in shapes.items()})


IDS = st.sampled_from(["1001", "7001", 7001, "", "x" * 300]) | st.text()
SIDE = nearly(id=IDS, user_ref=IDS)
REFERRAL = nearly(ref=st.text())
ATTACHMENT = nearly(type=st.text(), url=st.text(), payload=nearly(url=st.text() | st.just("http://["), title=st.text()))
ITEM = nearly(
    sender=SIDE,
    recipient=SIDE,
    timestamp=st.integers(),
    message=nearly(mid=IDS, text=st.text(), is_echo=st.booleans(), attachments=st.lists(ATTACHMENT), referral=REFERRAL),
    postback=nearly(mid=IDS, title=st.text(), payload=st.text(), referral=REFERRAL),
    reaction=nearly(emoji=st.text(), mid=IDS),
    delivery=nearly(mids=st.lists(IDS), watermark=st.integers()),
    read=nearly(watermark=st.integers()),
    referral=REFERRAL,
)


@given(st.lists(nearly(id=IDS, time=st.integers(), messaging=st.lists(ITEM), standby=st.lists(ITEM)) | JSON))
def test_nearly_right_batches_never_raise(entries):
    """Whatever the entries and items of a page's batch are like, they are read or noted."""
    body = json.dumps({"object": "page", "entry": entries}).encode()

    holds(body)

    assert isinstance(parse(body.replace(b"NaN", b"0").replace(b"Infinity", b"0")), tuple)


# -- with the hub


def test_manual_entry_claims_what_the_agent_typed():
    """An agent's entry links the page-scoped id with what they typed, at an agent's trust; blanks say nothing."""
    event = channel().manual_entry(
        page="1001",
        psid="7001",
        by="agent-1",
        at=NOW,
        entry_id="e-1",
        email=" ann@shop.example ",
        name="Ann",
        phone=" ",
    )

    assert (event.external_id, event.thread) == ("e-1", "1001/7001")
    assert event.hint.identifiers == (
        Claim("messenger_psid", "7001", Trust.CHANNEL, scope="1001"),
        Claim("email", "ann@shop.example", Trust.AGENT),
    )
    assert event.hint.traits == (Trait("name", "Ann", Trust.AGENT),)
    assert (event.hint.may_create, event.hint.how, event.hint.by) == (True, "manual entry", "agent-1")


@pytest.mark.parametrize(
    ("field", "value"), [("page", ""), ("psid", " "), ("by", ""), ("entry_id", " "), ("email", "ann(at)shop.example")]
)
def test_manual_entry_with_a_slip_is_refused(field, value):
    """An entry without an id, a person or an agent, or with an address that is none, is refused by the field's name."""
    entry = {"page": "1001", "psid": "7001", "by": "agent-1", "entry_id": "e-1", "email": "ann@shop.example"}

    with pytest.raises(ValueError, match=field):
        channel().manual_entry(at=NOW, **entry | {field: value})


def hub(**settings):
    """Give a hub in memory with one Messenger channel."""
    kinds = Kinds(MessengerChannel.kinds)
    return Hub("memory:", channels=[channel(**settings)], policy=Policy(kinds=kinds))


def test_manual_entry_makes_the_contact_of_the_conversation():
    """An unknown person is a conversation without a contact until an agent enters them; then it is theirs."""
    inbox = hub()
    (said,) = inbox.handle("shop-page", signed(golden("text"))).received

    entered = enter(inbox, "e-1", "ann@shop.example")

    assert said.decision.contact is None
    assert entered.outcome is Outcome.CREATED
    assert [one.id for one in inbox.conversations(contact=entered.contact)] == [said.conversation]


def enter(inbox, entry_id, email, psid="7001"):
    """Let an agent enter the address of a person, and give the decision."""
    page = inbox.channel("shop-page")
    entry = page.manual_entry(page="1001", psid=psid, by="agent-1", at=NOW, entry_id=entry_id, email=email)
    return inbox.receive("shop-page", [entry])[0].decision


def test_manual_entry_joins_the_contact_who_has_the_address():
    """Where somebody has the address already, the person is joined to them, and that can be taken back."""
    inbox = hub()
    known = inbox.resolve(hint("mail", email="ann@shop.example", trust=Trust.CHANNEL))
    (said,) = inbox.handle("shop-page", signed(golden("text"))).received

    joined = enter(inbox, "e-1", "ann@shop.example")

    assert joined.contact == known.contact
    assert [one.id for one in inbox.conversations(contact=known.contact)] == [said.conversation]
    inbox.withdraw("shop-page/e-1", by="agent-1")
    assert inbox.conversations(contact=known.contact) == []


def test_manual_entry_between_established_people_waits_for_a_merge():
    """An entry never joins two established people: it opens a suggestion, the preview shows both, the merge joins."""
    inbox = hub()
    person = Claim("messenger_psid", "7001", Trust.CHANNEL, scope="1001")
    inbox.resolve(hint("1", email="ann@home.example", trust=Trust.CHANNEL, claims=[person]))
    other = inbox.resolve(hint("2", email="ann@shop.example", trust=Trust.CHANNEL))

    entered = enter(inbox, "e-1", "ann@shop.example")

    assert entered.outcome is Outcome.CONFLICT
    assert len(inbox.suggestions()) == 1
    preview = inbox.preview_merge(entered.contact, other.contact)
    assert {node.identifier.value for node in preview.identifiers} == {"7001", "ann@home.example", "ann@shop.example"}
    assert inbox.merge(entered.contact, other.contact, by="agent-1").is_joined


def test_first_message_makes_a_contact_where_set_so():
    """With contact_from = "first_message" the person who writes is a contact at once."""
    inbox = hub(contact_from="first_message")

    (said,) = inbox.handle("shop-page", signed(golden("text"))).received

    assert said.decision.outcome is Outcome.CREATED


def test_redelivered_batch_changes_nothing():
    """A batch that Meta sends again is recognised, item by item."""
    inbox = hub(contact_from="first_message")
    inbox.handle("shop-page", signed(golden("batch")))

    again = inbox.handle("shop-page", signed(golden("batch"))).received

    assert [one.decision.outcome for one in again] == [Outcome.DUPLICATE] * 3
