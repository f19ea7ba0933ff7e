"""Who a browser is to us: the sessions of visitors, made and kept by the server, under a token that says nothing.

The token is the secret of one browser, in its cookie; the store holds its hash. `visitor` is the name under which the
rest of the program knows that browser, and is never told to a page: whoever knew it could speak for the visitor by a
channel that takes its word for it. What pages know is the `public` name, which tokens of identification are made for.
"""

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TypeVar

import msgspec
from attrs import evolve, field, frozen

from convsdk.core.model import Claim, IdentityHint, Trait, Trust
from convsdk.core.ports import Clock
from convsdk.core.storage import Batch, Memo, Transaction
from convsdk.hub import Hub

# A page proves who is there whenever it is loaded. Who has left it for so long may have left the browser to others.
_PROOF = timedelta(days=1)
# The 30 days start anew with each visit, but a write for each request would cost more than all that it reads.
_TOUCH = timedelta(hours=1)
_KIND = "session"


Result = TypeVar("Result")


@frozen(kw_only=True)
class Session:
    """What is remembered of one browser on one channel.

    `claims` and `traits` are what its page said about it, and go with all that it writes. `proof` is the id of the
    hint that proved it, at `proven_at`. `read` is the last message that was seen in each conversation.
    """

    channel: str
    visitor: str = field(repr=False)
    seen_at: datetime
    claims: tuple[Claim, ...] = field(default=(), repr=False)
    traits: tuple[Trait, ...] = field(default=(), repr=False)
    proof: str = ""
    proven_at: datetime | None = None
    read: dict[int, int] = field(factory=dict)
    is_over: bool = False

    @property
    def public(self) -> str:
        """Give the name that the page knows its visitor by."""
        return sha256(f"public/{self.visitor}".encode()).hexdigest()[:32]

    def is_proven(self, at: datetime) -> bool:
        """Say whether it was proven who is there, not long ago."""
        return self.proven_at is not None and at < self.proven_at + _PROOF

    def speaks(self, hint: IdentityHint) -> IdentityHint:
        """Give the hint of something that this browser wrote, with what is known of who is there."""
        claims, traits = self.claims, self.traits
        if not self.is_proven(hint.at):
            claims = tuple(evolve(one, trust=Trust.ASSERTED) for one in claims)
            traits = tuple(evolve(one, trust=Trust.ASSERTED) for one in traits)
        return evolve(hint, identifiers=(*claims, *hint.identifiers), traits=(*traits, *hint.traits))


class Visitors:
    """The sessions of the visitors of one hub's channels. They end after as long as a cookie may attribute."""

    def __init__(self, hub: Hub, *, clock: Clock) -> None:
        self.keep = hub.policy.visitor_ttl
        self._hub = hub
        self._clock = clock
        self._tidied_at: datetime | None = None

    def find(self, channel: str, token: str) -> Session | None:
        """Give the session of that token, which begins its time anew; None where there is none, or it has ended."""
        session = self._read(self._hub.store.memo(self._hub.workspace, _KIND, _key(token)), channel)
        if session and self._clock() >= session.seen_at + _TOUCH:
            return self.change(channel, token, lambda one: one)
        return session

    def make(self, channel: str) -> tuple[str, Session]:
        """Give a new session and its token."""
        self._tidy()
        token = secrets.token_urlsafe(32)
        session = Session(channel=channel, visitor=secrets.token_hex(16), seen_at=self._clock())
        self._transact(lambda transaction: self._write(transaction, {token: session}))
        return token, session

    def change(self, channel: str, token: str, change: Callable[[Session], Session]) -> Session | None:
        """Change the session of that token, and give it; None where there is none."""

        def work(transaction: Transaction) -> Session | None:
            session = self._read(transaction.memo(_KIND, _key(token)), channel)
            if session is None:
                return None
            changed = evolve(change(session), seen_at=self._clock())
            self._write(transaction, {token: changed})
            return changed

        return self._transact(work)

    def rotate(self, channel: str, token: str, change: Callable[[Session], Session]) -> tuple[str, Session] | None:
        """Change the session of that token and give it under a new one; the old one opens nothing any more."""
        fresh = secrets.token_urlsafe(32)

        def work(transaction: Transaction) -> tuple[str, Session] | None:
            session = self._read(transaction.memo(_KIND, _key(token)), channel)
            if session is None:
                return None
            changed = evolve(change(session), seen_at=self._clock())
            self._write(transaction, {token: evolve(session, is_over=True), fresh: changed})
            return fresh, changed

        return self._transact(work)

    def end(self, channel: str, token: str) -> None:
        """End the session of that token."""
        self.change(
            channel,
            token,
            lambda session: Session(channel=channel, visitor=session.visitor, seen_at=session.seen_at, is_over=True),
        )

    def _read(self, memo: Memo | None, channel: str) -> Session | None:
        if memo is None:
            return None
        session = msgspec.json.decode(memo.text, type=Session)
        is_alive = not session.is_over and session.channel == channel
        return session if is_alive and self._clock() < session.seen_at + self.keep else None

    def _write(self, transaction: Transaction, sessions: dict[str, Session]) -> None:
        memos = {
            (_KIND, _key(token)): Memo(msgspec.json.encode(session).decode(), self._clock())
            for token, session in sessions.items()
        }
        transaction.write(Batch(memos=memos))

    def _tidy(self) -> None:
        """Forget what has ended, once a day: it holds addresses."""
        now = self._clock()
        if self._tidied_at is None or now >= self._tidied_at + timedelta(days=1):
            self._tidied_at = now
            self._transact(lambda transaction: transaction.forget_memos(_KIND, before=now - self.keep))

    def _transact(self, work: Callable[[Transaction], Result]) -> Result:
        return self._hub.store.transact(self._hub.workspace, work)


def _key(token: str) -> str:
    return sha256(token.encode()).hexdigest()
