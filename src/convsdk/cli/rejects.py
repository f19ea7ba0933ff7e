"""The command `rejects`: what could not be taken in, to look at and to run again."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import httpx

from convsdk.cli.session import Session, common_options, rejects_option
from convsdk.core.ports import Channel, Request
from convsdk.errors import ConfigError, Forbidden, ParseError, TransientError
from convsdk.fetch import Fetcher
from convsdk.hub import Hub
from convsdk.rejects import Reject, Rejects

_COLUMNS = ("id", "channel", "received_at", "bytes", "error")


@click.command
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--retry", "is_retry", is_flag=True, help="Run them again, and remove those that are kept then.")
@rejects_option
@common_options
def rejects(session: Session, *, ids: tuple[str, ...], is_retry: bool, rejects: Path) -> None:
    """List what could not be taken in, and run it again.

    All are meant, or those with an ID, the oldest first. With --retry each is verified and parsed again, as it arrived
    and when it did, and goes into the store. What is refused again stays where it is, and the exit status is 1. What
    was kept before is a duplicate, and no harm.
    """
    kept = Rejects(rejects)
    asked = ids or tuple(kept.ids())
    names = _in_order(session, kept, asked)
    if not is_retry:
        records = (_record(kept.read(name)) for name in names)
        session.screen.table(records, _COLUMNS, empty=f"no rejects in {rejects}")
        return
    retry = _Retry(session)
    taken = sum(retry.run(kept, kept.read(name)) for name in names)
    session.screen.say(f"{taken} of {len(asked)} rejects taken in")
    if taken < len(asked):
        raise click.exceptions.Exit(1)


def _in_order(session: Session, kept: Rejects, ids: Sequence[str]) -> list[str]:
    """Give those of `ids` that can be read, the oldest first: what holds a body is not held in memory."""
    times = {}
    for name in ids:
        try:
            times[name] = kept.read(name).received_at
        except ParseError as error:  # a spoilt file keeps nobody from the others
            session.screen.aside(str(error))
    return sorted(times, key=lambda name: (times[name], name))


def _record(reject: Reject) -> dict[str, Any]:
    """Give what is shown of a reject: nothing that its sender wrote or proved itself with."""
    return {
        "id": reject.id,
        "channel": reject.channel,
        "received_at": reject.received_at,
        "method": reject.method,
        "bytes": len(reject.body),
        "sha256": reject.sha256,
        "error": reject.error,
    }


class _Retry:
    """Runs rejects again, each in the workspace of its channel."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._hubs: dict[str, Hub] = {}

    def run(self, kept: Rejects, reject: Reject) -> bool:
        """Run one again; tell what came of it, and say whether it is in the store and no reject any more."""
        screen = self._session.screen
        outcomes: Counter[str] = Counter()
        problem = self._problem(reject, outcomes)
        if not problem:
            kept.remove(reject)
        if screen.is_json:
            screen.json({"id": reject.id, "channel": reject.channel, "problem": problem, "outcomes": outcomes})
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or "no events"
        screen.say(f"{reject.id}: {problem or told}", style="red" if problem else "")
        return not problem

    def _problem(self, reject: Reject, outcomes: Counter[str]) -> str:
        try:
            hub = self._hub(reject.channel)
            channel = hub.channel(reject.channel)
            events = hub.read(reject.channel, asyncio.run(_completed(channel, reject.request())))
        except (ConfigError, Forbidden, ParseError, TransientError) as error:
            return str(error)
        problems = []
        for progress in hub.receive_many(reject.channel, events):
            outcomes.update(one.decision.outcome.value for each in progress.settled for one in each.received)
            problems += [str(one.error) for one in progress.failed]
        return "; ".join(problems)

    def _hub(self, channel: str) -> Hub:
        workspace = self._session.workspace(channel)
        if workspace not in self._hubs:
            self._hubs[workspace] = self._session.hub(channel=channel)
        return self._hubs[workspace]


async def _completed(channel: Channel, request: Request) -> Request:
    async with httpx.AsyncClient() as client:
        return await Fetcher(client).complete(channel, request)
