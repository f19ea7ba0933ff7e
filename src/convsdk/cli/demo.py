"""`convsdk demo`: the whole way, from raw bytes to contacts, with the channels and the store that everybody uses."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import click
import jwt
from attrs import frozen

from convsdk.cli.host import shown_url
from convsdk.cli.records import CONVERSATION_COLUMNS, contact_record, conversation_record
from convsdk.cli.screen import Screen
from convsdk.cli.session import Session, common_options
from convsdk.core.events import FormRejected, Identified, MessageReceived
from convsdk.core.explain import sentence
from convsdk.core.model import Contact, Outcome, Trust
from convsdk.core.ports import Headers, Request
from convsdk.desk import Received
from convsdk.errors import ConfigError, Forbidden
from convsdk.hub import Hub

_START = datetime(2026, 1, 12, 9, 30, tzinfo=UTC)  # fixed, so that every run prints the same
_SECRETS = ("CONVSDK_DEMO_APP_SECRET", "CONVSDK_DEMO_VERIFY_TOKEN", "CONVSDK_DEMO_SITE_SECRET")
_OUTCOMES = {
    Outcome.CREATED: "a new contact",
    Outcome.ATTACHED: "a known contact",
    Outcome.LINKED: "a known contact, with one identifier more",
    Outcome.MERGED: "two contacts, which are one from now on",
    Outcome.CONFLICT: "a contact, and a link that a rule refused",
    Outcome.ANONYMOUS: "nobody yet",
    Outcome.UNRESOLVED: "nobody",
    Outcome.DUPLICATE: "nothing new: it was received before",
}


@frozen
class _Step:
    """One raw input: the channel that it comes by, its file, what it is, and how the demo hands it over."""

    channel: str
    file: str
    what: str
    way: str = "as it is"


_WAYS = {
    "1. A form in the chat": (
        _Step("shop-chat", "chat-question.json", "A visitor asks something, and leaves no address."),
        _Step("shop-chat", "chat-form-wrong.json", "She fills in the form, with a slip in the address."),
        _Step("shop-chat", "chat-form.json", "She corrects it."),
    ),
    "2. An inbound e-mail": (
        _Step("shop-mail", "mail-ben.eml", "A customer's mail, with a drawing attached."),
        _Step("shop-mail", "mail-ben-reply.eml", "The same customer again, in the same thread."),
        _Step("shop-mail", "mail-newsletter.eml", "A newsletter."),
        _Step("shop-mail", "mail-ben-private.eml", "The customer writes from another address."),
        _Step("shop-mail", "mail-ben.eml", "The mail server delivers the first mail once more."),
    ),
    "3. Messenger, by hand": (
        _Step(
            "shop-page",
            "messenger-question.json",
            "Somebody starts a chat with the page, and asks something.",
            "signed",
        ),
        _Step("shop-page", "messenger-forged.json", "A forged webhook, in the same person's name.", "forged"),
        _Step("shop-page", "manual-entry.json", "An agent enters what she learned.", "entry"),
    ),
    "4. An address passed in JavaScript": (
        _Step("shop-login", "identify-unsigned.json", "A page says who is there, and proves nothing."),
        _Step("shop-chat", "chat-stranger.json", "That visitor writes."),
        _Step("shop-login", "identify-claims.json", "A page says who is there, signed by the site's backend.", "token"),
        _Step("shop-chat", "chat-dora.json", "That visitor writes."),
    ),
}


@click.command
@common_options
def demo(session: Session) -> None:
    """Show the whole way on bundled raw inputs, from bytes to contacts.

    The store is a fresh ./convsdk-demo.db, which stays there to look around in; --store names another.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(resources.as_file(resources.files("convsdk") / "demo"))
        environ = {name: secrets.token_hex(32) for name in _SECRETS}
        own = Session(
            screen=session.screen,
            config_file=folder / "convsdk.toml",
            store_url=session.asked_store,
            environ=environ,
        )
        stack.callback(own.close)
        _Demo(_fresh_hub(own), own.screen, folder, environ).show(shown_url(own.store_url))


def _fresh_hub(session: Session) -> Hub:
    if session.asked_store is None:
        for ending in ("", "-wal", "-shm"):
            Path(session.store_url.removeprefix("sqlite:///") + ending).unlink(missing_ok=True)
    hub = session.hub(clock=lambda: _START + timedelta(hours=12))
    if hub.contacts(limit=1).items:
        raise ConfigError(f"{shown_url(session.store_url)} is not empty: name a fresh store for the demo")
    return hub


class _Demo:
    """One run: the hub, what to print on, where the inputs are, and what they are signed with."""

    def __init__(self, hub: Hub, screen: Screen, folder: Path, environ: Mapping[str, str]) -> None:
        self._hub = hub
        self._screen = screen
        self._folder = folder
        self._environ = environ

    def show(self, url: str) -> None:
        """Take every input in, and print what became of it."""
        at = _START
        for way, steps in _WAYS.items():
            self._heading(way)
            for step in steps:
                at += timedelta(minutes=1)
                self._take(step, at)
        self._heading("The contacts")
        for contact in self._hub.contacts():
            self._show_contact(contact)
        self._heading("The conversations")
        found = self._hub.conversations()[::-1]
        self._screen.table(map(conversation_record, found), CONVERSATION_COLUMNS)
        self._merge_and_unmerge()
        if url != "memory:":
            self._heading("Look around")
            for command in ("contacts", "explain email:carla@studio.example", f"messages {found[0].id}"):
                self._screen.say(f"  convsdk {command} --store {url}")

    def _heading(self, text: str) -> None:
        self._screen.say()
        self._screen.say(text, style="bold")
        self._screen.say("=" * len(text), style="bold")
        self._screen.say()

    # -- in

    def _take(self, step: _Step, at: datetime) -> None:
        told = {"channel": step.channel, "file": step.file, "what": step.what}
        self._screen.say(f"{step.what}  [{step.channel}: {step.file}]", style="cyan")
        try:
            received = self._hand_over(step, at)
        except Forbidden as error:
            self._tell(told, "refused, and nothing is kept", because=[str(error)], outcome="refused")
            return
        for one in received:
            decision, where = one.decision, f", in conversation {one.conversation}" if one.conversation else ""
            self._tell(
                told,
                self._became(one) + where,
                because=self._reasons(one),
                outcome=decision.outcome.value,
                contact=self._hub.attribution(decision.hint),
            )

    def _tell(self, told: Mapping[str, Any], line: str, *, because: Sequence[str], **result: object) -> None:
        self._screen.say(f"  -> {line}")
        for reason in because:
            self._screen.say(f"     - {reason}")
        if self._screen.is_json:
            self._screen.json({**told, **result, "because": because})

    def _hand_over(self, step: _Step, at: datetime) -> tuple[Received, ...]:
        body = (self._folder / step.file).read_bytes()
        if step.way == "entry":
            page: Any = self._hub.channel(step.channel)
            return self._hub.receive(step.channel, [page.manual_entry(at=at, **json.loads(body))])
        headers: dict[str, str] = {}
        if step.way in {"signed", "forged"}:
            secret = self._environ["CONVSDK_DEMO_APP_SECRET"] if step.way == "signed" else "a guess"
            headers["X-Hub-Signature-256"] = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        if step.way == "token":
            body = self._with_token(json.loads(body), at)
        return self._hub.handle(step.channel, Request(received_at=at, body=body, headers=Headers(headers))).received

    def _with_token(self, claims: dict[str, Any], at: datetime) -> bytes:
        """Do what the site's backend does: sign who is logged in, for this visitor and for five minutes."""
        claims |= {"aud": "convsdk", "exp": int(at.timestamp()) + 300}
        token = jwt.encode(claims, self._environ["CONVSDK_DEMO_SITE_SECRET"], algorithm="HS256")
        return json.dumps({"id": "i-2", "visitor": claims["visitor"], "token": token}).encode()

    def _became(self, received: Received) -> str:
        decision = received.decision
        if decision.outcome is Outcome.ANONYMOUS and (contact := self._hub.attribution(decision.hint)):
            return f"shown under contact {contact}"
        number = f" ({decision.contact})" if decision.contact and decision.outcome is not Outcome.DUPLICATE else ""
        return f"{_OUTCOMES[decision.outcome]}{number}"

    def _reasons(self, received: Received) -> list[str]:
        event, decision = received.event, received.decision
        if decision.outcome is Outcome.DUPLICATE:
            return []
        told = [sentence(step) for step in (*decision.steps, *decision.refused)]
        if not told:
            spoke = self._hub.attribution(decision.hint) is not None
            told = ["it names nobody, but its cookie spoke for that contact" if spoke else "it names nobody"]
        if isinstance(event, FormRejected):
            told += [f"the form was sent back: {one.message}" for one in event.problems]
        if isinstance(event, MessageReceived) and event.is_automatic:
            told.append(f"no person wrote it: {event.detail.get('why', 'it is automatic')}")
        if isinstance(event, Identified) and all(one.trust is Trust.ASSERTED for one in event.hint.identifiers):
            told.append("it is only a claim: shown as unverified, and it opens nothing")
        return told

    # -- out

    def _show_contact(self, contact: Contact) -> None:
        found = self._hub.conversations(contact=contact.id)
        if self._screen.is_json:
            self._screen.json(contact_record(contact) | {"conversations": [one.id for one in found]})
            return
        self._screen.say(f"{contact.name}  [contact {contact.id}, by {contact.how}]", style="cyan")
        for held in contact.identifiers:
            self._screen.say(f"  {held.node}  ({held.trust.name.lower()})")
        for note in contact.notes:
            self._screen.say(f"  {note}  (only typed: a note, and no key)")
        for name, trait in contact.traits.items():
            self._screen.say(f"  {name}: {trait}")
        told = (f"{one.id}{'' if one.filing.is_verified else ' (unverified)'}" for one in found)
        self._screen.say(f"  conversations: {', '.join(told) or 'none'}")

    def _merge_and_unmerge(self) -> None:
        work, home = self._hub.find("email", "ben@atelier.example"), self._hub.find("email", "ben.ahlen@post.example")
        if work is None or home is None:
            return
        self._heading("Staff merge two contacts, and take it back")
        both = (work.id, home.id)
        self._snapshot("before", both)
        ruled = self._hub.merge(*both, by="mia@shop.example", reason="the same person, he said so", merge_id="demo-1")
        self._snapshot("merged", both)
        for line in self._hub.explain(work.id):
            self._screen.say(f"     - {line}")
        self._hub.unmerge(ruled.id, by="mia@shop.example")
        self._snapshot("unmerged", both)

    def _snapshot(self, state: str, contacts: Sequence[int]) -> None:
        self._screen.say(state, style="cyan")
        for contact in dict.fromkeys(self._hub.contact(one).id for one in contacts):
            held = [str(one.node) for one in self._hub.contact(contact).identifiers]
            found = [one.id for one in self._hub.conversations(contact=contact)]
            self._screen.say(f"  -> contact {contact}: {', '.join(held)}; conversations {', '.join(map(str, found))}")
            if self._screen.is_json:
                self._screen.json({"state": state, "contact": contact, "identifiers": held, "conversations": found})
