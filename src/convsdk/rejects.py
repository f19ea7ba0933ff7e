"""What could not be taken in, kept aside: a folder with one JSON file for each request, until it can be run again."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import msgspec
from attrs import field, frozen

from convsdk.core.ports import Envelope, Headers, Request
from convsdk.disk import write_whole
from convsdk.errors import NotFound, ParseError, TransientError

_ID = re.compile(r"[0-9a-f]{24}")
_FULL_RETRY_S = 60.0


@frozen(kw_only=True)
class Reject:
    """A request that `channel` or the store could not take, why (`error`), and all that it takes to run it again.

    What a sender wrote, and what proves who it was, is in the file and not in the `repr`.
    """

    id: str
    channel: str
    received_at: datetime
    error: str = field(repr=False)
    sha256: str
    method: str
    url: str = field(repr=False)
    query: dict[str, str] = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    envelope: Envelope | None = field(default=None, repr=False)

    def request(self) -> Request:
        """Give the request as it arrived, at the time when it did."""
        return Request(
            received_at=self.received_at,
            body=self.body,
            method=self.method,
            url=self.url,
            query=self.query,
            headers=Headers(self.headers),
            envelope=self.envelope,
        )


class Rejects:
    """The rejects in `folder`, which is made when it is needed, for its owner only.

    `capacity` is how many there may be of one channel (None: any number): nobody shall fill a disk with what cannot be
    read, nor the place that another channel has. The same request again is the same reject. Any number of processes
    may share a folder.
    """

    def __init__(self, folder: Path, *, capacity: int | None = None) -> None:
        self.folder = folder
        self._capacity = capacity

    def keep(self, channel: str, request: Request, error: Exception) -> Reject:
        """Keep `request` aside, which is on disk when this returns.

        Raises `TransientError` where `channel` has as many as it may have, and `OSError` where it cannot be written.
        """
        reject = Reject(
            id=_id_of(channel, request),
            channel=channel,
            received_at=request.received_at,
            error=_text(str(error)),
            sha256=sha256(request.body).hexdigest(),
            method=request.method,
            url=_text(request.url),
            query=_texts(request.query),
            headers=tuple(_pairs(request.headers)),
            body=request.body,
            envelope=request.envelope,
        )
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.path(reject.id).exists():
            self._require_room(channel)
        write_whole(self.path(reject.id), msgspec.json.encode(reject))
        return reject

    def path(self, reject_id: str) -> Path:
        """Give the file of a reject."""
        return self.folder / f"{reject_id}.json"

    def ids(self) -> Iterator[str]:
        """Give the id of each, in no order; other files in the folder are nobody's business."""
        for path in self.folder.glob("*.json"):
            if _ID.fullmatch(path.stem):
                yield path.stem

    def read(self, reject_id: str) -> Reject:
        """Give the reject with that id; raise `NotFound` where there is none, `ParseError` where its file is spoilt."""
        if not _ID.fullmatch(reject_id) or not self.path(reject_id).exists():
            raise NotFound(f"{self.folder} holds no reject {reject_id!r}: 'convsdk rejects' lists those that it holds")
        try:
            return msgspec.json.decode(self.path(reject_id).read_bytes(), type=Reject)
        except msgspec.MsgspecError as error:
            raise ParseError(f"{self.path(reject_id)} is no reject ({error}): restore or remove it") from error

    def remove(self, reject: Reject) -> None:
        """Remove a reject that was taken in after all."""
        self.path(reject.id).unlink(missing_ok=True)

    def _require_room(self, channel: str) -> None:
        if self._capacity is not None and sum(one.startswith(_mark(channel)) for one in self.ids()) >= self._capacity:
            raise TransientError(
                f"{self.folder} holds {self._capacity} rejects of channel {channel!r}, as many as it may: "
                "look at them with 'convsdk rejects', and retry or remove them",
                retry_after_s=_FULL_RETRY_S,
            )


def _id_of(channel: str, request: Request) -> str:
    # What a platform sends again has other headers, such as a date, and is the same for all that matters here.
    told = msgspec.json.encode([channel, request.method, sorted(map(list, _texts(request.query).items()))])
    return _mark(channel) + sha256(told + request.body).hexdigest()[:16]


def _mark(channel: str) -> str:
    """Give what the ids of a channel's rejects begin with, so that they are counted by the names of their files."""
    return sha256(channel.encode()).hexdigest()[:8]


def _texts(values: Mapping[str, str]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in values.items()}


def _pairs(headers: Headers) -> Iterator[tuple[str, str]]:
    return ((_text(name), _text(value)) for name in headers for value in headers.all(name))


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()  # half a character cannot be written
