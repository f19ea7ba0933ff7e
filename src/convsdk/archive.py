"""What is kept outside the database: what attachments hold, and requests as they arrived, before they were parsed.

::

    sha256/3f/3f1c...                                   contents, each under the hash of it: twice the same is one file
    raw/<channel>/<date>/<time>-<hash of the request>   requests, in the order in which they came

A raw request is one line of JSON (channel, time, method, headers, envelope, sizes), then its body as it came over the
wire, then what was fetched for it.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

import msgspec
from attrs import evolve, frozen

from convsdk.core.events import Event, MessageReceived, Noted
from convsdk.core.model import Attachment
from convsdk.core.ports import Envelope, Headers, Request
from convsdk.disk import sync, write_whole
from convsdk.errors import ConfigError, NotFound, PermanentError, TransientError

_CONTENT = re.compile(r"archive:([0-9a-f]{64})")
_CHANNEL = re.compile(r"[a-z0-9-]+")
_RAW = re.compile(r"raw/[a-z0-9-]+/\d{4}-\d{2}-\d{2}/\d{6}\.\d{6}-[0-9a-f]{16}")
_PROTOCOL = re.compile(r"([a-z][a-z0-9+.-]+):(?!\\)", re.IGNORECASE)  # two letters at least: C:\ is a folder
_PASSWORD = re.compile(r"//[^/@]*@")
# Whoever sends mail shall not be able to fill the disk, on which the store may be.
_LEAVE_FREE_BYTES = 1 << 30
_FULL_RETRY_S = 60.0

Found = TypeVar("Found")


class _Place(Protocol):
    """Where files are: each name is a path below the place."""

    def read(self, name: str) -> bytes: ...

    def size(self, name: str) -> int | None: ...

    def write(self, name: str, content: bytes) -> None: ...

    def names(self, folder: str) -> list[str]: ...


@frozen(kw_only=True)
class _Head:
    """The first line of a raw request."""

    channel: str
    received_at: datetime
    method: str
    url: str
    query: dict[str, str]
    headers: tuple[tuple[str, str], ...]
    envelope: Envelope | None
    body: int
    fetched: tuple[tuple[str, int], ...] = ()


class Archive:
    """Keeps contents and raw requests at `url`: a folder (a path, or `file:`), or what fsspec reaches (`s3://...`).

    ::

        archive = Archive("/var/lib/shop/archive")
        url = archive.put(b"%PDF-1.7 ...")
        archive.get(url)

    A folder is made when it is needed, for its owner only. Any number of processes may share an archive. Nothing in
    it is ever removed. Methods may be called from any thread, and wait for the disk or the network: a coroutine calls
    them by `asyncio.to_thread`. They raise `TransientError` where the disk is full or the other side is away. Raises
    `ConfigError` where the URL's protocol needs what is not installed.
    """

    def __init__(self, url: str | Path) -> None:
        text = str(url)
        self.shown = _PASSWORD.sub("//***@", text)
        self._place = _place(text, self.shown)

    def __repr__(self) -> str:
        return f"Archive({self.shown!r})"

    def put(self, content: bytes) -> str:
        """Keep `content`, which is on disk when this returns, and give the URL that `get` takes."""
        url = self.url(content)
        self._keep(_content_name(url.removeprefix("archive:")), content)
        return url

    @staticmethod
    def url(content: bytes) -> str:
        """Give the URL that `put` would give, and keep nothing."""
        return f"archive:{sha256(content).hexdigest()}"

    def get(self, url: str) -> bytes:
        """Give the content that `put` gave `url` for.

        Raises `NotFound` where there is none, and `PermanentError` where it is not what was put there.
        """
        match = _CONTENT.fullmatch(url)
        if match is None:
            raise NotFound(f"{url!r} is no address in an archive: Archive.put gives one")
        name = _content_name(match[1])
        content = self._place.read(name)
        if sha256(content).hexdigest() != match[1]:
            raise PermanentError(f"{self.shown}: {name} is spoilt: restore it from a backup")
        return content

    def keep(self, channel: str, request: Request) -> str:
        """Keep a request to `channel` as it arrived, and give its name. The same request at the same time is one.

        Raises `ConfigError` where the channel's name cannot be that of a folder.
        """
        if not _CHANNEL.fullmatch(channel):
            raise ConfigError(f"channel {channel!r} has no name for a folder: take small letters, digits and hyphens")
        fetched = tuple(request.fetched.items())
        head = _Head(
            channel=channel,
            received_at=request.received_at,
            method=_text(request.method),
            url=_text(request.url),
            query={_text(name): _text(value) for name, value in request.query.items()},
            headers=tuple((_text(name), _text(one)) for name in request.headers for one in request.headers.all(name)),
            envelope=request.envelope and _envelope(request.envelope),
            body=len(request.body),
            fetched=tuple((_text(url), len(content)) for url, content in fetched),
        )
        content = b"".join([msgspec.json.encode(head), b"\n", request.body, *(one for _, one in fetched)])
        moment = request.received_at.astimezone(UTC).strftime("%Y-%m-%d/%H%M%S.%f")
        name = f"raw/{channel}/{moment}-{sha256(content).hexdigest()[:16]}"
        self._keep(name, content)
        return name

    def names(self, channel: str, *, since: date | None = None) -> Iterator[str]:
        """Give the name of each raw request to `channel`, in the order in which they came, from a day (UTC) on.

        No more than the names of one day are in memory.
        """
        first = since.isoformat() if since else ""
        for day in sorted(self._place.names(f"raw/{channel}")):
            if day < first:
                continue
            for name in sorted(self._place.names(f"raw/{channel}/{day}")):
                if _RAW.fullmatch(whole := f"raw/{channel}/{day}/{name}"):
                    yield whole

    def request(self, name: str) -> Request:
        """Give the raw request of that name, as it arrived, and at the time when it did.

        Raises `NotFound` where there is none, and `PermanentError` where its file is spoilt.
        """
        if not _RAW.fullmatch(name):
            raise NotFound(f"{name!r} is no name of a raw request: a message's detail['raw'] is one")
        content = self._place.read(name)
        if sha256(content).hexdigest()[:16] != name[-16:]:
            raise PermanentError(f"{self.shown}: {name} is spoilt: restore it from a backup")
        line, _, rest = content.partition(b"\n")
        head = msgspec.json.decode(line, type=_Head)
        fetched, at = {}, head.body
        for url, size in head.fetched:
            fetched[url] = rest[at : at + size]
            at += size
        return Request(
            received_at=head.received_at,
            body=rest[: head.body],
            method=head.method,
            url=head.url,
            query=head.query,
            headers=Headers(head.headers),
            envelope=head.envelope,
            fetched=fetched,
        )

    def _keep(self, name: str, content: bytes) -> None:
        # Half a file, which a crash can leave where a place writes no whole ones, is written again.
        if self._place.size(name) != len(content):
            self._place.write(name, content)


def filed(event: Event, *, raw: str, put: Callable[[bytes], str] | None) -> Event:
    """Give an event as it goes into the store: it names its raw request, and its attachments where `put` keeps them.

    Where nothing keeps them (None), what they hold is dropped.
    """
    if not isinstance(event, MessageReceived | Noted):
        return event
    detail = event.detail | {"raw": raw} if raw else event.detail
    if isinstance(event, Noted):
        return evolve(event, detail=detail)

    def place(attachment: Attachment) -> Attachment:
        if attachment.content is None:
            return attachment
        return evolve(attachment, url=put(attachment.content) if put else attachment.url, content=None)

    return evolve(event, attachments=tuple(map(place, event.attachments)), detail=detail)


class _Folder:
    """A folder on a disk of this machine."""

    def __init__(self, root: Path, shown: str) -> None:
        self._root = root
        self._shown = shown

    def read(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"{self._shown} has no {name}: was the archive moved, or cleaned up?") from error
        except OSError as error:
            raise self._unusable(error) from error

    def size(self, name: str) -> int | None:
        path = self._root / name
        try:
            size = path.stat().st_size
            sync(path.parent)  # another process can have put it there a moment ago
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        return size

    def write(self, name: str, content: bytes) -> None:
        path = self._root / name
        try:
            _make(path.parent)
            if shutil.disk_usage(path.parent).free < _LEAVE_FREE_BYTES + len(content):
                raise TransientError(
                    f"{self._shown} has less than {_LEAVE_FREE_BYTES >> 20} MiB left, so nothing is kept in it: "
                    "make room",
                    retry_after_s=_FULL_RETRY_S,
                )
            write_whole(path, content)
        except OSError as error:
            raise self._unusable(error) from error

    def names(self, folder: str) -> list[str]:
        try:
            return [one.name for one in (self._root / folder).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> TransientError:
        return TransientError(
            f"{self._shown} cannot be used as an archive ({error.strerror}): let it be read and written to",
            retry_after_s=_FULL_RETRY_S,
        )


class _Remote:
    """What fsspec reaches: `system` is one of its file systems, `root` a path in it."""

    def __init__(self, system: Any, root: str, shown: str) -> None:  # noqa: ANN401  (fsspec has no types)
        self._system = system
        self._root = root.rstrip("/")
        self._shown = shown

    def read(self, name: str) -> bytes:
        try:
            return self._asked(lambda: bytes(self._system.cat_file(self._path(name))))
        except FileNotFoundError as error:
            raise NotFound(f"{self._shown} has no {name}: was the archive moved, or cleaned up?") from error

    def size(self, name: str) -> int | None:
        with suppress(FileNotFoundError):
            return self._asked(lambda: int(self._system.info(self._path(name), refresh=True)["size"]))
        return None

    def write(self, name: str, content: bytes) -> None:
        def put() -> None:
            try:
                self._system.pipe_file(self._path(name), content)
            except FileNotFoundError:
                self._make(name.rpartition("/")[0])
                self._system.pipe_file(self._path(name), content)

        try:
            self._asked(put)
        except FileNotFoundError as error:  # such as a bucket that is not there
            raise self._away(error) from error

    def names(self, folder: str) -> list[str]:
        with suppress(FileNotFoundError):
            found = self._asked(lambda: self._system.ls(self._path(folder), detail=False, refresh=True))
            return [one.rstrip("/").rpartition("/")[2] for one in found]
        return []

    def _make(self, folder: str) -> None:
        """Make folders below the root, where the system has any; the root, such as a bucket, has to be there."""
        if folder:
            self._make(folder.rpartition("/")[0])
            with suppress(OSError):
                self._system.mkdir(self._path(folder), create_parents=False)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _asked(self, ask: Callable[[], Found]) -> Found:
        try:
            return ask()
        except FileNotFoundError:
            raise
        except Exception as error:  # what a file system raises, nobody but itself knows
            raise self._away(error) from error

    def _away(self, error: Exception) -> TransientError:
        # Its text can hold what proves who we are.
        return TransientError(
            f"{self._shown} did not do what was asked of it ({type(error).__name__}): see whether it is there, and "
            "whether this program may read and write it",
            retry_after_s=_FULL_RETRY_S,
        )


def _place(url: str, shown: str) -> _Place:
    protocol = match[1].lower() if (match := _PROTOCOL.match(url)) else ""
    if not url:
        raise ConfigError("an archive has no place: give a folder, or a URL such as s3://bucket/folder")
    if protocol in {"", "file"}:
        path = unquote(re.sub(r"file:(//(localhost)?(?=/))?", "", url)) if protocol else url
        return _Folder(Path(path), shown)
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # noqa: PLC0415  (has no types; may be missing)
    except ImportError as error:
        raise ConfigError(f"{shown} needs the extra 'archive' ({error}): pip install 'convsdk[archive]'") from error
    try:
        system, root = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise ConfigError(f"{shown} cannot be reached yet ({error})") from error
    except Exception as error:  # as in _Remote
        raise ConfigError(f"{shown} is no place for an archive ({type(error).__name__}): correct the URL") from error
    return _Remote(system, root, shown)


def _make(folder: Path) -> None:
    """Make a folder and those above it, each for its owner only and on disk."""
    if folder.is_dir():
        return
    _make(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync(folder.parent)


def _content_name(digest: str) -> str:
    return f"sha256/{digest[:2]}/{digest}"


def _envelope(envelope: Envelope) -> Envelope:
    sender = None if envelope.sender is None else _text(envelope.sender)
    return Envelope(sender=sender, recipients=tuple(map(_text, envelope.recipients)))


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()  # half a character cannot be written
