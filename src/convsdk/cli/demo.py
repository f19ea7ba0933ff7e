"""`convsdk demo`: the whole way, from raw bytes to contacts, with the channels and the store that everybody uses."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import click
import jwt
from attrs import frozen

from convsdk.cli.commands import (
    CONVERSATION_COLUMNS,
    contact_record,
    conversation_record,
    shown_url,
)
from convsdk.cli.screen import Screen
from convsdk.cli.session import Session, common_options
from convsdk.core.events import FormRejected, MessageReceived
from convsdk.core.explain import sentence
from convsdk.core.model import Contact, Outcome
from convsdk.core.ports import Headers, Request
from convsdk.errors import ConfigError, Forbidden
from convsdk.hub import Hub, Received

_START = datetime(2026, 1, 12, 9, 30, tzinfo=UTC)  # fixed, so that every run prints the same
_SECRETS = ("CONVSDK_DEMO_APP_SECRET", "CONVSDK_DEMO_VERIFY_TOKEN", "CONVSDK_DEMO_SITE_SECRET")
_OUTCOMES = {
    Outcome.CREATED: "new contact",
    Outcome.ATTACHED: "known contact",
    Outcome.LINKED: "known contact, one identifier more",
    Outcome.MERGED: "two contacts became one",
    Outcome.CONFLICT: "a rule refused a link",
    Outcome.ANONYMOUS: "nobody yet",
    Outcome.UNRESOLVED: "no contact",
    Outcome.DUPLICATE: "nothing new, since it was received before",
}


@frozen
class _Step:
    """One raw input: the channel that it comes by, its file, what it is, and how the demo hands it over."""

    channel: str
    file: str
    what: str
    way: str = "as it is"


_STEPS = (
    _Step("shop-chat", "chat-question.json", "a visitor asks, and leaves no address"),
    _Step("shop-chat", "chat-form-wrong.json", "she fills in the form, with a slip in the address"),
    _Step("shop-chat", "chat-form.json", "she corrects it"),
    _Step("shop-mail", "mail-ben.eml", "a customer's mail, with a drawing attached"),
    _Step("shop-mail", "mail-ben-reply.eml", "the same customer again, in the same thread"),
    _Step("shop-mail", "mail-newsletter.eml", "a newsletter"),
    _Step("shop-page", "messenger-question.json", "somebody writes to the page", "signed"),
    _Step("shop-page", "messenger-forged.json", "a forged webhook", "forged"),
    _Step("shop-page", "manual-entry.json", "an agent enters what she learned", "entry"),
    _Step("shop-login", "identify-unsigned.json", "a page says who is there, unsigned"),
    _Step("shop-chat", "chat-stranger.json", "that visitor writes"),
    _Step("shop-login", "identify-claims.json", "a page says who is there, signed by the site", "token"),
    _Step("shop-chat", "chat-dora.json", "that visitor writes"),
    _Step("shop-mail", "mail-ben-private.eml", "the first customer writes from home"),
    _Step("shop-mail", "mail-ben.eml", "the mail server delivers a mail twice"),
)


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
        self._heading("What arrives, and what becomes of it")
        for number, step in enumerate(_STEPS):
            self._take(number, step)
        self._heading("The contacts")
        for contact in self._hub.contacts():
            self._show_contact(contact)
        self._heading("The conversations")
        found = reversed(self._hub.conversations())
        self._screen.table(map(conversation_record, found), CONVERSATION_COLUMNS)
        self._merge_and_unmerge()
        self._heading("Look around")
        self._screen.say(f"convsdk contacts --store {url}")
        self._screen.say(f"convsdk explain ID --store {url}")

    def _heading(self, text: str) -> None:
        self._screen.say()
        self._screen.say(text, style="bold")
        self._screen.say()

    # -- in

    def _take(self, number: int, step: _Step) -> None:
        told = {"channel": step.channel, "file": step.file, "what": step.what}
        self._screen.say(f"{step.channel}: {step.what} ({step.file})", style="cyan")
        try:
            received = self._hand_over(step, _START + timedelta(minutes=number))
        except Forbidden as error:
            self._tell(told, f"refused: {error}", outcome="refused")
            return
        for one in received:
            where = [f"conversation {one.conversation}"] if one.conversation else []
            because = self._reasons(one)
            line = ", ".join([_became(one), *where]) + (f": {'; '.join(because)}" if because else "")
            decision = one.decision
            self._tell(told, line, outcome=decision.outcome.value, contact=decision.contact, because=because)

    def _tell(self, told: Mapping[str, Any], line: str, **result: object) -> None:
        self._screen.say(f"    {line}")
        if self._screen.is_json:
            self._screen.json({**told, **result})

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

    def _reasons(self, received: Received) -> list[str]:
        event, decision = received.event, received.decision
        if decision.outcome is Outcome.DUPLICATE:
            return []
        told = [sentence(step) for step in (*decision.steps, *decision.refused)]
        if decision.outcome is Outcome.ANONYMOUS and not told:
            contact = self._hub.attribution(decision.hint)
            told = [f"the cookie spoke for contact {contact} before" if contact else "it names nobody, and has a cookie"]
        if isinstance(event, FormRejected):
            told += [f"the form was sent back: {one.message}" for one in event.problems]
        if isinstance(event, MessageReceived) and event.is_automatic:
            told.append(f"no person wrote this: {event.detail.get('why', 'it is automatic')}")
        return told

    # -- out

    def _show_contact(self, contact: Contact) -> None:
        found = self._hub.conversations(contact=contact.id)
        if self._screen.is_json:
            self._screen.json(contact_record(contact) | {"conversations": [one.id for one in found]})
            return
        self._screen.say(f"{contact.id}  {contact.name}  ({contact.how})", style="cyan")
        for held in contact.identifiers:
            self._screen.say(f"    {held.node} ({held.trust.name.lower()})")
        for name, trait in contact.traits.items():
            self._screen.say(f"    {name}: {trait}")
        if contact.notes:
            self._screen.say(f"    only typed, no key: {', '.join(map(str, contact.notes))}")
        told = (f"{one.id}{'' if one.filing.is_verified else ' (unverified)'}" for one in found)
        self._screen.say(f"    conversations: {', '.join(told) or 'none'}")

    def _merge_and_unmerge(self) -> None:
        work, home = self._hub.find("email", "ben@atelier.example"), self._hub.find("email", "ben.ahlen@post.example")
        if work is None or home is None:
            return
        self._heading("Staff merge two contacts, and take it back")
        self._snapshot("before", work, home)
        ruled = self._hub.merge(
            work.id, home.id, by="mia@shop.example", reason="the same person, he said so", merge_id="demo-1"
        )
        self._snapshot("merged", work, home)
        for line in self._hub.explain(work.id):
            self._screen.say(f"    {line}")
        self._hub.unmerge(ruled.id, by="mia@shop.example")
        self._snapshot("unmerged", work, home)

    def _snapshot(self, state: str, *contacts: Contact) -> None:
        for contact in dict.fromkeys(self._hub.contact(one.id).id for one in contacts):
            now = self._hub.contact(contact)
            held = [str(one.node) for one in now.identifiers]
            found = [one.id for one in self._hub.conversations(contact=contact)]
            self._screen.say(f"{state}: contact {contact} has {', '.join(held)}; conversations {found}")
            if self._screen.is_json:
                self._screen.json({"state": state, "contact": contact, "identifiers": held, "conversations": found})


def _became(received: Received) -> str:
    decision = received.decision
    told = _OUTCOMES[decision.outcome]
    return f"{told} {decision.contact}" if decision.contact and decision.outcome is not Outcome.DUPLICATE else told
