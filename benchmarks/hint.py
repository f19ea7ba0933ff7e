"""What one decided and durable hint costs, and its parts: parse, decide, load, write, commit.

Raw arrivals go through the channels and `Hub.receive` into a SQLite file that already holds many contacts, and in turn
into the plainest program with the same durable effect (plain.py), on the same disk. All times are microseconds per
message: the median of a round (p50), then the median of the rounds.

  hint       from parsed events to the commit; decide + load + write + commit
  cpu        the processor time of that
  plain      the same for the plain program
  of plain   our rate as a share of its rate: a disk is loud and quiet by turns, so compare this and not the times

Cases:

  known      an authenticated mail of a sender who wrote before
  new        an authenticated mail of a sender whom nobody knows: makes a contact
  cookie     a chat message that names nobody, under a known cookie
  link       a signed login that joins an account to a known address (it holds no message)
"""

import argparse
import hashlib
import itertools
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime

import jwt
from attrs import frozen
from laps import timed
from limit import address
from plain import Plain, Row

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.channels.email import EmailChannel, EmailSettings
from convsdk.channels.js_identify import JsIdentifyChannel, JsIdentifySettings
from convsdk.core.events import MessageReceived
from convsdk.core.model import Claim, IdentityHint, Outcome, Trust
from convsdk.core.ports import Channel, Request, Secret
from convsdk.core.storage import Result, Transaction
from convsdk.hub import Hub
from convsdk.store.sqlite import SqliteStore

NOW = datetime(2026, 1, 12, 9, tzinfo=UTC)
TEXT = "Hello, could you quote twelve chairs in ash, with a drawing, delivered to Bergen? " * 2
KEY = "a-key-of-the-benchmark-that-has-more-than-32-bytes"
PREFILL_BATCH = 256
COLUMNS = ("hint", "cpu", "plain", "plain cpu", "of plain", "parse", "decide", "load", "write", "commit")

MAIL = EmailChannel("mail", EmailSettings(address="help@shop.example", authserv_id="mx.shop.example"))
CHAT = ChatChannel("chat", ChatSettings())
LOGIN = JsIdentifyChannel("login", JsIdentifySettings(secrets=(Secret(KEY),), audience="convsdk"))


@frozen
class Arrival:
    """One arrival: raw, as its channel gets it, and the row that the plain program makes of it."""

    raw: bytes
    row: Row


@frozen
class Case:
    """One way in: the channel, what must be decided, who writes (out of so many), and what their n-th arrival is."""

    channel: Channel
    outcome: Outcome
    writers: Callable[[int], Iterable[int]]
    arrival: Callable[[int, int], Arrival]


def cookie(contact: int) -> str:
    """Give the cookie of a contact's browser."""
    return hashlib.blake2b(contact.to_bytes(8, "little"), digest_size=16).hexdigest()


def mail(contact: int, number: int) -> Arrival:
    """Give an authenticated mail."""
    sender, name = address(contact), f"{contact}.{number}@mail.example"
    raw = (
        "Received: from mail.example by mx.shop.example with ESMTPS id 4Qx1; Mon, 12 Jan 2026 09:04:02 +0000\r\n"
        f"Authentication-Results: mx.shop.example; dmarc=pass header.from={sender.partition('@')[2]}\r\n"
        f"From: Ben <{sender}>\r\nTo: help@shop.example\r\nDate: Mon, 12 Jan 2026 10:04:00 +0100\r\n"
        f"Subject: Chairs\r\nMessage-ID: <{name}>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{TEXT}\r\n"
    )
    return Arrival(raw.encode(), Row(channel="mail", external_id=name, kind="email", value=sender, text=TEXT))


def chat(contact: int, number: int) -> Arrival:
    """Give a chat message with nothing but its cookie."""
    name, visitor = f"{contact}.{number}", cookie(contact)
    message = {"type": "message", "id": name, "visitor": visitor, "conversation": f"thread-{contact}", "text": TEXT}
    row = Row(channel="chat", external_id=name, kind="visitor", value=visitor, text=TEXT)
    return Arrival(json.dumps(message).encode(), row)


def login(contact: int, number: int) -> Arrival:
    """Give a signed login with an account that nobody has seen."""
    name, visitor, account = f"{contact}.{number}", cookie(contact), f"user-{contact}"
    claims = {"exp": NOW.timestamp() + 300, "aud": "convsdk", "visitor": visitor, "sub": account}
    token = jwt.encode(claims | {"email": address(contact), "email_verified": True}, KEY, algorithm="HS256")
    raw = json.dumps({"id": name, "visitor": visitor, "token": token}).encode()
    row = Row(channel="login", external_id=name, kind="email", value=address(contact), account=account)
    return Arrival(raw, row)


def known(contacts: int, *, odd: int = 0) -> Iterator[int]:
    """Give contacts at random, of those who came by mail (even numbers), or of those who came by chat (odd ones)."""
    pick = random.Random(contacts)
    return (2 * pick.randrange(contacts // 2) + odd for _ in itertools.count())


CASES = {
    "known": Case(MAIL, Outcome.ATTACHED, known, mail),
    "new": Case(MAIL, Outcome.CREATED, itertools.count, mail),
    "cookie": Case(CHAT, Outcome.ANONYMOUS, lambda contacts: known(contacts, odd=1), chat),
    "link": Case(LOGIN, Outcome.LINKED, lambda contacts: range(1, contacts, 2), login),
}


class WatchedStore(SqliteStore):
    """The product's store, with a stopwatch on the parts of its transactions."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.spent = Counter[str]()

    def transact(self, workspace: str, work: Callable[[Transaction], Result]) -> Result:
        def watched(transaction: Transaction) -> Result:
            for name, part in {"load": "load", "load_history": "load", "candidates": "load", "write": "write"}.items():
                setattr(transaction, name, self._watched(getattr(transaction, name), part))
            self.spent["commit"] += time.perf_counter() - start
            result = work(transaction)
            self.spent["commit"] -= time.perf_counter()
            return result

        start = time.perf_counter()
        result = super().transact(workspace, watched)
        self.spent["commit"] += time.perf_counter()
        return result

    def _watched(self, call: Callable[..., object], part: str) -> Callable[..., object]:
        def watched(*given: object) -> object:
            start = time.perf_counter()
            result = call(*given)
            self.spent[part] += time.perf_counter() - start
            return result

        return watched


class Bench:
    """The two programs, each with its file, holding the same contacts."""

    def __init__(self, folder: str, contacts: int) -> None:
        self._plain = Plain(f"{folder}/plain.db")
        self._store = WatchedStore(f"{folder}/convsdk.db")
        self._hub = Hub(self._store)
        for start in range(0, contacts, PREFILL_BATCH):
            self._fill(range(start, min(start + PREFILL_BATCH, contacts)))

    def _fill(self, contacts: range) -> None:
        for channel, odd in (("mail", 0), ("chat", 1)):
            writers = [one for one in contacts if one % 2 == odd]
            self._hub.receive(channel, [first(one, is_mail=not odd) for one in writers])
            self._plain.store(
                Row(channel=channel, external_id=f"first-{one} {kind}", kind=kind, value=value, text=TEXT)
                for one in writers
                for kind, value in (("email", address(one)), ("visitor", cookie(one)))[: 1 + odd]
            )

    def close(self) -> None:
        """Close the product's store."""
        self._hub.close()

    def take(self, case: Case, arrivals: list[Arrival]) -> dict[str, float]:
        """Have both programs store `arrivals`, in one transaction each; give the seconds of each and of the parts."""
        rows = [one.row for one in arrivals]
        requests = [Request(received_at=NOW, body=one.raw) for one in arrivals]
        self._store.spent.clear()

        with timed() as plain:
            self._plain.store(rows)
        with timed() as parse:
            events = [event for request in requests for event in case.channel.parse(request)]
        with timed() as hint:
            received = self._hub.receive(case.channel.name, events)

        assert {one.decision.outcome for one in received} == {case.outcome}, received
        spent = dict(self._store.spent)
        ours = {"hint": hint["wall"], "cpu": hint["cpu"], "decide": hint["wall"] - sum(spent.values())}
        return {"plain": plain["wall"], "plain cpu": plain["cpu"], "parse": parse["wall"]} | ours | spent


def first(contact: int, *, is_mail: bool) -> MessageReceived:
    """Give a contact's first message: by mail, or with an address typed into the chat."""
    claim = Claim("email", address(contact), Trust.CHANNEL if is_mail else Trust.ASSERTED)
    hint = IdentityHint(at=NOW, identifiers=(claim,), visitor=None if is_mail else cookie(contact))
    thread = "" if is_mail else f"thread-{contact}"
    return MessageReceived(external_id=f"first-{contact}", hint=hint, at=NOW, text=TEXT, thread=thread)


def one_round(bench: Bench, case: Case, arrivals: Iterator[Arrival], *, size: int, messages: int) -> dict[str, float]:
    """Give the medians of one round of `messages` in batches of `size`, in microseconds per message."""
    runs = [bench.take(case, list(itertools.islice(arrivals, size))) for _ in range(max(1, messages // size))]
    medians = {part: statistics.median(run[part] for run in runs) / size * 1e6 for part in runs[0]}
    return medians | {"of plain": medians["plain"] / medians["hint"]}


def figures(folder: str, options: argparse.Namespace) -> list[dict[str, str | float]]:
    """Give a row for each case and size of batch. All take turns in each round, so that noise meets all alike."""
    rounds: dict[tuple[str, int], list[dict[str, float]]] = {
        pair: [] for pair in itertools.product(options.cases, options.batches)
    }
    arrivals = {
        name: map(CASES[name].arrival, CASES[name].writers(options.contacts), itertools.count())
        for name in options.cases
    }
    with closing(Bench(folder, options.contacts)) as bench:
        for _ in range(options.rounds):
            for (name, size), done in rounds.items():
                done.append(one_round(bench, CASES[name], arrivals[name], size=size, messages=options.messages))
    return [
        {"case": name, "batch": size}
        | {column: round(statistics.median(one[column] for one in done), 2) for column in COLUMNS}
        for (name, size), done in rounds.items()
    ]


def table(rows: list[dict[str, str | float]]) -> str:
    """Give `rows` as text."""
    head = f"{'case':8}{'batch':>6}" + "".join(f"{column:>10}" for column in COLUMNS)
    lines = [
        f"{row['case']:8}{row['batch']:6}"
        + "".join(f"{row[one]:10.2f}" if one == "of plain" else f"{row[one]:10.0f}" for one in COLUMNS)
        for row in rows
    ]
    return "\n".join([head, *lines])


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contacts", type=int, default=100_000, help="how many are stored first (100000)")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (5)")
    parser.add_argument("--messages", type=int, default=256, help="how many make one figure of a round (256)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64, 256], help="messages to a transaction")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="all, if none is named")
    parser.add_argument("--dir", help="a folder on the disk to measure (that of temporary files)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    logins = options.rounds * sum(max(options.messages, size) for size in options.batches)
    if "link" in options.cases and options.contacts < 2 * logins:
        parser.error(
            f"{logins} logins need --contacts {2 * logins}: half of the contacts came by chat, each logs in once"
        )
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        rows = figures(folder, options)
    print(json.dumps(rows, indent=1) if options.json else table(rows))


if __name__ == "__main__":
    main()
