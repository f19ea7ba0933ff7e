"""A worker is killed again and again: before its request, during and after it, and before that is written down."""

import itertools
import json
import multiprocessing
import os
import random
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest
from posts import LEASE_S, channels, deliver_until_killed, echo, message
from receiver import TAKEN, Receiver
from servers import fresh_store

from convsdk.core.model import Direction
from convsdk.hub import Hub

pytestmark = pytest.mark.once  # a store's and the system's doing

ROUNDS = min(200, int(6 * float(os.environ.get("CONVSDK_TEST_FAULT_SECONDS", "2"))))
PEOPLE = ("ann", "bob", "eve")
PATIENCE_S = 5 + ROUNDS / 5
RANDOM = random.Random(6)  # noqa: S311  (guards nothing)
STAGES = ("before", "during", "after")


def now():
    """Give the present moment."""
    return datetime.now(UTC)


class Platform(Receiver):
    """Takes messages, echoes those of the channel that does, and kills the worker at the request that is its last."""

    def __init__(self, hub):
        super().__init__()
        self.hub = hub
        self.taken = []
        self.kill = lambda: None
        self.stage, self.left = "", 0

    def take(self, delivery):
        """Take a message, unless the worker died before it was told."""
        try:
            said = json.loads(delivery.body)
        except ValueError:  # the worker died while it wrote
            return b""
        channel = delivery.path.rpartition("/")[2]
        with self._changed:
            self.left -= 1
            is_last = self.left == 0
            self.taken.append((channel, said["token"], said["thread"], said["text"]))
        if channel == "echoing":
            self.hub.receive(channel, [echo(f"echo/{said['token']}", said["token"], said["thread"], at=now())])
        if is_last and self.stage == "during":
            self.kill()
            return b""
        if is_last and self.stage == "after":
            threading.Timer(RANDOM.uniform(0, 0.01), self.kill).start()
        return TAKEN


def queue(hub, number):
    """Queue an answer to everybody on every channel."""
    for channel, who in itertools.product(hub.channels, PEOPLE):
        (received,) = hub.receive(channel, [message(f"in/{number}/{who}", who, at=now())])
        hub.reply(received.conversation, str(number), by="kim")


def answers(hub):
    """Give every answer by channel: its thread, token, text, status and detail."""
    found = {name: [] for name in hub.channels}
    for talk in hub.conversations(limit=100):
        for one in hub.messages(talk.id, limit=100_000):
            if one.direction is Direction.OUTBOUND:
                found[one.channel].append((talk.filing.thread, one))
    return found


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_nothing_is_lost_and_nothing_doubled_that_can_be_told(kind, tmp_path):
    """An answer arrives: once where an echo tells, as one where its token does; else the agent is told."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["convsdk.hub", "convsdk.delivery", "posts", "psycopg", "psycopg_pool"])
    store = fresh_store(kind, tmp_path)
    with closing(Hub(store)) as plain, Platform(plain) as platform:
        base = platform.url.removesuffix("/hook")
        hub = Hub(plain.store, channels=channels(base))
        platform.hub = hub
        for number in range(ROUNDS):
            queue(hub, number)
            worker = context.Process(target=deliver_until_killed, args=(store, base, number * 300), daemon=True)
            platform.kill, platform.stage = worker.kill, STAGES[number % 3]
            platform.left = RANDOM.randint(1, 3 * len(PEOPLE))
            worker.start()
            if platform.stage == "before":
                time.sleep(LEASE_S * 1.5)
                threading.Timer(RANDOM.uniform(0, 0.2), worker.kill).start()
            worker.join(LEASE_S * 10)
            worker.kill()
            worker.join()
        platform.left = -1
        for number in range(ROUNDS, ROUNDS + 3):  # an echo is waited for, for two minutes by the worker's clock
            worker = context.Process(target=deliver_until_killed, args=(store, base, number * 300), daemon=True)
            worker.start()
            is_done = wait_for(lambda: not queued(hub))
            worker.kill()
            worker.join()
        assert is_done, queued(hub)
        check(answers(hub), platform.taken)


def queued(hub):
    """Give the answers that have not gone."""
    return [one for each in answers(hub).values() for _, one in each if one.status == "queued"]


def wait_for(condition):
    """Wait until `condition` holds; say whether it does."""
    end = time.monotonic() + PATIENCE_S
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return holds


def check(found, taken):
    """Check each sort of channel by what a server of that sort can tell."""
    arrived = {name: [one[1:] for one in taken if one[0] == name] for name in found}
    for name, each in found.items():
        assert len(each) == ROUNDS * len(PEOPLE)
        tokens = [token for token, _, _ in arrived[name]]
        distinct = list(dict.fromkeys(arrived[name]))
        status = {one.detail["token"]: one.status for _, one in each}
        failed = [*status.values()].count("failed")
        sys.stdout.write(f"\n{name}: {len(each)} answers, {len(tokens)} requests, {failed} left to the agent\n")
        if name == "forgetful":
            assert len(tokens) == len(set(tokens)), "nothing that cannot be told apart goes twice"
            assert all(status[token] in {"sent", "failed"} for token in tokens)
            assert {token for token, state in status.items() if state == "sent"} <= set(tokens)
            continue
        assert set(tokens) == set(status), "nothing is lost"
        assert set(status.values()) == {"sent"}
        if name == "echoing":
            assert len(tokens) == len(set(tokens)), "an echo tells that it arrived"
        for who in PEOPLE:
            told = [int(text) for _, thread, text in distinct if thread == who]
            assert told == sorted(told), "a conversation is in order"
