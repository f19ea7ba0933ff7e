"""Attachments: a folder with two files for each, its bytes and what is known of it."""

import asyncio
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec
from attrs import evolve, frozen

from convsdk.disk import sync, write_whole
from convsdk.errors import TransientError

_ID = re.compile(r"[0-9a-f]{32}")
_LONGEST_NAME = 150
# Whoever uploads shall not be able to fill the disk, on which the store may be.
_LEAVE_FREE_BYTES = 1 << 30
_UNSENT_S = 24 * 3600


@frozen(kw_only=True)
class File:
    """An attachment: who brought it (`visitor`), whether a message with it was sent, and where that stands."""

    id: str
    channel: str
    visitor: str
    name: str
    media_type: str
    size: int
    is_sent: bool = False
    conversation: int | None = None


class TooLargeError(Exception):
    """More bytes came than a file may have."""


class Files:
    """The attachments in `folder`, which is made when it is needed, for its owner only.

    What was uploaded and not sent is removed after a day. Any number of processes may share a folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tidied_at = 0.0

    async def keep(
        self, chunks: AsyncIterable[bytes], *, channel: str, visitor: str, name: str, media_type: str, most: int
    ) -> File:
        """Keep what comes in `chunks`, up to `most` bytes; raise `TooLargeError` where there are more.

        It is on disk when this returns. Raises `TransientError` where the disk does not take it.
        """
        number = secrets.token_hex(16)
        size = 0
        try:
            await asyncio.to_thread(self._make_ready)
            with self.path(number).open("xb") as file:
                async for chunk in _at_most(chunks, most):
                    size += file.write(chunk)  # into the system's cache: the disk is waited for at the end
            kept = File(id=number, channel=channel, visitor=visitor, name=_name(name), media_type=media_type, size=size)
            await asyncio.to_thread(sync, self.path(number))
            await asyncio.to_thread(self._note, kept)
        except BaseException as error:
            self.path(number).unlink(missing_ok=True)
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise TransientError(f"{self.folder} takes no attachment ({error.strerror}): mend it") from error
            raise
        return kept

    def find(self, number: str) -> File | None:
        """Give the attachment with that id, or None."""
        if not _ID.fullmatch(number):
            return None
        with suppress(FileNotFoundError):
            return msgspec.json.decode(self._notes(number).read_bytes(), type=File)
        return None

    def path(self, number: str) -> Path:
        """Give the file with the bytes of an attachment."""
        return self.folder / number

    def send(self, file: File) -> File:
        """Say that a message with an attachment is sent, and give it so: it stays, whatever becomes of the program."""
        sent = evolve(file, is_sent=True)
        self._note(sent)
        return sent

    def place(self, file: File, conversation: int) -> None:
        """Say in which conversation an attachment stands: who may read that may read it."""
        self._note(evolve(file, conversation=conversation))

    def _make_ready(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tidy()
        self._require_room()

    def _require_room(self) -> None:
        if shutil.disk_usage(self.folder).free < _LEAVE_FREE_BYTES:
            raise TransientError(
                f"{self.folder} has less than {_LEAVE_FREE_BYTES >> 20} MiB left, so no attachment is taken: make room",
                retry_after_s=60,
            )

    def _tidy(self) -> None:
        now = time.time()
        if now < self._tidied_at + _UNSENT_S:
            return
        self._tidied_at = now
        for path in self.folder.iterdir():
            if _ID.fullmatch(path.name) and path.stat().st_mtime < now - _UNSENT_S:
                file = self.find(path.name)
                if file is None or not file.is_sent:
                    path.unlink(missing_ok=True)
                    self._notes(path.name).unlink(missing_ok=True)

    def _notes(self, number: str) -> Path:
        return self.folder / f"{number}.json"

    def _note(self, file: File) -> None:
        write_whole(self._notes(file.id), msgspec.json.encode(file))


async def _at_most(chunks: AsyncIterable[bytes], most: int) -> AsyncIterator[bytes]:
    left = most
    async for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise TooLargeError
        yield chunk


def _name(given: str) -> str:
    """Give a name that is one, and no path, in every system: what it ends in says what it is, and stays."""
    plain = re.sub(r"[^\w.() -]", "_", Path(given.replace("\\", "/")).name).strip(". ")
    return plain[-_LONGEST_NAME:] or "file"
