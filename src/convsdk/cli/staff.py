"""The commands by which staff decide: who is one person, what counts, who may be written to."""

import getpass
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from convsdk.cli.session import Session, common_options, contact_of, who
from convsdk.core.consent import ConsentState, ListState
from convsdk.core.explain import sentence
from convsdk.core.fold import Refusal
from convsdk.core.model import Identifier, Step
from convsdk.errors import NotFound
from convsdk.hub import Conversation, Hub


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container can run under a user id that has no name
        raise click.UsageError("this user has no name: say who decides with --by NAME") from None


_by = click.option("--by", default=_me, help="Who decides. Default: you.")


def _pair(hub: Hub, a: str, b: str) -> tuple[int | Identifier, int | Identifier]:
    # Both must be known: a slip in a value would else become an identifier of the other one.
    for one in (a, b):
        contact_of(hub, one)
    return who(hub, a), who(hub, b)


@click.command
@click.argument("conversation", type=int)
@click.argument("text")
@click.option("--way", default="", metavar="CHANNEL", help="By this channel, whoever is there.")
@_by
@common_options
def reply(session: Session, *, conversation: int, text: str, way: str, by: str) -> None:
    """Answer a conversation.

    On a channel that sends, 'convsdk serve' or 'convsdk worker' delivers the answer. In a chat it is read in the
    widget while the visitor is there, and else goes by mail, if its channel has a follow_up. Who answers first takes
    it, and its bot automation says no more.
    """
    if not text.strip():
        raise click.UsageError("a reply without words says nothing: write some")
    hub = session.hub()
    external_id = hub.reply(conversation, text, by=by, way=way)
    sent = next(one for one in hub.messages(conversation) if one.external_id == external_id)
    told = (sent.detail or {}).get("way", {})
    why = {"why": told["why"]} if told else {}
    session.screen.facts(
        {"conversation": conversation, "message": external_id, "by": by, "channel": sent.channel} | why
    )


@click.command
@click.argument("conversation", type=int)
@click.option("--undo", is_flag=True, help="It is not done with after all.")
@_by
@common_options
def complete(session: Session, *, conversation: int, undo: bool, by: str) -> None:
    """Say that a conversation is done with.

    It opens again when somebody writes in it.
    """
    hub = session.hub()
    found = hub.reopen(conversation, by=by) if undo else hub.complete(conversation, by=by)
    session.screen.facts({"conversation": conversation, "status": found.filing.status.value, "by": by})


@click.command
@click.argument("conversation", type=int)
@click.argument("to", metavar="AGENT", required=False, default="")
@_by
@common_options
def assign(session: Session, *, conversation: int, to: str, by: str) -> None:
    """Give a conversation to an agent.

    Without an AGENT it is nobody's any more. A line in the conversation says so.
    """
    found = session.hub().assign(conversation, to, by=by)
    session.screen.facts({"conversation": conversation, "assignee": found.filing.assignee, "by": by})


@click.command
@click.argument("channel")
@click.argument("message", metavar="EXTERNAL_ID")
@common_options
def retry(session: Session, *, channel: str, message: str) -> None:
    """Send an answer once more that failed.

    Parts of it that arrived are not sent again. An answer that may have arrived can come twice.
    """
    hub = session.hub(channel=channel)
    found = hub.store.message(hub.workspace, channel, message)
    if found is None:
        raise NotFound(f"channel {channel!r} has no message {message!r}: see 'convsdk messages'")
    hub.retry(found)
    session.screen.facts({"channel": channel, "message": found.external_id, "status": "queued"})


@click.command
@click.argument("identifier")
@click.option("--lift", "is_lifted", is_flag=True, help="It takes messages again, whatever was reported.")
@common_options
def reachable(session: Session, *, identifier: str, is_lifted: bool) -> None:
    """Say whether an identifier takes messages, or with --lift that it does again.

    One whose messages came back for good is not written to any more.
    """
    hub = session.hub()
    one = who(hub, identifier)
    if isinstance(one, int):
        raise NotFound(f"contact {one} has identifiers, and each takes messages or not: write kind:value")
    if is_lifted:
        hub.make_reachable(one)
    stopped = hub.unreachable(one)
    why = {"since": stopped.since, "channel": stopped.channel, "why": stopped.why} if stopped else {}
    session.screen.facts({"identifier": one, "reachable": stopped is None, **why})


@click.command
@click.argument("conversation", type=int, required=False)
@click.option("--sender", default="", help="The e-mail address that it is from.")
@click.option("--dismiss", is_flag=True, help="It is nobody's, and done with.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@_by
@common_options
def review(session: Session, *, conversation: int | None, sender: str, dismiss: bool, limit: int, by: str) -> None:
    """List the mails whose sender is in doubt, or decide about one.

    Give its CONVERSATION with --sender, which files it under that address as an entry by staff, or with --dismiss.
    """
    hub = session.hub()
    if conversation is None:
        found = [_doubt(hub, one) for one in hub.review_queue(limit=limit)]
        session.screen.table(found, _DOUBT, empty="nothing in doubt")
        return
    if bool(sender) is dismiss:
        raise click.UsageError("say whose it is with --sender ADDRESS, or that it is nobody's with --dismiss")
    try:
        reviewed = hub.review(conversation, sender=sender, by=by)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    session.screen.facts({"conversation": conversation, "contact": reviewed.contact, "by": by})


_DOUBT = ("conversation", "channel", "at", "from", "subject", "why")


def _doubt(hub: Hub, conversation: Conversation) -> dict[str, Any]:
    filing = conversation.filing
    detail = next((one.detail for one in hub.messages(filing.id) if one.detail), {})
    return {
        "conversation": filing.id,
        "channel": filing.channel,
        "at": filing.opened[0],
        "from": detail.get("from", ""),
        "subject": filing.subject,
        "why": detail.get("review", ""),
    }


@click.command
@click.option("--hours", type=click.FloatRange(0, 24 * 7), help="From now on, for so long; 0 ends it.")
@_by
@common_options
def duty(session: Session, *, hours: float | None, by: str) -> None:
    """Say who is there to answer, or with --hours that you are.

    A bot automation and the chat widget tell visitors whether somebody is.
    """
    hub = session.hub()
    if hours is not None:
        hub.be_on_duty(by, datetime.now(UTC) + timedelta(hours=hours) if hours else None)
    session.screen.facts({"on_duty": hub.on_duty()})


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
    first, second = _pair(hub, a, b)
    if preview:
        expected = hub.preview_merge(first, second)
        refused = _told(expected.refused)
        session.screen.facts({"possible": not refused, "identifiers": expected.identifiers, "refused": refused})
        return
    ruled = hub.merge(first, second, by=by, reason=reason)
    refused = [] if ruled.is_joined else _told(hub.preview_merge(first, second).refused)
    session.screen.facts(
        {"merge": ruled.id, "joined": ruled.is_joined, "contacts": sorted(set(ruled.contacts), key=str)}
        | ({"refused": refused} if refused else {})
    )
    if not ruled.is_joined:
        raise click.exceptions.Exit(1)


@click.command("cannot-link")
@click.argument("a")
@click.argument("b")
@click.option("--reason", default="", help="Why; kept with the ruling.")
@_by
@common_options
def cannot_link(session: Session, *, a: str, b: str, reason: str, by: str) -> None:
    """Record that two identifiers belong to two people.

    It outweighs all evidence until 'convsdk unmerge' takes it back.
    """
    hub = session.hub()
    ruled = hub.cannot_link(*_pair(hub, a, b), by=by, reason=reason)
    session.screen.facts({"cannot_link": ruled.id, "contacts": ruled.contacts})


@click.command
@click.argument("ruling", metavar="ID")
@_by
@common_options
def unmerge(session: Session, ruling: str, by: str) -> None:
    """Take a merge or a cannot-link back, exactly."""
    session.hub().unmerge(ruling, by=by)
    session.screen.facts({"unmerged": ruling})


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
@click.argument("target")
@_by
@common_options
def restore(session: Session, target: str, by: str) -> None:
    """Let what was taken back count again.

    The TARGET is the id of a hint, a merge or a cannot-link, as 'convsdk explain' names it.
    """
    session.hub().restore(target, by=by)
    session.screen.facts({"restored": target})


@click.command
@click.argument("identifier")
@click.argument("purpose")
@click.option("--record", type=click.Choice(["granted", "denied", "withdrawn"]), help="Record what they said.")
@click.option("--wording", default="", help="The words that they saw; kept with the record.")
@click.option("--where", default="", help="Where they said it; kept with the record.")
@click.option("--list", "list_name", metavar="NAME", help="As a member of this list.")
@_by
@common_options
def consent(
    session: Session,
    *,
    identifier: str,
    purpose: str,
    record: str | None,
    wording: str,
    where: str,
    list_name: str | None,
    by: str,
) -> None:
    """Say whether an identifier may be written to for a purpose, or record it.

    What is missing is told. With --record, what somebody said is recorded first.
    """
    hub = session.hub()
    one = who(hub, identifier)
    if isinstance(one, int):
        raise NotFound(f"consent belongs to an identifier and not to contact {one}: write kind:value")
    if record:
        state = ConsentState(record)
        hub.record_consent(one.kind, one.value, purpose, state, by=by, where=where, wording=wording, scope=one.scope)
    permission = hub.may_write(one, purpose, list_name=list_name)
    session.screen.facts(
        {
            "identifier": one,
            "purpose": purpose,
            "consent": hub.consent(one, purpose),
            "may_write": permission.is_given,
            "missing": permission.missing,
        }
    )


@click.command
@click.argument("contact")
@click.argument("list_name", metavar="LIST")
@click.option(
    "--record", type=click.Choice(["subscribed", "unsubscribed"]), help="Put the contact on it, or take it off."
)
@click.option("--how", default="command line", show_default=True, help="How it came to be; kept with the record.")
@_by
@common_options
def membership(session: Session, *, contact: str, list_name: str, record: str | None, how: str, by: str) -> None:
    """Say whether a contact is on a list, or record it.

    Being on a list says nothing about consent.
    """
    hub = session.hub()
    one = contact_of(hub, contact)
    if record:
        hub.set_list(one.id, list_name, ListState(record), how=how, by=by)
    session.screen.facts({"contact": one.id, "list": list_name, "membership": hub.on_list(one.id, list_name)})


def _told(refusals: Iterable[Refusal]) -> list[str]:
    return [sentence(Step(one.rule, str(one.link.a), str(one.link.b))) for one in refusals]
