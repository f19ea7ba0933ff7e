"""Which mail this is, and which earlier ones it answers: ids only. Subjects never join two mails."""

import hashlib

from convsdk.channels.email.mime import Part, message_ids, plain
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.ports import Envelope

_MAX_REFERENCES = 100
# What its writer's program says. Servers add fields of their own, other ones at each delivery: none of those is named.
_WRITTEN = {"from", "to", "cc", "reply-to", "date", "subject", "in-reply-to", "references"}
_ADDRESSED = ("delivered-to", "x-original-to", "to", "cc")


def external_id(head: Part) -> str:
    """Give the Message-ID, or a hash of what does not change on the way where there is none usable."""
    found = message_ids(head.first("message-id"))
    if found:
        return found[0]
    digest = hashlib.sha256()
    for name, value in head.fields:
        if name in _WRITTEN:
            digest.update(f"{name}:{' '.join(value.split())}\n".encode("utf-8", "surrogateescape"))
    digest.update(head.raw[head.start : head.end].replace(b"\r\n", b"\n"))
    return f"sha256:{digest.hexdigest()}"


def answered(head: Part, envelope: Envelope | None, settings: EmailSettings) -> tuple[str, ...]:
    """Give the ids that a mail answers, the nearest first: reply token, In-Reply-To, References from the last.

    The token of the address that a mail was sent to is that of the message it answers, so it names its Message-ID.
    """
    recipients = envelope.recipients if envelope else ()
    addressed = " ".join((*recipients, *(plain(value) for name in _ADDRESSED for value in head.all(name))))
    found = (
        *map(settings.message_id, settings.reply_tokens(addressed)),
        *message_ids(head.first("in-reply-to")),
        *reversed(message_ids(head.first("references"))),
    )
    return tuple(dict.fromkeys(found))[:_MAX_REFERENCES]
