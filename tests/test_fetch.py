import asyncio
import gzip

import httpx
import pytest

from convsdk.core.ports import Channel
from convsdk.errors import TransientError
from convsdk.fetch import Fetcher
from convsdk.memory import Memory
from convsdk.testing import request

SEAL, LETTER = "https://seals.example/seal.pem?for=1", "memory://letters/one"


class Seconds:
    now = 0.0

    def __call__(self):
        return self.now


class SealedChannel(Channel):
    """Wants a seal, then what the request names, as soon as it has the seal."""

    type = "sealed"

    def __init__(self):
        super().__init__("sealed", None)

    def wants(self, request):
        return (SEAL, request.body.decode()) if request.body and SEAL in request.fetched else (SEAL,)

    def parse(self, request):
        return []


def web(answer=b"seal", status=200, asked=None, **headers):
    """Give a client of a web where every address answers so, and notes what it was `asked`."""

    def reply(incoming):
        if asked is not None:
            asked.append(str(incoming.url))
        if isinstance(answer, Exception):
            raise answer
        headers["location"] = "https://elsewhere.example/"
        return httpx.Response(status, stream=httpx.ByteStream(answer), headers=headers)

    return httpx.AsyncClient(transport=httpx.MockTransport(reply))


def complete(fetcher, body=b""):
    """Give what stands in the completed request, by address."""
    return asyncio.run(fetcher.complete(SealedChannel(), request(body))).fetched


def test_what_is_wanted_is_fetched_round_by_round():
    """What a channel wants once it has the first is fetched as well, of any scheme that is installed."""
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open(LETTER, "wb") as file:
        file.write(b"Dear Ann")

    assert complete(Fetcher(web()), LETTER.encode()) == {SEAL: b"seal", LETTER: b"Dear Ann"}


def test_what_is_small_is_fetched_once_a_day():
    """A certificate is kept for a day, whoever wants it."""
    asked, clock = [], Seconds()
    fetcher = Fetcher(web(asked=asked), clock=clock)

    for clock.now in (0, 86_399, 86_400, 86_401):
        assert complete(fetcher) == {SEAL: b"seal"}

    assert len(asked) == 2


def test_few_are_kept():
    """The oldest makes room, so that nobody fills the memory."""
    asked = []
    fetcher = Fetcher(web(asked=asked))

    for number in range(300):
        complete(fetcher, f"https://seals.example/{number}".encode())
    asked.clear()
    for number in (299, 0):
        complete(fetcher, f"https://seals.example/{number}".encode())

    assert [one for one in asked if one != SEAL] == ["https://seals.example/0"]


@pytest.mark.parametrize(
    ("client", "why"),
    [
        (web(status=404), "it answered 404"),
        (web(status=302), "it answered 302"),
        (web(b"x" * 1_048_577), "it is larger than 1048576 bytes"),
        (web(gzip.compress(b"x" * 100_000_000), **{"content-encoding": "gzip"}), "it is packed, unasked"),
        (web(httpx.ConnectError("no route to 10.0.0.1")), "ConnectError"),
    ],
)
def test_failed_fetch_is_told_without_its_content(client, why):
    """What cannot be fetched can be tried again; no redirect is followed, and the query is not repeated."""
    with pytest.raises(TransientError) as caught:
        complete(Fetcher(client))

    assert f"https://seals.example/seal.pem could not be fetched ({why})" in str(caught.value)
    assert caught.value.retry_after_s == 30


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest/meta-data",
        "HTTPS://seals.example/",
        "file:///etc/hostname",
        "local:///etc/hostname",
        "/etc/hostname",
        "etc/hostname",
        "simplecache::file:///etc/hostname",
        "s3://bucket/key::file:///etc/hostname",
        "memory://letters/one::file:///etc/hostname",
        "data:,seal",
        "",
    ],
)
def test_only_https_and_object_stores_are_asked(address):
    """No channel can have a file of this machine read, or an address of its network asked without TLS."""
    asked = []
    with pytest.raises(TransientError, match="it is neither https nor in an object store"):
        complete(Fetcher(web(asked=asked)), address.encode() or b" ")

    assert asked == [SEAL]


def test_nothing_is_fetched_packed():
    """It is asked for as it is: some bytes could else become gigabytes."""
    found = []

    def reply(incoming):
        found.append(incoming.headers["accept-encoding"])
        return httpx.Response(200, content=b"seal")

    complete(Fetcher(httpx.AsyncClient(transport=httpx.MockTransport(reply))))

    assert found == ["identity"]


def test_mail_in_a_store_does_not_wait_behind_certificates():
    """Forged requests, whose certificate never comes, do not keep an authentic one from its mail."""
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open(LETTER, "wb") as file:
        file.write(b"Dear Ann")

    async def run():
        begun = asyncio.Event()

        async def reply(incoming):
            if incoming.url.path == "/seal.pem":
                return httpx.Response(200, content=b"seal")
            begun.set()
            return await asyncio.Event().wait()

        fetcher = Fetcher(httpx.AsyncClient(transport=httpx.MockTransport(reply)))
        forged = [
            asyncio.create_task(fetcher.complete(SealedChannel(), request(f"https://seals.example/{one}".encode())))
            for one in range(50)
        ]
        await asyncio.wait_for(begun.wait(), 5)
        done = await asyncio.wait_for(fetcher.complete(SealedChannel(), request(LETTER.encode())), 5)
        for one in forged:
            one.cancel()
        await asyncio.gather(*forged, return_exceptions=True)
        return done.fetched[LETTER]

    assert asyncio.run(run()) == b"Dear Ann"


def test_mail_in_a_store_counts_in_the_memory():
    """A mail is not fetched where there is no room for one, and counts as long as its request."""
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open(LETTER, "wb") as file:
        file.write(b"Dear Ann")
    memory, fetcher = Memory(60_000_000, small_bytes=0), Fetcher(web())

    async def run():
        with memory.share() as one, memory.share() as other:
            one.hold(len(LETTER))
            await fetcher.complete(SealedChannel(), request(LETTER.encode()), share=one)
            held = one.held_bytes
            other.hold(10_000_000)
            with pytest.raises(TransientError, match="no memory for it now") as caught:
                await fetcher.complete(SealedChannel(), request(LETTER.encode()), share=one)
            return held, one.held_bytes, caught.value.retry_after_s

    assert asyncio.run(run()) == (len(LETTER) + 8, len(LETTER) + 8, 30)
    assert memory.held_bytes == 0


@pytest.mark.parametrize("address", ["memory://letters/none", "memory://", "oci://x"])
def test_store_that_fails_is_told(address):
    """Whatever a file system raises, the sender comes again."""
    pytest.importorskip("fsspec")
    with pytest.raises(TransientError, match="could not be fetched"):
        complete(Fetcher(web()), address.encode())


def test_channel_that_always_wants_more_is_not_followed_without_end():
    """A channel that names another address at each look is left after some rounds."""

    class Greedy(SealedChannel):
        def wants(self, request):
            return (f"https://seals.example/{len(request.fetched)}",)

    done = asyncio.run(Fetcher(web()).complete(Greedy(), request()))

    assert len(done.fetched) == 4
