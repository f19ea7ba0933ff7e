"""Memory: does a bulk load stay flat however much is loaded?

Run as a program, it loads `messages` into the store at `url` and prints what that took as JSON: memory is measured in a
process that does nothing else.

    bulk.py URL MESSAGES
"""

import json
import resource
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import prefill
from contestants import Name
from laps import Lap, timed
from limit import address
from places import Place, PostgresqlDatabase, SqliteFile
from server import Server

from convsdk.core.events import MessageReceived
from convsdk.hub import Hub

WHO = "`Hub.receive_many`"
WRITERS = 50_000  # of the messages of a load: most are of people who wrote before in it


def load(hub: Hub, events: Iterable[MessageReceived]) -> None:
    """Load `events` by the way that the product has for many."""
    for _progress in hub.receive_many(prefill.CHANNEL, events):
        pass


def events(messages: int) -> Iterator[MessageReceived]:
    """Give messages, one after the other: none is kept here."""
    for number in range(messages):
        at = prefill.START + timedelta(seconds=number)
        yield prefill.mail(address(1 + number % WRITERS), f"bulk-{number}", at)


def resident_mib() -> float:
    """Give the most memory that this process has had at a time."""
    status = Path("/proc/self/status")
    if status.exists():  # the other figure starts with that of the parent
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 1024


def bulk(folder: Path, options: Namespace, server: Server | None) -> dict[Name, list[Lap]]:
    """Give a load of each size, in a process and a database of its own. Memory is no matter of noise: one round."""
    laps = {}
    for messages in options.loads:
        places: dict[str, Place] = {"SQLite": SqliteFile(folder / f"bulk-{messages}.db")}
        if server:
            places["PostgreSQL"] = PostgresqlDatabase(server.create(f"convsdk_bench_bulk_{messages}"))
        for store, place in places.items():
            name = Name(store=store, who=WHO, what=loading(messages))
            laps[name] = [_loaded(place, messages)]
    return laps


def loading(messages: int) -> str:
    """Name the row of a load."""
    return f"load {messages:,} messages"


def _loaded(place: Place, messages: int) -> Lap:
    program = [sys.executable, __file__, place.url, str(messages)]
    done = json.loads(subprocess.run(program, check=True, stdout=subprocess.PIPE).stdout)
    with closing(place):
        stored = place.count("message")
    assert stored == messages, f"{stored} messages are stored, not {messages}"
    return Lap(messages=messages, **done)


def main() -> None:
    """Load, and say what it took."""
    url, messages = sys.argv[1], int(sys.argv[2])
    with closing(Hub(url)) as hub, timed() as spent:
        load(hub, events(messages))
    print(json.dumps({"wall_s": spent["wall"], "cpu_s": spent["cpu"], "rss_mib": resident_mib()}))


if __name__ == "__main__":
    main()
