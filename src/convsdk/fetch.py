"""Fetches what a channel wants before it looks at a request: a certificate, a mail that lies in a bucket.

https addresses by the one client that is handed in, those of object stores (`s3://bucket/key`) by fsspec, where it is
installed, and no others: fsspec would read this machine's own files, and any address of its network, as well.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

import httpx
from attrs import evolve

from convsdk.core.ports import Channel, Request
from convsdk.errors import TransientError
from convsdk.memory import Memory, Share

_MOST_ROUNDS = 4
_MOST_AT_ONCE = 8
_HTTPS_S, _STORED_S = 10.0, 60.0
_HTTPS_BYTES, _STORED_BYTES = 1_048_576, 41_943_040
_STORES = {"abfs", "az", "gcs", "gs", "memory", "oci", "oss", "s3"}
_PLAIN = {"accept-encoding": "identity"}  # what is packed could be a thousand times as large
_KEPT, _KEPT_S, _KEPT_BYTES = 256, 86_400.0, 65_536
_LARGE_BYTES = 65_536
_RETRY_S = 30.0


class Fetcher:
    """Fetches by `client`, and keeps what is small, such as a certificate, for a day. `clock` is in seconds."""

    def __init__(self, client: httpx.AsyncClient, *, clock: Callable[[], float] = monotonic) -> None:
        self._client = client
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        # Whoever forges requests can have certificates looked for: a mail in a store does not wait behind them.
        self._web_places = asyncio.Semaphore(_MOST_AT_ONCE)
        self._store_places = asyncio.Semaphore(_MOST_AT_ONCE)

    async def complete(self, channel: Channel, request: Request, *, share: Share | None = None) -> Request:
        """Give `request` with all that `channel` wants in `fetched`.

        `share` is what the request has of a memory (None: one of its own), where a mail from a store counts as well.
        Raises `TransientError` where something could not be fetched; its text is for the operator's log.
        """
        share = share or Share(Memory(0, small_bytes=0))
        for _ in range(_MOST_ROUNDS):
            # It may parse: a large body would keep all other requests of the process waiting.
            is_large = len(request.body) > _LARGE_BYTES
            wanted = await asyncio.to_thread(channel.wants, request) if is_large else channel.wants(request)
            missing = [address for address in wanted if address not in request.fetched]
            if not missing:
                return request
            found = {address: await self._fetch(channel, address, share) for address in missing}
            request = evolve(request, fetched={**request.fetched, **found})
        return request

    async def _fetch(self, channel: Channel, address: str, share: Share) -> bytes:
        at, content = self._kept.get(address, (0.0, b""))
        if address in self._kept and self._clock() - at < _KEPT_S:
            return content
        is_web = address.startswith("https://")
        try:
            async with asyncio.timeout(_HTTPS_S if is_web else _STORED_S):
                content = await (self._from_web(address) if is_web else self._from_store(address, share))
        except Exception as error:  # noqa: BLE001  (whatever some file system raises: its sender comes again)
            what = address.partition("?")[0]  # the query can be what confirms something
            why = str(error) if isinstance(error, _UnfetchedError) else type(error).__name__
            raise TransientError(
                f"channel {channel.name!r}: {what} could not be fetched ({why}): see that it can be reached from here",
                retry_after_s=_RETRY_S,
            ) from None
        if is_web and len(content) <= _KEPT_BYTES:
            self._keep(address, content)
        return content

    def _keep(self, address: str, content: bytes) -> None:
        self._kept[address] = (self._clock(), content)
        self._kept.move_to_end(address)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    async def _from_web(self, address: str) -> bytes:
        content = bytearray()
        asked = self._client.stream("GET", address, headers=_PLAIN, follow_redirects=False, timeout=_HTTPS_S)
        async with self._web_places, asked as response:
            if not response.is_success:
                raise _UnfetchedError(f"it answered {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _UnfetchedError("it is packed, unasked")
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _HTTPS_BYTES:
                    raise _UnfetchedError(f"it is larger than {_HTTPS_BYTES} bytes")
        return bytes(content)

    async def _from_store(self, address: str, share: Share) -> bytes:
        if address.partition("://")[0] not in _STORES or "::" in address:  # in `a::b`, fsspec sees two places
            raise _UnfetchedError("it is neither https nor in an object store")
        async with self._store_places:
            before, content = share.held_bytes, b""
            # How large it is shows when it has come.
            if not share.has_room(before + _STORED_BYTES):
                raise _UnfetchedError("there is no memory for it now, beside the other requests under way")
            share.hold(before + _STORED_BYTES)
            try:
                content = await asyncio.to_thread(_stored, address)
            finally:
                share.hold(before + len(content))
        return content


class _UnfetchedError(Exception):
    """Something could not be fetched; the text says why, and holds nothing of its content."""


def _stored(address: str) -> bytes:
    try:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415  (only who keeps mail in a store needs it)
    except ImportError:
        raise _UnfetchedError("pip install 'convsdk[archive]' and what its scheme needs, such as s3fs") from None
    try:
        with fsspec.open(address, "rb") as file:
            content: bytes = file.read(_STORED_BYTES + 1)
    except ImportError as error:
        raise _UnfetchedError(str(error)) from None
    if len(content) > _STORED_BYTES:
        raise _UnfetchedError(f"it is larger than {_STORED_BYTES} bytes")
    return content
