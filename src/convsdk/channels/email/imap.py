"""Mail out of a mailbox by IMAP, in the order in which it came into its folder.

::

    connect ──> read what is new ──feed──commit──> done with it ──> IDLE or a pause ──┐
                      ^───────────────────────────────────────────────────────────────┘

The position is the folder's UIDVALIDITY, the UID read last, and the UID up to which all is done that is to be done
with a mail afterwards, such as moving it. That happens after the commit, and is repeated where nobody knows whether
it did: it is the same the second time.

imaplib blocks, so that each call runs in a thread. Closing the socket under it ends it.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from attrs import evolve, frozen

from convsdk.channels.email.mailbox import GARBLED, Entry, Mailbox
from convsdk.channels.email.mime import MAX_BYTES
from convsdk.channels.email.settings import ImapSettings
from convsdk.core.ports import Envelope, Feed, Request
from convsdk.errors import ConvsdkError, TransientError

Result = TypeVar("Result")
_UNKNOWN = Envelope(sender=None)  # a mail of ours to read, which no source has to prove

_PAGE = 50
_CUT_S = 2.0


@frozen
class Position:
    """How far a folder was read: up to the UID `read`, and up to `done` all is done that is to be done afterwards.

    Up to the UID `until`, mail that came until `since` (seconds since 1970) was there before the first start, under
    other UIDs, and is left alone.
    """

    validity: int
    read: int
    done: int
    since: int = 0
    until: int = 0

    def __str__(self) -> str:
        return f"{self.validity} {self.read} {self.done} {self.since} {self.until}"

    @classmethod
    def of(cls, text: str) -> "Position":
        """Read what `str` gives."""
        return cls(*map(int, text.split()))


async def listen(settings: ImapSettings, feed: Feed) -> None:
    """Hand the mail of a mailbox to `feed`, until cancelled or the connection is lost (`TransientError`).

    Raises `ConfigError` where the server refuses the login, or has no such folder.
    """
    reader = _Reader(settings, feed)
    try:
        await reader.run()
    finally:
        reader.close()


class _Reader:
    """Reads one mailbox, over one connection."""

    def __init__(self, settings: ImapSettings, feed: Feed) -> None:
        self._settings = settings
        self._feed = feed
        self._name = f"{settings.user}@{settings.host}/{settings.folder}"
        self._mailbox = Mailbox(settings)
        self._position = Position(0, 0, 0)

    def close(self) -> None:
        self._mailbox.close()

    async def run(self) -> None:
        await self._apart(self._mailbox.open)
        await self._begin()
        while True:
            await self._read_new()
            if self._mailbox.can_idle:
                await self._apart(self._mailbox.idle)
            else:
                await asyncio.sleep(self._settings.poll_s)

    async def _begin(self) -> None:
        """Take up where the last one ended, from the start where the folder has new UIDs, or at the first start."""
        text = await self._feed.position(self._name)
        validity = self._mailbox.validity
        if text is None:
            self._position = await self._first()
            await self._feed.move((self._name, str(self._position)))
            return
        self._position = Position.of(text)
        if self._position.validity != validity:
            last = await self._apart(self._mailbox.last_uid)
            self._position = Position(validity, 0, 0, self._position.since, last)
        await self._finish()

    async def _first(self) -> Position:
        validity = self._mailbox.validity
        uid = await self._apart(self._mailbox.last_uid) if self._settings.start == "now" else 0
        if not uid:
            return Position(validity, 0, 0)
        last = await self._apart(self._mailbox.entries, [uid])
        since = max((int(one.at.timestamp()) for one in last if one.at), default=0)
        return Position(validity, uid, uid, since)

    async def _read_new(self) -> None:
        uids = await self._apart(self._mailbox.uids_after, self._position.read)
        for start in range(0, len(uids), _PAGE):
            for entry in await self._apart(self._mailbox.entries, uids[start : start + _PAGE]):
                await self._take(entry)
            await self._finish()

    async def _take(self, entry: Entry) -> None:
        # When it came into the mailbox, and not now: so a mail that is read again says the same.
        now = self._feed.now()
        at = min(entry.at or now, now)
        is_known = entry.uid <= self._position.until
        if is_known and entry.at and entry.at.timestamp() <= self._position.since:
            await self._pass_over(entry.uid)
            return
        mail = None
        if entry.size <= MAX_BYTES:
            mail = await self._apart(self._mailbox.mail, entry.uid)
            if mail is None:  # somebody removed it
                return
        if mail is None or len(mail) > MAX_BYTES:
            await self._set_aside(entry, at)
            return
        position = evolve(self._position, read=entry.uid)
        await self._feed.deliver(
            Request(received_at=at, body=mail, envelope=_UNKNOWN), position=(self._name, str(position))
        )
        self._position = position

    async def _set_aside(self, entry: Entry, at: datetime) -> None:
        """Tell of a mail that is too large: with its header alone, and the mail stays where it is."""
        header = await self._apart(self._mailbox.header, entry.uid)
        why = (
            f"mail {entry.uid} of folder {self._settings.folder!r} has {entry.size} bytes, and {MAX_BYTES} are read: "
            "this is its header alone, and the mail stays in the mailbox for you to look at"
        )
        await self._pass_over(entry.uid)
        request = Request(received_at=at, body=header or b"", envelope=_UNKNOWN)
        await self._feed.set_aside(request, why, position=(self._name, str(self._position)))

    async def _pass_over(self, uid: int) -> None:
        """Leave a mail alone, and finish with those before it first, since `done` stands for all up to it."""
        await self._finish()
        self._position = evolve(self._position, read=uid, done=uid)

    async def _finish(self) -> None:
        """Do what is to be done with the mails that were read, and keep that it was done."""
        if self._position.done >= self._position.read:
            return
        if self._settings.done != "leave":
            await self._apart(self._mailbox.finish, self._position.done + 1, self._position.read)
        self._position = evolve(self._position, done=self._position.read)
        if self._settings.done != "leave":
            await self._feed.move((self._name, str(self._position)))

    async def _apart(self, work: Callable[..., Result], *given: object) -> Result:
        """Call `work` in a thread, which ends when this is cancelled: the connection is cut then."""
        done: concurrent.futures.Future[Result] = concurrent.futures.Future()
        done.set_running_or_notify_cancel()

        def run() -> None:
            try:
                done.set_result(work(*given))
            except BaseException as error:  # noqa: BLE001  (a boundary of threads: it goes to whoever waits)
                done.set_exception(error)

        threading.Thread(target=run, name="convsdk-imap", daemon=True).start()
        waiting = asyncio.wrap_future(done)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            self._mailbox.cut()
            # One that looks a name up, or connects, takes longer, and sees by itself that it was cut.
            await asyncio.wait({waiting}, timeout=_CUT_S)
            if waiting.done():
                waiting.exception()  # of its own making
            raise
        except ConvsdkError:
            raise
        except TimeoutError as error:
            raise TransientError(f"{self._mailbox} said nothing for {self._settings.timeout_s:g} s") from error
        except GARBLED as error:
            raise TransientError(f"the connection to {self._mailbox} was lost ({type(error).__name__})") from error
