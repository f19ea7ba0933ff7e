"""The types that users of the public names see. Read by mypy, never run."""

from collections.abc import Iterable, Iterator, Mapping
from typing import assert_type

from litestar import Litestar

from convsdk.backfill import Progress
from convsdk.core.bot import BotState, Expects, advance, expects
from convsdk.core.events import Event
from convsdk.core.flow import Block, Effect, Facts, Flow, Given, Say, Step, Visit
from convsdk.core.model import Identifier, Outcome, Trust
from convsdk.desk import Received
from convsdk.errors import ConvsdkError, PermanentError, TransientError
from convsdk.hub import Hub
from convsdk.ingest import Ingest
from convsdk.outbox import Outbox, hook_targets
from convsdk.plugins import Plugins
from convsdk.rejects import Reject, Rejects
from convsdk.web import create_app


def identifiers(identifier: Identifier) -> None:
    """An identifier is made of text, and kinds of trust compare."""
    assert_type(identifier.kind, str)
    assert_type(identifier.scope, str)
    assert_type(identifier.value, str)
    assert_type(Trust.ASSERTED < Trust.PROVEN, bool)


class Voucher(Block):
    """A block of a plugin needs no types beyond those of its methods."""

    type = "voucher"
    waits_for = "text"

    def enter(self, visit: Visit) -> Iterator[Step]:
        """Say something."""
        assert_type(visit.facts, Facts)
        yield Say("Hello")


def bots(flow: Flow, facts: Facts) -> None:
    """A step of a bot automation gives the new state, and what to carry out."""
    turn = advance(flow, None, Given(kind="opened"), facts)
    assert_type(turn.state, BotState | None)
    assert_type(turn.effects, tuple[Effect, ...])
    assert_type(expects(flow, turn.state), Expects | None)


def errors(error: ConvsdkError) -> None:
    """An error says what the caller can do next."""
    if isinstance(error, TransientError):
        assert_type(error.retry_after_s, float | None)
    if isinstance(error, PermanentError):
        assert_type(error.code, str | None)


def back_fill(hub: Hub, events: Iterable[Event]) -> None:
    """A back-fill tells how far it is, and which events could not be kept."""
    told = hub.receive_many("mail", events, name="archive")
    assert_type(told, Iterator[Progress])
    for progress in told:
        assert_type(progress.outcomes, Mapping[Outcome, int])
        for one in progress.failed:
            assert_type(one.parcel.events, tuple[Event, ...])
            assert_type(one.error, PermanentError | ValueError | None)


async def ingest(ingest: Ingest) -> None:
    """A thread and a coroutine get the same."""
    assert_type(ingest.receive("chat", []), tuple[Received, ...])
    assert_type(await ingest.receive_async("chat", []), tuple[Received, ...])


async def outbox(hub: Hub, plugins: Plugins) -> None:
    """An outbox runs as long as its block; a plugin's hooks are targets."""
    async with Outbox(hub, hook_targets(plugins)) as running:
        assert_type(running, Outbox)
        assert_type(await running.advance(), float)


def web(hub: Hub, rejects: Rejects) -> None:
    """A host gets an ASGI app; what was kept aside can be read."""
    assert_type(create_app(hub), Litestar)
    for name in rejects.ids():
        assert_type(rejects.read(name), Reject)
