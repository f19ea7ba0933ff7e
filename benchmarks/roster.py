"""Who takes part on a store: databases with the same contacts for everybody, made and closed again."""

import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import limit
import prefill
from attrs import evolve
from contestants import Contestant, Django, Limit, Name, OneByOne, Orm, Tasks, Threads
from places import Place, PostgresqlDatabase, SqliteFile
from server import Server

from convsdk.hub import Hub

BATCH = 64
DJANGO_CALLERS = 8  # on PostgreSQL, beside one: threads of one process, as of a worker of a web server

LIMIT = Name(store="", who="limit, one at a time")
LIMIT_BATCH = Name(store="", who=f"limit, batches of {BATCH}")
ONE = Name(store="", who="`Hub.receive`, one at a time")
TASKS = Name(store="", who="`Ingest`, asyncio tasks")
THREADS = Name(store="", who="`Ingest`, threads")
DJANGO = Name(store="", who="Django, one caller")
DJANGO_THREADS = Name(store="", who=f"Django, {DJANGO_CALLERS} threads")


def sqlite(folder: Path, options: Namespace, closing: ExitStack) -> Iterator[Contestant]:
    """Give those who take part on SQLite: SQLite has one writer, so Django has one caller."""
    path = folder / "limit.db"
    limit.Sqlite.prefill(str(path), options.contacts)
    if options.has_django:
        from peers import django_orm  # noqa: PLC0415  (it may be missing)

        copy = shutil.copy(path, folder / "django.db")
        orm = django_orm.DjangoOrm("sqlite", django_orm.sqlite(str(copy)))
        yield _django(orm, evolve(DJANGO, store="SQLite"), SqliteFile(copy), options)
    store = limit.Sqlite(str(path))
    closing.callback(store.connection.close)
    yield from _limits(store, "SQLite", SqliteFile(path), options)
    yield from _ours(SqliteFile(folder / "convsdk.db"), "SQLite", options, closing)


def postgresql(server: Server, options: Namespace, closing: ExitStack) -> Iterator[Contestant]:
    """Give those who take part on PostgreSQL."""
    url = server.create("convsdk_bench_limit")
    limit.Postgresql.prefill(url, options.contacts)
    if options.has_django:
        from peers import django_orm  # noqa: PLC0415  (it may be missing)

        copy = server.create("convsdk_bench_django", template="convsdk_bench_limit")
        place = _database(copy, closing)
        orm = django_orm.DjangoOrm("postgresql", django_orm.postgresql(copy))
        yield _django(orm, evolve(DJANGO, store="PostgreSQL"), place, options)
        yield _django(orm, evolve(DJANGO_THREADS, store="PostgreSQL"), place, options, callers=DJANGO_CALLERS)
    store = limit.Postgresql(url)
    closing.callback(store.connection.close)
    yield from _limits(store, "PostgreSQL", _database(url, closing), options)
    yield from _ours(_database(server.create("convsdk_bench_ours"), closing), "PostgreSQL", options, closing)


def _database(url: str, closing: ExitStack) -> PostgresqlDatabase:
    place = PostgresqlDatabase(url)
    closing.callback(place.close)
    return place


def _limits(store: limit.Sqlite | limit.Postgresql, on: str, place: Place, options: Namespace) -> Iterator[Contestant]:
    yield Limit(store, evolve(LIMIT, store=on), place, size=1, portion=options.portion)
    yield Limit(store, evolve(LIMIT_BATCH, store=on), place, size=BATCH, portion=BATCH * options.portion // 16)


def _ours(place: Place, on: str, options: Namespace, closing: ExitStack) -> Iterator[Contestant]:
    prefill.contacts(place, options.contacts)
    hub = Hub(place.url)
    closing.callback(hub.close)
    yield OneByOne(hub, evolve(ONE, store=on), place, portion=options.portion)
    for kind, name in ((Tasks, TASKS), (Threads, THREADS)):
        portion = options.portion // 8 * options.callers
        yield kind(hub, evolve(name, store=on), place, portion=portion, callers=options.callers)


def _django(orm: Orm, name: Name, place: Place, options: Namespace, *, callers: int = 1) -> Contestant:
    return Django(orm, name, place, portion=options.portion // 4 * callers, callers=callers)
