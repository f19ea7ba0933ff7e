import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import standardwebhooks
from receiver import Receiver

from convsdk import webhook
from convsdk.config import WebhookConfig
from convsdk.core.events import Notice
from convsdk.core.ports import Secret
from convsdk.core.storage import Batch
from convsdk.errors import ConvsdkError, PermanentError, TransientError
from convsdk.hub import Hub
from convsdk.outbox import Gone, Outbox, Target
from convsdk.testing.builders import NOON, FakeClock
from convsdk.webhook import Webhook

SECRETS = tuple(f"whsec_{letter * 32}" for letter in "AB")
NOTICE = Notice(id=7, type="contact.created", at=NOON, payload={"contact": 3, "how": "chat form ☂"})
WORDS = b"HTTP/1.1 400 Ann's own words\r\nconnection: close\r\ncontent-length: 15\r\n\r\nAnn's own words"


def settings(url, secrets=SECRETS[:1], **fields):
    """Give the settings of a webhook."""
    return WebhookConfig(url=url, secrets=tuple(map(Secret, secrets)), **fields)


def tell(url, *, notice=NOTICE, transport=None, clock=lambda: datetime.now(UTC), **fields):
    """Tell the receiver at `url` once."""

    async def once():
        async with httpx.AsyncClient(transport=transport) as client:
            await Webhook("crm", settings(url, **fields), client=client, clock=clock).tell(notice)

    asyncio.run(once())


def answering(status, **headers):
    """Give a receiver that answers so, in place of the network."""
    return httpx.MockTransport(lambda request: httpx.Response(status, headers=headers))


def test_receiver_verifies_what_it_is_told():
    """The request verifies with the Standard Webhooks library, and says what happened, and when."""
    with Receiver() as receiver:
        tell(receiver.url)
        (delivery,) = receiver.wait_for(1)

    assert delivery.read(SECRETS[0]) == {
        "type": "contact.created",
        "timestamp": "2026-01-01T12:00:00+00:00",
        "data": {"contact": 3, "how": "chat form ☂"},
    }
    assert delivery.path == "/hook"
    assert delivery.headers["webhook-id"] == "default_7"
    assert delivery.headers["content-type"] == "application/json"


def test_either_of_two_secrets_verifies():
    """While a secret is rotated, a receiver with the old one and a receiver with the new one are both content."""
    with Receiver() as receiver:
        tell(receiver.url, secrets=SECRETS)
        (delivery,) = receiver.wait_for(1)

    assert delivery.read(SECRETS[0]) == delivery.read(SECRETS[1])


def test_forged_body_does_not_verify():
    """The signature is of the body, the id and the time, and of no other."""
    with Receiver() as receiver:
        tell(receiver.url)
        (delivery,) = receiver.wait_for(1)

    for forged in (
        {"webhook-id": "default_8"},
        {"webhook-timestamp": str(int(delivery.headers["webhook-timestamp"]) + 1)},
    ):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(SECRETS[0]).verify(delivery.body, dict(delivery.headers) | forged)


def test_copy_that_is_posted_later_does_not_verify():
    """A receiver that keeps the specification's window of five minutes refuses an old copy, and takes our next try."""
    began = datetime.now(UTC)
    with Receiver() as receiver:
        tell(receiver.url, clock=lambda: began - timedelta(minutes=6))
        tell(receiver.url, clock=lambda: began)
        copy, again = receiver.wait_for(2)

    with pytest.raises(standardwebhooks.WebhookVerificationError, match="too old"):
        copy.read(SECRETS[0])
    assert again.read(SECRETS[0])["type"] == "contact.created"
    assert again.headers["webhook-id"] == copy.headers["webhook-id"]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_taken(status):
    """Any 2xx says that the receiver has taken it."""
    tell("https://crm.example/", transport=answering(status))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, TransientError) for status in (408, 425, 429, 500, 502, 503, 504)),
        *((status, PermanentError) for status in (301, 302, 304, 307, 400, 401, 403, 404, 413, 422)),
        (410, Gone),
    ],
)
def test_status_says_what_to_do(status, error):
    """What passes by itself, what somebody has to mend, and what is over are three errors."""
    with pytest.raises(error, match=rf"^webhook 'crm' answered {status}$") as raised:
        tell("https://crm.example/", transport=answering(status, location="https://elsewhere.example/"))

    assert raised.type is error


@pytest.mark.parametrize(
    ("given", "pause_s"),
    [
        ("7", 7),
        ("0", 0),
        ("Thu, 01 Jan 2026 12:02:00 GMT", 120),
        ("Thu, 01 Jan 2026 12:02:00", 120),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0),
        ("99999999999999999999", 86_400),
        ("9" * 400, None),
        ("Thu, 01 Jan 2999 11:00:00 GMT", 86_400),
        ("soon", None),
        ("-5", None),
        ("\u00b2", None),
        ("", None),
    ],
)
def test_retry_after_is_read(given, pause_s):
    """Seconds and dates count, up to a day; anything else is as if it were not there."""
    transport = httpx.MockTransport(lambda request: httpx.Response(503, headers=[("retry-after", given.encode())]))

    with pytest.raises(TransientError) as raised:
        tell("https://crm.example/", transport=transport, clock=FakeClock())

    assert raised.value.retry_after_s == pause_s


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0" * 1000,
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 999999 Yes\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\n" + b"a: " + b"b" * 1_000_000,
    ],
    ids=lambda answer: f"{answer[:12]!r}",
)
def test_garbage_answer_is_tried_again(answer):
    """What is no HTTP is as no answer: the receiver may have taken it, and is told again."""
    with Receiver(answer) as receiver, pytest.raises(TransientError, match="gave no answer"):
        tell(receiver.url)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n" + b"a" * 1_000_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno chunk",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ],
    ids=lambda answer: f"{answer[16:40]!r}",
)
def test_body_of_an_answer_changes_nothing(answer, monkeypatch):
    """A body without an end, one that never comes, or one that is garbage: the head said 200."""
    monkeypatch.setattr(webhook, "_BODY_S", 0.2)
    with Receiver(answer) as receiver:
        tell(receiver.url)


def test_hanging_receiver_is_not_waited_for_without_end(monkeypatch):
    """A receiver that takes the request and answers nothing gets its time, and no more."""
    monkeypatch.setattr(webhook, "_ANSWER_S", 0.1)
    gone = threading.Event()
    with Receiver(lambda: gone.wait(5) and b"") as receiver, pytest.raises(TransientError, match="gave no answer"):
        tell(receiver.url)
    gone.set()


def test_no_error_shows_the_address_or_what_was_said():
    """Neither the path and query of the URL, nor the secret, nor the receiver's words are in an error."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Receiver(WORDS) as receiver:
        errors = []
        for url in (f"{receiver.url}?token=t0k3n", f"http://127.0.0.1:{port}/t0k3n", "https://t0k3n.invalid:1/"):
            with pytest.raises(ConvsdkError) as raised:
                tell(url)
            errors.append(raised.value)

    told = " ".join(f"{one!r} {one.__cause__!r}" for one in errors)
    assert "answered 400" in told
    assert not any(word in told for word in ("t0k3n", "Ann", SECRETS[0], "whsec"))
    assert "hook" not in repr(settings(receiver.url)).replace("WebhookConfig", "")


def test_killed_after_the_answer_tells_again_under_the_same_id(tmp_path):
    """A process that dies between a receiver's answer and writing its position down loses nothing."""
    url = f"sqlite:///{tmp_path}/shop.db"
    with Receiver() as receiver:
        killed = run_script(url, receiver.url, kill_at=2)
        ended = run_script(url, receiver.url, kill_at=0)
        deliveries = receiver.wait_for(4)

    assert (killed, ended) == (-signal.SIGKILL, 0)
    told = [(one.headers["webhook-id"], json.loads(one.body)["data"]["number"]) for one in deliveries]
    assert [number for _, number in told] in ([0, 1, 1, 2], [0, 1, 0, 1, 2])
    assert len(set(told)) == 3
    assert all(one.read(SECRETS[0]) for one in deliveries)


def run_script(store, url, *, kill_at):
    """Run this file, which tells what is in `store`, and kills itself after so many answers; give its exit code."""
    command = [sys.executable, __file__, store, url, str(kill_at)]
    return subprocess.run(command, timeout=30, check=False).returncode


async def deliver(store, url, kill_at):
    """Write three notices where there are none, and tell all."""
    with closing(Hub(store)) as hub:
        if not hub.store.notices(hub.workspace, since=0, limit=1):
            notices = [Notice(id=n + 1, type="kit", at=NOON, payload={"number": n}) for n in range(3)]
            hub.store.transact(hub.workspace, lambda transaction: transaction.write(Batch(notices=notices)))
        answered = 0
        async with httpx.AsyncClient() as client:
            receiver = Webhook("crm", settings(url), client=client)

            async def tell_and_die(notice):
                nonlocal answered
                await receiver.tell(notice)
                answered += 1
                if answered == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

            await Outbox(hub, [Target(name="webhook/crm", tell=tell_and_die, is_told_all=True)]).advance()


if __name__ == "__main__":
    asyncio.run(deliver(sys.argv[1], sys.argv[2], int(sys.argv[3])))
