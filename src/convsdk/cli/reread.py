"""The command `reread`: archived requests, read again with the code and the settings of today."""

from collections import Counter
from datetime import datetime

import attrs
import click

from convsdk.cli.screen import plain
from convsdk.cli.session import Session, common_options
from convsdk.reread import Fate
from convsdk.reread import reread as read_again

_ORDER = (Fate.RENEWED, Fate.NEW, Fate.UNCHANGED, Fate.COPY, Fate.UNREADABLE)


@click.command
@click.argument("channel")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="From that day (UTC) on.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Only say what would change.")
@common_options
def reread(session: Session, *, channel: str, since: datetime | None, is_dry: bool) -> None:
    """Read what the archive holds of CHANNEL again, with the code and the settings of today.

    A message that is in the store gets its text, HTML, attachments and detail anew; its person, conversation and
    status stay. One that is missing is taken in. What cannot be read stays in the archive and is told on standard
    error, and the exit status is 1. A second run changes nothing; one that was stopped can be started again.
    """
    fates: Counter[Fate] = Counter()
    fields: Counter[str] = Counter()
    hub = session.hub(channel=channel)
    for one in read_again(hub, channel, since=since.date() if since else None, is_dry=is_dry):
        fates[one.fate] += 1
        fields.update(one.fields)
        if session.screen.is_json:
            session.screen.json(plain(attrs.asdict(one)))
        if one.problem:
            session.screen.aside(f"{one.name}: {one.problem}")
    told = ", ".join(f"{fates[fate]} {fate.value}" for fate in _ORDER if fates[fate]) or "nothing"
    changed = ", ".join(f"{name} of {count}" for name, count in sorted(fields.items()))
    session.screen.say(
        f"{fates.total()} events{' (dry run)' if is_dry else ''}: {told}{f'; {changed}' if changed else ''}"
    )
    if fates[Fate.UNREADABLE]:
        raise click.exceptions.Exit(1)
