"""What is read out of each mail in `tests/mail`. The JSON file beside it says what to expect, as far as it matters."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from convsdk.channels.email import EmailChannel, EmailSettings
from convsdk.core.ports import Envelope, Request

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

    told = _told(_read((FOLDER / f"{name}.eml").read_bytes(), settings, envelope))

    if expected.get("id") == "sha256:":
        told["id"] = told["id"][:7]
    assert {key: told[key] for key in expected} == expected
    assert told["text"].strip() or not told["full_text"].strip()
