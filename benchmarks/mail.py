"""What a mail costs, beside what the standard library takes for its bare parse of the same bytes.

First, reading it.

Each mail of a folder is read in turn by our parser (sender, trust, class, thread, body, attachments: a whole event)
and by `email.message_from_bytes` (a tree of parts, nothing decoded), for each round anew. Times are microseconds per
mail: the median of the mails, then the median of the rounds.

  ours       `EmailChannel.parse`
  bare       `email.message_from_bytes`, policy `compat32`
  default    the same with `email.policy.default`
  ratio      ours as a multiple of bare, taken within each round

Then all of it, from SMTP to the commit, in one process that keeps every mail in a SQLite file before it says 250. The
client is another process, and waits for each answer. Medians of the rounds.

  clients    how many connections send at once
  archive    whether the raw mail and its attachments are kept in a folder as well
  mails/s    how many of the mails that process takes in, in a second
  cpu us     its processor time for each, in microseconds
  bare/s     how many of them `email.message_from_bytes` reads in a second, in the same round
  share      mails/s as a share of bare/s, taken within each round
"""

import argparse
import asyncio
import base64
import email
import email.policy
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from intake import lap, post, serve

from convsdk.channels.email import EmailChannel, EmailSettings
from convsdk.core.ports import Request

CLIENTS = (1, 20)
NOW = datetime(2026, 1, 12, 9, tzinfo=UTC)
MAILS = Path(__file__).parent.parent / "tests" / "mail"
CHANNEL = EmailChannel(
    "mail", EmailSettings(address="in-7f3a@shop.example", own=("sales@shop.example",), authserv_id="mx.shop.example")
)
READERS: dict[str, Callable[[bytes], object]] = {
    "ours": lambda raw: CHANNEL.parse(Request(received_at=NOW, body=raw)),
    "bare": email.message_from_bytes,
    "default": lambda raw: email.message_from_bytes(raw, policy=email.policy.default),
}


def grown(raw: bytes, size: int) -> bytes:
    """Give a mail with what another one says and an attachment of `size` bytes."""
    head = b"From: Ann <ann@mail.example>\nSubject: large\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n"
    part = b"Content-Type: application/pdf; name=a.pdf\nContent-Transfer-Encoding: base64\n\n"
    data = base64.encodebytes(b"%PDF" * (size // 4))
    return head + raw.partition(b"\n\n")[2] + b"\n--b\n" + part + data + b"--b--\n"


def medians_us(mails: Sequence[bytes]) -> dict[str, float]:
    """Give the median time of each reader: every mail is read by each of them before the next one."""
    spent: dict[str, list[float]] = {name: [] for name in READERS}
    for raw in mails:
        for name, read in READERS.items():
            started = time.perf_counter()
            read(raw)
            spent[name].append(1e6 * (time.perf_counter() - started))
    return {name: statistics.median(times) for name, times in spent.items()}


def figures(name: str, mails: Sequence[bytes], rounds: int) -> dict[str, object]:
    """Give one row: the medians of the rounds."""
    found = [medians_us(mails) for _ in range(rounds)]
    row = {reader: round(statistics.median(one[reader] for one in found), 1) for reader in READERS}
    ratio = statistics.median(one["ours"] / one["bare"] for one in found)
    return {"mails": name, "count": len(mails), **row, "ratio": round(ratio, 2)}


def intake_figures(mails: Sequence[bytes], rounds: int) -> list[dict[str, object]]:
    """Give a row for each number of clients, without and with an archive; everything is measured in each round."""
    cases = [(clients, has_archive) for clients in CLIENTS for has_archive in (False, True)]
    found: dict[tuple[int, bool], list[tuple[float, float, float]]] = {case: [] for case in cases}
    with ExitStack() as stack:
        servers = {one: stack.enter_context(post(Path(__file__), has_archive=one)) for one in (False, True)}
        for server in servers.values():  # the first mails are not like the others
            lap(server, mails[:40], to=CHANNEL.config.address, clients=4)
        for _ in range(rounds):
            bare = bare_rate(mails)
            for clients, has_archive in cases:
                rate, cpu_us = lap(servers[has_archive], mails, to=CHANNEL.config.address, clients=clients)
                found[clients, has_archive].append((rate, cpu_us, bare))
    return [intake_row(clients, found[clients, has_archive], has_archive=has_archive) for clients, has_archive in cases]


def intake_row(clients: int, laps: Sequence[tuple[float, float, float]], *, has_archive: bool) -> dict[str, object]:
    """Give the medians of some laps: mails a second, processor time for each, mails a second of the bare parse."""
    rate, cpu_us, bare = (round(statistics.median(one)) for one in zip(*laps, strict=True))
    share = statistics.median(one[0] / one[2] for one in laps)
    return {
        "clients": clients,
        "archive": "yes" if has_archive else "no",
        "mails/s": rate,
        "cpu us": cpu_us,
        "bare/s": bare,
        "share": round(share, 3),
    }


def bare_rate(mails: Sequence[bytes]) -> float:
    """Give how many mails the standard library reads in a second."""
    started = time.perf_counter()
    for raw in mails:
        email.message_from_bytes(raw)
    return len(mails) / (time.perf_counter() - started)


def table(rows: Sequence[dict[str, object]]) -> str:
    """Give the rows for people."""
    lines = [[*rows[0]], *([str(value) for value in row.values()] for row in rows)]
    return "\n".join("  ".join(f"{cell:>10}" for cell in line) for line in lines)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="how often everything is measured (20)")
    parser.add_argument("--folder", type=Path, default=MAILS, help="the mails to read (tests/mail)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--archive", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(CHANNEL, options.serve, has_archive=options.archive))
        return
    mails = [file.read_bytes() for file in sorted(options.folder.glob("*.eml"))]
    if not mails:
        parser.error(f"no *.eml in {options.folder}: name a folder with mails")
    rows = [
        figures("as they are", mails, options.rounds),
        figures("with 100 KB", [grown(raw, 100_000) for raw in mails], max(1, options.rounds // 4)),
    ]
    intake = intake_figures(mails, max(1, options.rounds // 2))
    told = json.dumps({"read": rows, "intake": intake}, indent=1)
    print(told if options.json else f"{table(rows)}\n\n{table(intake)}")


if __name__ == "__main__":
    main()
