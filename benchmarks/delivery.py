"""Delivery: how many messages a second go out, against a bare httpx loop over the same connections.

    delivery.py [--messages N] [--rounds N] [--store URL] [--marked] [--json]

The server is a process of its own and answers at once. Both send the same requests, as many at a time; ours come from
the store, and what became of each is on disk before the next of its conversation goes. Rounds alternate. The server
counts: a lap with one request too few or too many ends the run. With --marked the server knows no token again, so that
each message is written down before it goes as well, which is what Messenger needs.

  ours, bare   messages a second
  ratio        ours as a share of bare, taken within each round
  cpu          the same of what a second of the processor sends: on a machine that is busy with something else, the
               clock says more about that than about us
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
from attrs import frozen

from convsdk.core.events import Event, MessageReceived
from convsdk.core.model import Claim, Direction, IdentityHint, Message, Trust
from convsdk.core.ports import Capabilities, Channel, Outbound, Receipt, Request
from convsdk.core.storage import Batch, Delivery, Transaction
from convsdk.delivery import Deliverer
from convsdk.hub import Hub

AT_A_TIME = 16
CONVERSATIONS = 100
TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
HEAD_END = b"\r\n\r\n"


@frozen(kw_only=True)
class Settings:
    """Where the server is."""

    url: str


class Posting(Channel):
    """Posts the text to a server that knows a token again."""

    type = "posting"
    settings = Settings
    can = Capabilities(sends=True, is_idempotent=True)

    def parse(self, request: Request) -> list[Event]:  # noqa: ARG002  (nothing comes in)
        """Give nothing: this one only sends."""
        return []

    def build(self, message: Outbound) -> httpx.Request:
        """Give the request that the bare loop makes as well."""
        return request_of(self.config.url, message.text, message.token)

    def interpret(self, response: httpx.Response) -> Receipt:
        """Read nothing but the status."""
        response.raise_for_status()
        return Receipt()


class MarkedPosting(Posting):
    """Posts to a server that takes everything for new, and echoes it."""

    can = Capabilities(sends=True, echoes=True)


def request_of(url: str, text: str, token: str) -> httpx.Request:
    """Give the request that carries a message."""
    return httpx.Request("POST", url, json={"to": "ann@shop.example", "text": text, "token": token})


async def serve() -> None:
    """Answer every request at once, a GET with how many others there were; print the port first."""
    posts = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal posts
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(HEAD_END)).lower()
                if head.startswith(b"get"):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n%9d" % posts)
                    continue
                await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
                posts += 1
                writer.write(TAKEN)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run the server in a process of its own, and give its URL."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/"
        finally:
            process.kill()


@frozen
class Lap:
    """How many messages went in a second, and in one of the processor."""

    rate: float
    cpu_rate: float

    @classmethod
    def since(cls, started: tuple[float, float], messages: int) -> "Lap":
        """Give the lap that ends now."""
        now = moment()
        return cls(messages / (now[0] - started[0]), messages / (now[1] - started[1]))


def moment() -> tuple[float, float]:
    """Give the time, by the clock and by the processor."""
    return time.perf_counter(), time.process_time()


async def bare(url: str, messages: int) -> Lap:
    """Send that many, by as many tasks as a channel has."""
    numbers = iter(range(messages))

    async def send(client: httpx.AsyncClient) -> None:
        for number in numbers:
            response = await client.send(request_of(url, f"message {number}", f"{number:026}"))
            response.raise_for_status()

    async with httpx.AsyncClient() as client:
        started = moment()
        await asyncio.gather(*(send(client) for _ in range(AT_A_TIME)))
        return Lap.since(started, messages)


async def ours(hub: Hub, messages: int) -> Lap:
    """Queue that many, and deliver them."""
    queue(hub, messages)
    before = hub.delivered["posting", "sent"]
    async with httpx.AsyncClient() as client:
        started = moment()
        async with Deliverer(hub, client, concurrency=AT_A_TIME, poll_s=0.02):
            # Counted once that is on disk. To ask the store itself would cost as much as some of the deliveries.
            while hub.delivered["posting", "sent"] < before + messages:  # noqa: ASYNC110  (a counter tells nothing)
                await asyncio.sleep(0.01)
            return Lap.since(started, messages)


def queue(hub: Hub, messages: int) -> None:
    """Queue answers to conversations in turn, all in one transaction: that is not what is measured."""
    now = datetime.now(UTC)
    talks = [one.id for one in hub.conversations(limit=CONVERSATIONS)]

    def work(transaction: Transaction) -> None:
        ids = transaction.new_ids()
        batch = Batch()
        for number in range(messages):
            message = Message(
                id=next(ids),
                conversation=talks[number % len(talks)],
                channel="posting",
                external_id=f"out/{now.timestamp()}/{number}",
                direction=Direction.OUTBOUND,
                at=now,
                text=f"message {number}",
                status="queued",
                detail={"by": "kim", "token": f"{number:026}"},
            )
            batch.messages.append(message)
            batch.deliveries[message.id] = Delivery(
                message=message.id, conversation=message.conversation, channel="posting", due_at=now, put_off_at=now
            )
        transaction.write(batch)

    hub.store.transact(hub.workspace, work)


def people(hub: Hub) -> None:
    """Let everybody write once."""
    now = datetime.now(UTC)
    hub.receive(
        "posting",
        [
            MessageReceived(
                external_id=f"in/{number}",
                hint=IdentityHint(at=now, identifiers=(Claim("email", f"p{number}@shop.example", Trust.CHANNEL),)),
                at=now,
            )
            for number in range(CONVERSATIONS)
        ],
    )


def counted(url: str, options: argparse.Namespace, lap: Coroutine[None, None, Lap]) -> Lap:
    """Run a lap, and end the program where the server got more or fewer requests than there are messages."""
    before = int(httpx.get(url).text)
    found = asyncio.run(lap)
    if (posts := int(httpx.get(url).text) - before) != options.messages:
        raise SystemExit(f"{posts} requests for {options.messages} messages: this lap measured something else")
    return found


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Give the medians of both, in messages a second, and the median of the ratios of the rounds."""
    with server() as url, tempfile.TemporaryDirectory() as folder:
        store = options.store or f"sqlite:///{Path(folder) / 'delivery.db'}"
        kind = MarkedPosting if options.marked else Posting
        with contextlib.closing(Hub(store, channels=[kind("posting", Settings(url=url))])) as hub:
            people(hub)
            rates = [
                (counted(url, options, bare(url, options.messages)), counted(url, options, ours(hub, options.messages)))
                for _ in range(options.rounds)
            ]
    return {
        "bare": statistics.median(one.rate for one, _ in rates),
        "ours": statistics.median(one.rate for _, one in rates),
        "ratio": statistics.median(ours.rate / bare.rate for bare, ours in rates),
        "cpu": statistics.median(ours.cpu_rate / bare.cpu_rate for bare, ours in rates),
    }


def main() -> None:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=3000, help="how many go in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--store", help="an empty store; default: a fresh SQLite file")
    parser.add_argument("--marked", action="store_true", help="to a platform that knows no token again")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    found = measure(options)
    rates = f"{found['ours']:.0f} messages/s, bare httpx {found['bare']:.0f}"
    told = f"{rates}: {found['ratio']:.2f} of it, {found['cpu']:.2f} by the processor's time"
    print(json.dumps(found) if options.json else told)


if __name__ == "__main__":
    main()
