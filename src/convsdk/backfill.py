"""Historic events by the million: cut into large batches, each kept with a checkpoint, and what cannot be kept found.

`Hub.receive_many` is the way in. Nothing here waits or tries again: what to do about a store that is busy or full is
the caller's decision, and the checkpoint makes a second call go on where the first one ended.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import frozen

from convsdk.core.events import Event, MessageReceived
from convsdk.core.model import Outcome
from convsdk.desk import Received
from convsdk.errors import PermanentError

BATCH_SIZE = 1000
_BATCH_CHARACTERS = 16_000_000


@frozen(kw_only=True)
class Parcel:
    """Events that are kept together or not at all, and the `position` in their source after them.

    For a source that can go on at a position of its own (a byte of a file, a page of an export): after a crash, its
    reader begins at `hub.store.checkpoint(hub.workspace, name)`. `origin` is the caller's, and is handed back. A
    parcel without events moves the position alone.
    """

    events: tuple[Event, ...]
    position: str
    origin: object = None


@frozen(kw_only=True)
class Settled:
    """What became of a parcel: what was decided about its events, or the `error` for which none of them is kept."""

    parcel: Parcel
    received: tuple[Received, ...] = ()
    error: PermanentError | ValueError | None = None


@frozen(kw_only=True)
class Progress:
    """How far a back-fill has come, told after each batch, once that is on disk.

    `done` counts the events that this call has dealt with, `skipped` those that an earlier call had, `outcomes` what
    was decided so far. `settled` is what became of this batch, in order, and `position` the checkpoint after it.
    """

    done: int
    skipped: int
    outcomes: Mapping[Outcome, int]
    settled: tuple[Settled, ...]
    position: str

    @property
    def failed(self) -> tuple[Settled, ...]:
        """Give what of this batch could not be kept, each with its error."""
        return tuple(one for one in self.settled if one.error)


Keep = Callable[[Sequence[Parcel], str], tuple[Received, ...]]
"""Keeps parcels and the position after them, all in one transaction."""


def back_fill(
    keep: Keep, events: Iterable[Event | Parcel], *, checkpoint: str | None, batch_size: int
) -> Iterator[Progress]:
    """Keep all `events`, and tell after each batch how far that has come; events before `checkpoint` are skipped."""
    source = _Source(checkpoint)
    outcomes: Counter[Outcome] = Counter()
    done = 0
    for batch in _batches(source.parcels(events), batch_size):
        settled = tuple(_settle(keep, batch))
        outcomes.update(one.decision.outcome for each in settled for one in each.received)
        done += sum(len(one.events) for one in batch)
        yield Progress(
            done=done, skipped=source.skipped, outcomes=dict(outcomes), settled=settled, position=batch[-1].position
        )


def _settle(keep: Keep, batch: Sequence[Parcel]) -> Iterator[Settled]:
    """Keep a batch; where one of it cannot be kept, keep each half by itself, down to that one."""
    position = batch[-1].position
    try:
        received = iter(keep(batch, position))
    except (PermanentError, ValueError) as error:
        if len(batch) > 1:
            middle = len(batch) // 2
            yield from _settle(keep, batch[:middle])
            yield from _settle(keep, batch[middle:])
            return
        # Where this fails as well, it is not the parcel that is at fault, and the next ones shall not be blamed.
        keep((), position)
        yield Settled(parcel=batch[0], error=error)
        return
    for parcel in batch:
        yield Settled(parcel=parcel, received=tuple(next(received) for _ in parcel.events))


class _Source:
    """Gives parcels: those that the caller made, and one of each other event, whose position is its number."""

    def __init__(self, checkpoint: str | None) -> None:
        self.skipped = 0
        self._checkpoint = checkpoint or "0"

    def parcels(self, events: Iterable[Event | Parcel]) -> Iterator[Parcel]:
        for number, one in enumerate(events, 1):
            if isinstance(one, Parcel):
                yield one
            elif number <= self._before():
                self.skipped = number
            else:
                yield Parcel(events=(one,), position=str(number))

    def _before(self) -> int:
        if not self._checkpoint.isdecimal():
            raise ValueError(
                f"the checkpoint {self._checkpoint!r} is no number of events: another source wrote it under this name"
            )
        return int(self._checkpoint)


def _batches(parcels: Iterable[Parcel], batch_size: int) -> Iterator[list[Parcel]]:
    batch: list[Parcel] = []
    events = characters = 0
    for parcel in parcels:
        batch.append(parcel)
        events += max(len(parcel.events), 1)
        characters += sum(map(_characters, parcel.events))
        if events >= batch_size or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, events, characters = [], 0, 0
    if batch:
        yield batch


def _characters(event: Event) -> int:
    return len(event.text) + len(event.html) if isinstance(event, MessageReceived) else 0
