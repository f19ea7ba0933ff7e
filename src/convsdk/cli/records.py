"""The commands that read what is on record: contacts, conversations, and the reasons."""

from datetime import UTC, datetime
from typing import Any

import attrs
import click

from convsdk.cli.session import Session, common_options, contact_of
from convsdk.core.model import Contact, Message
from convsdk.hub import Conversation
from convsdk.outbox import tell_again

_limit = click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
_id = click.IntRange(0, 2**63 - 1)


@click.command
@_limit
@click.option("--after", type=_id, default=0, help="Only contacts with a greater id.")
@common_options
def contacts(session: Session, limit: int, after: int) -> None:
    """List contacts."""
    page = session.hub().contacts(after=after, limit=limit)
    session.screen.table(map(contact_record, page), CONTACT_COLUMNS, empty="no contacts")
    if page.next is not None:
        session.screen.aside(f"there may be more: --after {page.next}")


@click.command
@click.argument("who", metavar="CONTACT")
@common_options
def contact(session: Session, who: str) -> None:
    """Show one contact, given by id or as kind:value."""
    hub = session.hub()
    one = contact_of(hub, who)
    record = contact_record(one) | {"conversations": [each.id for each in hub.conversations(contact=one.id)]}
    session.screen.facts(record if session.screen.is_json else record | {"identifiers": _with_trust(one)})


@click.command
@click.argument("who", metavar="CONTACT")
@common_options
def explain(session: Session, who: str) -> None:
    """Say why a contact's identifiers are one person, and why others are not."""
    hub = session.hub()
    one = contact_of(hub, who)
    told = hub.explain(one.id)
    for line in told:
        session.screen.say(line)
    if session.screen.is_json:
        session.screen.json({"contact": one.id, "because": told})


@click.command
@click.option("--contact", "who", metavar="CONTACT", help="Only those of one contact.")
@click.option("--before", type=click.DateTime(["%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d"]))
@_limit
@common_options
def conversations(session: Session, who: str | None, before: datetime | None, limit: int) -> None:
    """List conversations, the newest first."""
    hub = session.hub()
    found = hub.conversations(
        contact=contact_of(hub, who).id if who else None,
        before=(before if before.tzinfo else before.replace(tzinfo=UTC), "") if before else None,
        limit=limit,
    )
    session.screen.table(map(conversation_record, found), CONVERSATION_COLUMNS, empty="no conversations")
    if len(found) == limit:
        session.screen.aside(f"there may be more: --before {found[-1].filing.opened[0].isoformat()}")


@click.command
@click.argument("conversation", type=_id)
@click.option("--before", type=_id, help="Only messages with a smaller id.")
@_limit
@common_options
def messages(session: Session, conversation: int, before: int | None, limit: int) -> None:
    """Show the newest messages of a conversation, given by id.

    What was noted in it, such as that a message was edited or deleted, has its kind in brackets before its text.
    """
    hub = session.hub()
    page = hub.messages(hub.conversation(conversation).id, before=before, limit=limit)
    found = [_message_record(one, is_marked=not session.screen.is_json) for one in reversed(page.items)]
    columns = ("id", "at", "direction", "status", "text", "attachments", "error")
    session.screen.table(found, columns, empty="no messages")
    if page.next is not None:
        session.screen.aside(f"there may be more: --before {page.next}")


@click.command
@click.option("--since", type=_id, default=0, help="Only what came after the event with this id.")
@click.option("--again", metavar="TARGET", help="Tell TARGET all of that again, such as webhook/crm.")
@_limit
@common_options
def events(session: Session, since: int, again: str | None, limit: int) -> None:
    """List what happened, in order.

    With --again the target begins anew after the event --since; whoever tells it sees that at its next look.
    """
    hub = session.hub()
    if again:
        tell_again(hub, again, since=since)
        session.screen.say(f"{again} is told again what came after event {since}")
        return
    found = [attrs.asdict(one, recurse=False) for one in hub.store.notices(hub.workspace, since=since, limit=limit)]
    session.screen.table(found, ("id", "at", "type", "payload"), empty="no events")
    if len(found) == limit:
        session.screen.aside(f"there may be more: --since {found[-1]['id']}")


@click.command
@common_options
def suggestions(session: Session) -> None:
    """List the pairs of contacts that may be one person."""
    found = [attrs.asdict(one, recurse=False) for one in session.hub().suggestions()]
    session.screen.table(found, ("contacts", "because", "trust", "evidence"), empty="no suggestions")


def _message_record(message: Message, *, is_marked: bool) -> dict[str, Any]:
    """Give what a list shows of a message; `is_marked`: what was noted has its kind before its text, if any."""
    detail = message.detail or {}
    record = attrs.asdict(message, recurse=False)
    noted = detail.get("noted", "")
    text = f"[{noted}] {message.text}".strip() if noted and is_marked else message.text
    return record | {"text": text, "noted": noted, "error": detail.get("error", "")}


CONTACT_COLUMNS = ("id", "name", "identifiers", "how")


def contact_record(contact: Contact) -> dict[str, Any]:
    """Give what a list shows of a contact."""
    return {
        "id": contact.id,
        "name": contact.name,
        "identifiers": [held.node for held in contact.identifiers],
        "traits": {name: str(trait) for name, trait in contact.traits.items()},
        "notes": contact.notes,
        "visitors": contact.visitors,
        "how": contact.how,
        "created_at": contact.created_at,
        "redirects": contact.redirects,
    }


CONVERSATION_COLUMNS = ("id", "channel", "contact", "verified", "messages", "last_at", "subject")


def conversation_record(conversation: Conversation) -> dict[str, Any]:
    """Give what a list shows of a conversation."""
    filing = conversation.filing
    return {
        "id": filing.id,
        "channel": filing.channel,
        "contact": conversation.contact,
        "verified": filing.is_verified,
        "messages": filing.messages,
        "unread": filing.unread,
        "opened_at": filing.opened[0],
        "last_at": filing.last_at,
        "subject": filing.subject,
        "thread": filing.thread,
        "identifier": filing.identifier,
    }


def _with_trust(contact: Contact) -> list[str]:
    return [f"{held.node} ({held.trust.name.lower()})" for held in contact.identifiers]
