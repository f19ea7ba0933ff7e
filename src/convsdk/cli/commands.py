"""The commands that read what is known, and those by which staff correct it."""

import getpass
from typing import Any

import attrs
import click

from convsdk.cli.session import DEFAULT_CONFIG, Session, common_options, identifier_of
from convsdk.core.explain import sentence
from convsdk.core.fold import Refusal
from convsdk.core.model import Contact, Identifier, Step
from convsdk.core.ports import Capabilities
from convsdk.errors import ConfigError
from convsdk.hub import Conversation, Hub
from convsdk.plugins import Broken, Loaded

_limit = click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
_by = click.option("--by", default=getpass.getuser, help="Who decides. Default: you.")


@click.command(short_help="List contacts.")
@_limit
@click.option("--after", type=int, default=0, help="Only contacts with a greater id.")
@common_options
def contacts(session: Session, limit: int, after: int) -> None:
    """List contacts."""
    page = session.hub().contacts(after=after, limit=limit)
    session.screen.table(map(contact_record, page), CONTACT_COLUMNS, empty="no contacts")
    if page.next is not None:
        session.screen.aside(f"there may be more: --after {page.next}")


@click.command
@click.argument("contact_id", metavar="ID", type=int)
@common_options
def contact(session: Session, contact_id: int) -> None:
    """Show one contact."""
    hub = session.hub()
    one = hub.contact(contact_id)
    record = contact_record(one) | {"conversations": [each.id for each in hub.conversations(contact=one.id)]}
    session.screen.facts(record if session.screen.is_json else record | {"identifiers": _with_trust(one)})


@click.command
@click.argument("contact_id", metavar="ID", type=int)
@common_options
def explain(session: Session, contact_id: int) -> None:
    """Say why a contact's identifiers are one person, and why others are not."""
    told = session.hub().explain(contact_id)
    for line in told:
        session.screen.say(line)
    if session.screen.is_json:
        session.screen.json({"contact": contact_id, "because": told})


@click.command
@click.option("--contact", "contact_id", metavar="ID", type=int, help="Only those of one contact.")
@_limit
@common_options
def conversations(session: Session, contact_id: int | None, limit: int) -> None:
    """List conversations, the newest first."""
    found = session.hub().conversations(contact=contact_id, limit=limit)
    session.screen.table(map(conversation_record, found), CONVERSATION_COLUMNS, empty="no conversations")


@click.command
@common_options
def suggestions(session: Session) -> None:
    """List the pairs of contacts that may be one person."""
    found = [attrs.asdict(one, recurse=False) for one in session.hub().suggestions()]
    session.screen.table(found, ("contacts", "because", "trust", "evidence"), empty="no suggestions")


@click.command
@click.argument("a")
@click.argument("b")
@click.option("--preview", is_flag=True, help="Only show what would become of it.")
@click.option("--reason", default="", help="Why; kept with the merge.")
@_by
@common_options
def merge(session: Session, *, a: str, b: str, preview: bool, reason: str, by: str) -> None:
    """Join two contacts, given by id or as kind:value."""
    hub = session.hub()
    first, second = who(hub, a), who(hub, b)
    if preview:
        expected = hub.preview_merge(first, second)
        refused = list(map(_refusal, expected.refused))
        session.screen.facts({"possible": not refused, "identifiers": expected.identifiers, "refused": refused})
        return
    ruled = hub.merge(first, second, by=by, reason=reason)
    refused = [] if ruled.is_joined else list(map(_refusal, hub.preview_merge(first, second).refused))
    session.screen.facts(
        {"merge": ruled.id, "joined": ruled.is_joined, "contacts": sorted(set(ruled.contacts), key=str)}
        | ({"refused": refused} if refused else {})
    )
    if not ruled.is_joined:
        raise click.exceptions.Exit(1)


@click.command
@click.argument("merge_id")
@_by
@common_options
def unmerge(session: Session, merge_id: str, by: str) -> None:
    """Take a merge back, exactly."""
    hub = session.hub()
    hub.unmerge(merge_id, by=by)
    session.screen.facts({"unmerged": merge_id})


@click.command
@click.argument("hint")
@_by
@common_options
def withdraw(session: Session, hint: str, by: str) -> None:
    """Take a hint's evidence back, as if it had never been given.

    A HINT is named as in 'convsdk explain': channel/external id.
    """
    session.hub().withdraw(hint, by=by)
    session.screen.facts({"withdrawn": hint})


@click.command
@common_options
def plugins(session: Session) -> None:
    """List plugins with their load times, and what is wrong with broken ones."""
    installed = session.plugins
    records = [*map(_plugin_record, installed.loaded), *map(_plugin_record, installed.broken)]
    columns = ["name", "distribution", "state", "load_time_ms", "hooks"]
    session.screen.table(records, [*columns, "reason", "fix"] if installed.broken else columns, empty="no plugins")


@click.command
@common_options
def channels(session: Session) -> None:
    """List the configured channels."""
    config = session.config
    records = [
        {
            "name": one.name,
            "type": one.type,
            "workspace": config.channel_workspaces[one.name],
            "can": _abilities(one.can),
        }
        for one in config.channels.values()
    ]
    session.screen.table(records, ("name", "type", "workspace", "can"), empty="no channels: add [channels.NAME]")


@click.command
@common_options
def check(session: Session) -> None:
    """Check the configuration, and tell all its mistakes at once."""
    file = session.config_file or DEFAULT_CONFIG
    session.config_file = file
    try:
        config = session.config
    except ConfigError as error:
        problems = str(error).splitlines()
        for problem in problems:
            session.screen.say(problem, style="red")
        if session.screen.is_json:
            session.screen.json({"file": str(file), "problems": problems})
        raise click.exceptions.Exit(1) from None
    session.screen.facts(
        {
            "file": str(file),
            "problems": [],
            "workspaces": sorted(config.workspaces),
            "channels": sorted(config.channels),
        }
    )


@click.command
@common_options
def migrate(session: Session) -> None:
    """Bring the store's schema up to date."""
    session.open(session.store_url)
    session.screen.facts({"store": shown_url(session.store_url), "schema": "up to date"})


CONTACT_COLUMNS = ("id", "name", "identifiers", "traits", "notes", "visitors", "how")


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
        "last_at": filing.last_at,
        "subject": filing.subject,
        "thread": filing.thread,
        "identifier": filing.identifier,
    }


def who(hub: Hub, text: str) -> int | Identifier:
    """Give the contact id or the identifier that `text` names."""
    return int(text) if text.isdecimal() else identifier_of(text, hub.policy)


def shown_url(url: str) -> str:
    """Give a store's URL without the user and password in it."""
    scheme, slashes, rest = url.partition("//")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}" if slashes else url


def _plugin_record(plugin: Loaded | Broken) -> dict[str, Any]:
    told = {"name": plugin.name, "distribution": f"{plugin.distribution} {plugin.version}".strip()}
    load_time_ms = round(plugin.load_time_ms, 1)
    if isinstance(plugin, Broken):
        return told | {"state": "broken", "load_time_ms": load_time_ms, "reason": plugin.reason, "fix": plugin.fix}
    return told | {"state": "loaded", "load_time_ms": load_time_ms, "hooks": plugin.hooks}


def _with_trust(contact: Contact) -> list[str]:
    return [f"{held.node} ({held.trust.name.lower()})" for held in contact.identifiers]


def _refusal(refusal: Refusal) -> str:
    return sentence(Step(refusal.rule, str(refusal.link.a), str(refusal.link.b)))


def _abilities(can: Capabilities) -> list[str]:
    return [one.name for one in attrs.fields(Capabilities) if getattr(can, one.name) is True]
