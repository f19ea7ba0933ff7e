"""Files cut into the bytes of requests: mails, boxes of mails, lines of JSON, and folders, none held in memory.

Each `Piece` knows the position after it. A later run goes on there, once `Sources.go_on` has found that what came
before is still the same.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from attrs import asdict, evolve, frozen

LONGEST = 50_000_000
"""How many bytes one request may have: more than mail servers pass on."""

_STDIN = "-"
_MBOX_START = b"From "
_BLOCK = 1_000_000


@frozen(kw_only=True)
class Place:
    """Where the bytes of a request are in a file, and where the next ones begin."""

    path: Path
    start: int
    end: int
    next: int

    def read(self) -> bytes:
        """Give the bytes, for who did not keep them."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.end - self.start)


@frozen(kw_only=True)
class Piece:
    """The raw bytes of one request: where they come from, when they arrived there, and the position after them.

    `body` is None where there is a `problem` with them.
    """

    source: str
    place: Place
    received_at: datetime
    body: bytes | None = None
    problem: str = ""
    position: str = ""


@frozen(kw_only=True)
class _Mark:
    """A position: the entry, its last piece by number, place and digest, and a digest of the entries before."""

    entry: int
    number: int
    start: int
    end: int
    next: int
    digest: str
    before: str


class Sources:
    """What the arguments of one run name, in order: files, and folders of files; - is standard input.

    `total` is how many bytes there are, `read` how many the pieces so far have come to.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.read = 0
        self.total = 0
        self._names = names
        self._opened = ExitStack()
        self._stdin = Path(_STDIN)
        self._mark: _Mark | None = None

    def __enter__(self) -> Self:
        if _STDIN in self._names:
            self._stdin = Path(self._opened.enter_context(tempfile.TemporaryDirectory()), "stdin")
            with self._stdin.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        self.total = sum(_size(path) for _, path in self._entries())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.close()

    @property
    def name(self) -> str:
        """Give a name that the same arguments have again; empty with standard input, which cannot be read again."""
        places = [str(Path(name).resolve()) for name in self._names]
        return "" if _STDIN in self._names else hashlib.sha256(json.dumps(places).encode()).hexdigest()

    def go_on(self, position: str | None) -> bool:
        """Begin after `position` (None: at the start). Give False, and begin at the start, where the files changed."""
        self._mark = _Mark(**json.loads(position)) if position else None
        if self._mark is None or self._is_same(self._mark):
            return True
        self._mark = None
        return False

    def _is_same(self, mark: _Mark) -> bool:
        before = hashlib.sha256()
        for number, (_, path) in enumerate(self._entries()):
            if number < mark.entry:
                before.update(_identity(path))
                continue
            try:
                last = Place(path=path, start=mark.start, end=mark.end, next=mark.next).read()
                was_whole = _begins_anew(path, mark.next)
            except OSError:
                last, was_whole = b"", mark.next == 0
            return was_whole and (before.hexdigest(), _digest(last)) == (mark.before, mark.digest)
        return False

    def pieces(self) -> Iterator[Piece]:
        """Give the pieces after the position that `go_on` was given."""
        self.read = 0
        before = hashlib.sha256()
        start = self._mark or _Mark(entry=0, number=0, start=0, end=0, next=0, digest="", before="")
        for number, (told, path) in enumerate(self._entries()):
            identity, size = _identity(path), _size(path)
            if number >= start.entry:
                mark = start if number == start.entry else evolve(start, number=0, next=0)
                yield from self._entry(told, path, evolve(mark, entry=number, before=before.hexdigest()))
            self.read += size
            before.update(identity)

    def _entry(self, told: str, path: Path, mark: _Mark) -> Iterator[Piece]:
        read = self.read
        for piece in _cut(path, mark.next):
            place = piece.place
            # A piece without bytes says nothing of the file, and none of them is compared later.
            end = place.start if piece.body is None else place.end
            mark = evolve(
                mark,
                number=mark.number + 1,
                start=place.start,
                end=end,
                next=place.next,
                digest=_digest(piece.body or b""),
            )
            self.read = read + place.next
            source = f"{told}#{mark.number}" if piece.source else told
            yield evolve(piece, source=source, position=json.dumps(asdict(mark)))
        self.read = read

    def _entries(self) -> Iterator[tuple[str, Path]]:
        for name in self._names:
            path = self._stdin if name == _STDIN else Path(name)
            if path.is_dir():
                yield from ((str(Path(name, one)), path / one) for one in _inside(path))
            else:
                yield name, path


def _inside(folder: Path) -> list[str]:
    """Give the mails in a folder, by name: those of a Maildir, or else the .eml files; the order is always the same."""
    if (folder / "cur").is_dir():
        return sorted(f"{part}/{one.name}" for part in ("cur", "new") for one in (folder / part).glob("[!.]*"))
    return sorted(one.name for one in folder.glob("*.eml"))


def _cut(path: Path, start: int) -> Iterator[Piece]:
    """Give what a file holds from a byte on; a `source` stands where it is one of several."""
    try:
        with path.open("rb") as file:
            if file.read(len(_MBOX_START)) == _MBOX_START:
                yield from (_mail(_piece(path, *one)) for one in _records(file, start, b"\nFrom "))
            elif path.suffix == ".jsonl":
                lines = (_piece(path, *one) for one in _records(file, start, b"\n"))
                yield from (one for one in lines if one.body is None or one.body.strip())
            elif start == 0:
                file.seek(0)
                body, size = file.read(LONGEST + 1), _size(path)
                yield evolve(_piece(path, 0, size, body if len(body) <= LONGEST else None), source="")
    except OSError as error:
        place = Place(path=path, start=0, end=0, next=0)
        problem = error.strerror or str(error)
        yield Piece(source="", place=place, received_at=datetime.now(UTC), problem=problem)


def _begins_anew(path: Path, at: int) -> bool:
    """Say whether another request begins at a byte, or the file ends there: the last one may have been half written."""
    with path.open("rb") as file:
        kind = file.read(len(_MBOX_START))
        file.seek(max(at - 1, 0))
        last, first = file.read(1), file.read(len(_MBOX_START))
    if at == 0 or not first:
        return True
    return first == _MBOX_START if kind == _MBOX_START else path.suffix == ".jsonl" and last == b"\n"


def _piece(path: Path, start: int, end: int, body: bytes | None) -> Piece:
    return Piece(
        source=str(path),
        place=Place(path=path, start=start, end=end, next=end),
        received_at=datetime.now(UTC),
        body=body,
        problem="" if body is not None else f"{end - start} bytes are too many for one request (most: {LONGEST})",
    )


def _records(file: IO[bytes], start: int, mark: bytes) -> Iterator[tuple[int, int, bytes | None]]:
    """Give the start, the end and the bytes of each record; `mark` is a line's end and how the next record begins.

    Of a record that is too long, no more than a block is held, and its bytes are None.
    """
    file.seek(start)
    buffer, passed, searched = bytearray(), 0, 0
    while block := file.read(_BLOCK):
        buffer += block
        while (found := buffer.find(mark, searched)) >= 0:
            size = passed + found + 1
            yield start, start + size, bytes(buffer[: found + 1]) if size <= LONGEST else None
            del buffer[: found + 1]
            start, passed, searched = start + size, 0, 0
        searched = max(0, len(buffer) - len(mark) + 1)
        if passed + len(buffer) > LONGEST:
            passed += searched
            del buffer[:searched]
            searched = 0
    if size := passed + len(buffer):
        yield start, start + size, bytes(buffer) if size <= LONGEST else None


def _mail(piece: Piece) -> Piece:
    """Take the line that begins with From off a mail in a box, and the empty line that ends it."""
    if piece.body is None:
        return piece
    first, _, mail = piece.body.partition(b"\n")
    mail = mail.removesuffix(b"\n") if mail.endswith(b"\n\n") else mail
    start = piece.place.start + len(first) + 1
    place = evolve(piece.place, start=start, end=start + len(mail))
    return evolve(piece, body=mail, place=place, received_at=_delivered_at(first))


def _delivered_at(from_line: bytes) -> datetime:
    """Give the time in an mbox's `From ` line, which the mail server wrote; the present where there is none."""
    now = datetime.now(UTC)
    try:
        at = datetime.strptime(" ".join([*from_line.decode("ascii").split()[2:7], "+0000"]), "%a %b %d %H:%M:%S %Y %z")
    except ValueError:
        return now
    return min(at, now)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _identity(path: Path) -> bytes:
    """Give what changes where a file does: its name, its size, and when it was written."""
    try:
        found = path.stat()
    except OSError:
        return f"{path}\n".encode(errors="surrogateescape")
    return f"{path} {found.st_size} {found.st_mtime_ns}\n".encode(errors="surrogateescape")


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
