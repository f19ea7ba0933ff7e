#!/usr/bin/env python3
"""Open event streams on one process: what memory each takes, and how soon all of them hear of something new.

The baseline is the barest ASGI app with an event stream, on the same server, held by the same clients.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

_CONFIG = 'store = "sqlite:///streams.db"\n[channels.chat]\ntype = "chat"\n'
_SERVE = "from convsdk.cli import main; main()"
_BARE = """
import asyncio, json, socket, sys
import uvicorn

streams = []

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/tell":
        for queue in streams:
            queue.put_nowait(b"event: changed\\ndata: {}\\n\\n")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        return await send({"type": "http.response.body", "body": b""})
    streams.append(queue := asyncio.Queue())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"event: ready\\ndata: {}\\n\\n", "more_body": True})
    while True:
        await send({"type": "http.response.body", "body": await queue.get(), "more_body": True})

listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
print(json.dumps({"url": f"http://127.0.0.1:{listening.getsockname()[1]}"}), flush=True)
uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listening])
"""


@contextmanager
def _serving(*command: str) -> Iterator[tuple[int, int]]:
    """Run a server in an empty folder; give its process and its port."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "convsdk.toml").write_text(_CONFIG)
        process = subprocess.Popen(
            [sys.executable, "-c", *command],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout
        try:
            yield process.pid, int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
        finally:
            process.kill()
            process.wait()


def _memory_kib(process: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1])


async def _request(port: int, text: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.replace("\n", "\r\n").encode())
    answer = await reader.read()
    writer.close()
    return answer


def _address(number: int) -> str:
    """Give where a visitor comes from, as behind a proxy: one address is never so many visitors."""
    return f"10.0.{number // 250}.{number % 250}"


async def _write(port: int, number: int, cookie: str = "") -> str:
    """Write one message as visitor `number`, and give the cookie that its browser has then."""
    body = json.dumps({"id": f"m{time.monotonic_ns()}", "text": "Hello"})
    answer = await _request(
        port,
        f"POST /widget/chat/messages HTTP/1.1\nHost: shop.example\nX-Forwarded-For: {_address(number)}\n"
        f"Content-Type: application/json\nContent-Length: {len(body)}\nCookie: {cookie}\nConnection: close\n\n{body}",
    )
    found = re.search(rb"set-cookie: ([^;]+)", answer)
    assert found, answer
    return found[1].decode()


class _Listener:
    """One open stream, and when it last heard of something new."""

    def __init__(self) -> None:
        self.heard_at = 0.0
        self.heard = asyncio.Event()

    async def open(self, port: int, path: str, cookie: str, number: int) -> None:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", port)  # kept: it would close when forgotten
        fields = f"Host: shop.example\r\nX-Forwarded-For: {_address(number)}\r\nCookie: {cookie}"
        self._writer.write(f"GET {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode())
        await reader.readuntil(b"event: ready")
        self._task = asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            if line.startswith(b"event: changed"):
                self.heard_at = time.perf_counter()
                self.heard.set()


@asynccontextmanager
async def _opened(port: int, path: str, cookies: list[str]) -> AsyncIterator[list[_Listener]]:
    listeners = [_Listener() for _ in cookies]
    for number, (listener, cookie) in enumerate(zip(listeners, cookies, strict=True)):
        await listener.open(port, path, cookie, number)
    await asyncio.sleep(1.5)  # what was new before they were opened is told
    yield listeners


async def _ours(count: int, pings: int) -> dict[str, Any]:
    with _serving(_SERVE, "serve", "--port=0", "--json") as (process, port):
        cookies = [await _write(port, number) for number in range(count)]
        before = _memory_kib(process)
        async with _opened(port, "/widget/chat/events", cookies) as listeners:
            took_ms = []
            for ping in range(pings):
                number = ping * 7919 % count
                listeners[number].heard.clear()
                began = time.perf_counter()
                await _write(port, number, cookies[number])
                async with asyncio.timeout(5):
                    await listeners[number].heard.wait()
                took_ms.append((listeners[number].heard_at - began) * 1000)
            return {"kib": (_memory_kib(process) - before) / count, "ms": statistics.median(took_ms)}


async def _bare(count: int) -> dict[str, Any]:
    with _serving(_BARE) as (process, port):
        before = _memory_kib(process)
        async with _opened(port, "/events", [""] * count) as listeners:
            began = time.perf_counter()
            await _request(port, "GET /tell HTTP/1.1\nHost: x\nConnection: close\n\n")
            await asyncio.sleep(1)
            assert all(one.heard_at > began for one in listeners)
            return {"kib": (_memory_kib(process) - before) / count}


async def _measure(count: int, rounds: int, pings: int) -> None:
    laps = [(await _ours(count, pings), await _bare(count)) for _ in range(rounds)]
    ours, bare = (statistics.median(lap[place]["kib"] for lap in laps) for place in (0, 1))
    took_ms = statistics.median(lap[0]["ms"] for lap in laps)
    print(f"{count} streams: {ours:.1f} KiB each, {bare:.1f} KiB in the bare app ({ours / bare:.1f} times)")
    print(f"A visitor's own stream hears of a message {took_ms:.0f} ms after it was sent, answer and commit included.")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pings", type=int, default=20)
    given = parser.parse_args()
    # Each stream is a file on either side.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.environ.pop("FORWARDED_ALLOW_IPS", None)
    asyncio.run(_measure(given.streams, given.rounds, given.pings))


if __name__ == "__main__":
    main()
