"""What is read out of each mail in `tests/mail`. The JSON file beside it says what to expect, as far as it matters."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from outgoing import send

from convsdk.channels.email import EmailChannel, EmailSettings
from convsdk.core.events import Noted
from convsdk.core.inbox import ConversationStatus
from convsdk.core.model import Direction
from convsdk.core.ports import Envelope, Request
from convsdk.hub import Hub
from convsdk.testing import FakeClock, request

SENT = "<abcdefghij234567@shop.example>"
FOLDER = Path(__file__).parent.parent / "mail"
SETTINGS = {
    "address": "in-7f3a@shop.example",
    "own": ("sales@shop.example",),
    "relays": ("form@shop.example",),
    "authserv_id": "mx.shop.example",
}


def _read(raw, settings, envelope):
    channel = EmailChannel("support", EmailSettings(**SETTINGS | settings))
    event, *_ = channel.parse(
        Request(
            received_at=datetime(2026, 1, 5, tzinfo=UTC),
            body=raw,
            envelope=Envelope(sender=envelope["sender"], recipients=tuple(envelope["recipients"]))
            if envelope
            else None,
        )
    )
    return event


def _told(event):
    """Give what an expectation can name."""
    return _told_of_a_report(event) if isinstance(event, Noted) else _told_of_a_message(event)


def _told_of_a_report(event):
    return {
        "sender": None,
        "creates": False,
        "automatic": True,
        "review": "",
        "report": [],
        **event.detail,
        "kind": event.kind,
        "said": event.text,
        "id": event.external_id,
        "references": list(event.references),
        "text": event.detail["text"],
        "full_text": event.detail["text"],
    }


def _told_of_a_message(event):
    claim = next(iter(event.hint.identifiers), None)
    sections = event.detail.get("sections", [])
    kinds = ("quote", "signature", "note", "header")
    return {
        **dict.fromkeys(("review", "from", "passed_on_for", "attested_by", "unreadable", "date"), ""),
        "participants": [],
        "confirmation": {},
        "report": [],
        **event.detail,
        "sender": claim and claim.value,
        "trust": claim and claim.trust.name.lower(),
        "name": next((trait.value for trait in event.hint.traits), ""),
        "creates": event.hint.may_create,
        "automatic": event.is_automatic,
        "id": event.external_id,
        "thread": event.thread,
        "references": list(event.references),
        "subject": event.subject,
        "text": event.text,
        "html": event.html,
        "full_text": "".join(text for _, text in sections) or event.text,
        **{kind: "".join(text for one, text in sections if one == kind) for kind in kinds},
        "attachments": [[one.name, one.media_type, one.size, one.content_id] for one in event.attachments],
    }


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.eml")))
def test_mail_is_read_as_expected(name):
    """What the file beside the mail names is what is read out of it."""
    expected = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    settings, envelope = expected.pop("settings", {}), expected.pop("envelope", None)
    expected.pop("hub", None)

    told = _told(_read((FOLDER / f"{name}.eml").read_bytes(), settings, envelope))

    if expected.get("id") == "sha256:":
        told["id"] = told["id"][:7]
    assert {key: told[key] for key in expected} == expected
    assert told["text"].strip() or not told["full_text"].strip()


STORIES = {
    file.stem: story
    for file in sorted(FOLDER.glob("*.json"))
    if (story := json.loads(file.read_text("utf-8")).get("hub"))
}


@pytest.mark.parametrize("name", STORIES)
def test_mail_goes_where_it_is_expected(name):
    """What `hub` names in the file beside the mail is what becomes of it, after those `before` and what we `sent`."""
    expected = dict(STORIES[name])
    hub = Hub("memory:", channels=[EmailChannel("support", EmailSettings(**SETTINGS))], clock=FakeClock())
    opened = {one: _take(hub, one).conversation for one in expected.pop("before", ())}
    text, state = expected.pop("sent", ""), ConversationStatus(expected.pop("state", "open"))
    for conversation in opened.values():
        send(hub, conversation, text, external_id=SENT, status=state)

    received = _take(hub, name)

    assert {key: value for key, value in _become(hub, received, opened).items() if key in expected} == expected


def _take(hub, name):
    received, *_ = hub.handle("support", request((FOLDER / f"{name}.eml").read_bytes())).received
    return received


def _become(hub, received, opened):
    """Give what an expectation can name of what became of a mail."""
    names = {number: name for name, number in opened.items()}
    number = received.conversation or next(iter(opened.values()))  # of a mail that came before
    newest = hub.messages(number).items[0]
    conversation = hub.conversation(number)
    author = hub.attribution(f"support/{newest.external_id}") if newest.direction is Direction.INBOUND else None
    return {
        "decision": received.decision.outcome.value,
        "joins": names.get(number, ""),
        "related": [names[one] for one in (newest.detail or {}).get("related", [])],
        "same_id_as": (newest.detail or {}).get("same_id_as", ""),
        "author": str(hub.contact(author).identifiers[0].node.identifier.value) if author else None,
        "filed_by": conversation.filing.identifier and conversation.filing.identifier.value,
        "status": conversation.filing.status.value,
        "unread": conversation.filing.unread,
        "direction": newest.direction.value,
        "text": newest.text,
        "messages": sum(len(hub.messages(one.id).items) for one in hub.conversations()),
        "contacts": len(hub.contacts().items),
    }
