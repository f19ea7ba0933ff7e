"""The stores: `open_store(url)` gives the one that a URL names."""

from collections.abc import Callable, Mapping

from convsdk.core.storage import Store
from convsdk.errors import ConfigError
from convsdk.store.memory import MemoryStore


def open_store(url: str, *, factories: Mapping[str, Callable[[str], Store]] | None = None) -> Store:
    """Open the store at `url`: `memory:`, `sqlite:///relative`, `sqlite:////absolute`, `postgresql://user@host/name`.

    `factories` adds schemes, as plugins bring them. Raises `ConfigError` for a scheme that nobody brings.
    """
    scheme = url.partition(":")[0]
    known: dict[str, Callable[[str], Store]] = {
        "memory": lambda _: MemoryStore(),
        "sqlite": _open_sqlite,
        "postgresql": _open_postgresql,
        "postgres": _open_postgresql,
    }
    known.update(factories or {})
    if scheme not in known:
        place = url.rpartition("@")[2].partition("?")[0]  # what is around it may be a password
        raise ConfigError(f"no store for {place!r}: use one of {', '.join(sorted(known))}")
    return known[scheme](url)


def _open_sqlite(url: str) -> Store:
    from convsdk.store.sqlite import SqliteStore  # noqa: PLC0415  (only who uses it pays for it)

    path = url.removeprefix("sqlite:///")
    if path == url or not path:
        raise ConfigError(f"{url!r} names no file: write sqlite:///shop.db, or sqlite:////var/lib/shop.db")
    return SqliteStore(path)


def _open_postgresql(url: str) -> Store:
    try:
        from convsdk.store.postgresql import PostgresqlStore  # noqa: PLC0415  (as above, and the extra may be missing)
    except ImportError as error:
        raise ConfigError(
            f"the PostgreSQL store needs its driver ({error}): pip install 'convsdk[postgresql]'"
        ) from None
    return PostgresqlStore(url)
