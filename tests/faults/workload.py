"""Several processes with several threads each, at once on one store; and the check of what they leave behind.

As a program: `python workload.py random URL --seconds 60 --seed 7` and `python workload.py newcomers URL --rounds 500`
run 4 processes with 4 threads each on the store at URL, which must be empty, and end with `verify`. `worker` runs one
of those processes. Everything is asked of the public interface of hub and store, so any store can be tested.
"""

import argparse
import json
import random
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta

from attrs import asdict, define, field

from convsdk.core.events import MessageReceived
from convsdk.core.fold import Policy, fold
from convsdk.core.model import Claim, Identifier, IdentityHint, Outcome, Trust
from convsdk.errors import NotFound
from convsdk.hub import Hub

PROCESSES, THREADS = 4, 4
CHANNEL = "shop"
DAY_ZERO = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(component_cap=8)
EMAILS = ["info@shop.example", *(f"p{number}@shop.example" for number in range(24))]
PHONES = [f"+141555501{number:02}" for number in range(12)]
ACCOUNTS = [f"u-{number}" for number in range(8)]
COOKIES = [f"cookie-{number}" for number in range(8)]
WORLD = [
    *(Identifier("email", "", value) for value in EMAILS),
    *(Identifier("phone", "", value) for value in PHONES),
    *(Identifier("external_id", "", value) for value in ACCOUNTS),
]
VISITORS = [Identifier("visitor", "", value) for value in COOKIES]
ALL = 10_000_000


def newcomer(number: int) -> Identifier:
    """Give the address that all writers of a round write from."""
    return Identifier("email", "", f"new{number}@shop.example")


def message(name: str, at: datetime, claims: tuple[Claim, ...], visitor: str | None = None) -> MessageReceived:
    """Build a message."""
    hint = IdentityHint(at=at, identifiers=claims, visitor=visitor)
    return MessageReceived(external_id=name, hint=hint, at=at, text=f"text of {name}")


@define
class Acknowledged:
    """What writers were told is kept: the hint of each message, and the rulings."""

    messages: dict[str, str] = field(factory=dict)
    rulings: list[str] = field(factory=list)


# -- the writers


class Writer:
    """One thread of one process: does what its random generator says, and keeps what was acknowledged."""

    def __init__(self, hub: Hub, name: str, seed: str) -> None:
        self.name = name
        self.messages: dict[str, str] = {}
        self.rulings: list[str] = []
        self._hub = hub
        self._random = random.Random(seed)  # noqa: S311  (sample data needs no secure randomness)
        self._said: list[MessageReceived] = []
        self._number = 0

    def step(self) -> None:
        """Do one thing."""
        acts = (self._receive, self._receive_again, self._merge, self._unmerge, self._withdraw, self._restore)
        (act,) = self._random.choices(acts, weights=(50, 6, 10, 8, 14, 12))
        act()

    def take_back(self) -> None:
        """Withdraw something, or let it count again."""
        self._random.choice((self._unmerge, self._withdraw, self._restore))()

    def _moment(self) -> datetime:
        return DAY_ZERO + timedelta(seconds=self._random.randrange(10**7), microseconds=self._random.randrange(10**6))

    def _new_name(self) -> str:
        self._number += 1
        return f"{self.name}.{self._number}"

    def _message(self) -> MessageReceived:
        named = self._random.sample(WORLD, self._random.choice((0, 1, 1, 1, 2, 2, 3)))
        name = self._new_name()
        if self._random.random() < 1 / 3:
            # Somebody of whom nothing else is known: what goes wrong here is not set right by the next message.
            named = [Identifier("email", "", f"only-{name}@shop.example"), *named[:1]]
        claims = tuple(Claim(one.kind, one.value, self._random.choice(tuple(Trust))) for one in named)
        return message(name, self._moment(), claims, self._random.choice((None, None, *COOKIES)))

    def _receive(self) -> None:
        said = [self._message() for _ in range(self._random.choice((1, 1, 1, 2, 5)))]
        for one in self._hub.receive(CHANNEL, said):
            expect(one.decision.outcome is not Outcome.DUPLICATE, f"{one.event.external_id} was decided twice")
            self.messages[one.event.external_id] = one.decision.hint
        self._said += said

    def _receive_again(self) -> None:
        if self._said:
            (one,) = self._hub.receive(CHANNEL, [self._random.choice(self._said)])
            expect(one.decision.outcome is Outcome.DUPLICATE, f"{one.event.external_id} was taken in a second time")

    def _merge(self) -> None:
        a, b = self._random.sample(WORLD, 2)
        name = f"ruling-{self._new_name()}"
        rule = self._random.choice((self._hub.merge, self._hub.merge, self._cannot_link))
        rule(a, b, by="kim", merge_id=name, at=self._moment())
        self.rulings.append(name)

    def _cannot_link(self, a: Identifier, b: Identifier, *, by: str, merge_id: str, at: datetime) -> None:
        self._hub.cannot_link(a, b, by=by, ruling_id=merge_id, at=at)

    def _unmerge(self) -> None:
        with suppress(NotFound):
            self._hub.unmerge(f"ruling-{self._old_name()}", by="kim")

    def _withdraw(self) -> None:
        with suppress(NotFound):
            self._hub.withdraw(f"{CHANNEL}/{self._old_name()}", by="kim")

    def _restore(self) -> None:
        with suppress(NotFound):
            self._hub.restore(f"{self._random.choice((f'{CHANNEL}/', 'ruling-'))}{self._old_name()}", by="kim")

    def _old_name(self) -> str:
        """Give a name that some writer has probably used by now, so that two take the same thing back at once."""
        process, thread = self._random.randrange(PROCESSES), self._random.randrange(THREADS)
        return f"{process}-{thread}.{self._random.randint(1, self._number + 1)}"


def worker(url: str, kind: str, process: int, *, seconds: float, rounds: int, seed: int) -> None:
    """Run the threads of one process, once it is told to on standard input; print what was acknowledged, as JSON."""
    errors: list[str] = []
    acknowledged = Acknowledged()
    print("ready", flush=True)  # noqa: T201  (whoever started it waits for all to be)
    sys.stdin.readline()
    with closing(Hub(url, policy=POLICY)) as hub:
        writers = [Writer(hub, f"{process}-{thread}", f"{seed}/{process}/{thread}") for thread in range(THREADS)]
        run = {"random": lambda one: at_random(one, seconds), "newcomers": lambda one: as_newcomer(hub, one, rounds)}

        def guarded(writer: Writer) -> None:
            try:
                run[kind](writer)
            except BaseException:  # noqa: BLE001  (every error is what is looked for)
                errors.append(traceback.format_exc())

        threads = [threading.Thread(target=guarded, args=[one]) for one in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one in writers:
            acknowledged.messages.update(one.messages)
            acknowledged.rulings.extend(one.rulings)
    print(json.dumps({"errors": errors, **asdict(acknowledged)}))  # noqa: T201  (as above)


def at_random(writer: Writer, seconds: float) -> None:
    """Do things for some seconds, and take some back at the end, where no later message sets right what is wrong."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        writer.step()
    for _ in range(20):
        writer.take_back()


def as_newcomer(hub: Hub, writer: Writer, rounds: int) -> None:
    """Write from the address of each round; nobody waits for the others, so that they meet in every order."""
    for number in range(rounds):
        claims = (Claim("email", newcomer(number).value, Trust.CHANNEL),)
        said = message(f"{writer.name}/{number}", DAY_ZERO + timedelta(minutes=number), claims)
        (received,) = hub.receive(CHANNEL, [said])
        writer.messages[said.external_id] = received.decision.hint


def run(url: str, kind: str, *, seconds: float = 3, rounds: int = 40, seed: int = 0) -> Acknowledged:
    """Run all processes, and give what was acknowledged; raise where one met an error."""
    options = ["--seconds", str(seconds), "--rounds", str(rounds), "--seed", str(seed)]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "worker", url, "--kind", kind, "--process", str(number), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for one in processes:
        one.stdout.readline()
    for one in processes:
        one.stdin.write("go\n")
        one.stdin.flush()
    told = [one.communicate()[0] for one in processes]
    reports = [json.loads(one) if one else {"errors": ["a process ended"]} for one in told]
    errors = [error for report in reports for error in report["errors"]]
    expect(not errors, f"{len(errors)} errors reached a caller, the first:\n{errors[0] if errors else ''}")
    return Acknowledged(
        messages={name: hint for report in reports for name, hint in report["messages"].items()},
        rulings=[name for report in reports for name in report["rulings"]],
    )


# -- what they leave behind


def expect(is_true: bool, otherwise: str) -> None:  # noqa: FBT001  (it reads like assert, which a program may lose)
    """Raise where something is not as it has to be."""
    if not is_true:
        raise AssertionError(otherwise)


def verify(url: str, acknowledged: Acknowledged | None = None, *, rounds: int = 0) -> Counter[str]:
    """Check all that is stored against itself and against what was acknowledged, and give how much there is.

    The contacts are those that all stored evidence gives when it is folded anew; each message is in one conversation,
    with its hint; nothing stands alone. `rounds` is how many newcomers there can be.
    """
    with closing(Hub(url, policy=POLICY)) as hub:
        identifiers = [*WORLD, *map(newcomer, range(rounds))]
        hints = stored_hints(hub, identifiers)
        rulings = hub.store.rulings(hub.workspace, identifiers)
        verify_contacts(hub, hints, rulings)
        messages = verify_messages(hub, hints)
        if acknowledged is not None:
            told = set(acknowledged.messages)
            expect(messages == told, f"stored without being acknowledged, or the other way round: {messages ^ told}")
            expect(set(acknowledged.messages.values()) == hints.keys(), "other hints than those acknowledged")
            lost = set(acknowledged.rulings) - {one.ruling.id for one in rulings}
            expect(not lost, f"rulings that were acknowledged and are gone: {lost}")
        verify_notices(hub, messages)
        contacts = hub.store.contacts(hub.workspace, after=0, limit=ALL)
        return Counter(contacts=len(contacts), hints=len(hints), rulings=len(rulings), messages=len(messages))


def stored_hints(hub: Hub, identifiers: list[Identifier]) -> dict:
    """Give every hint by its id: those that name somebody, and those of a cookie or a conversation alone."""
    hints = {one.evidence.hint: one for one in hub.store.hints(hub.workspace, identifiers, limit=ALL)}
    names = {f"{one.channel}/{one.external_id}" for filing in filings(hub) for one in messages_of(hub, filing.id)}
    names |= {one.moment[1] for visitor in VISITORS for one in hub.store.visits(hub.workspace, visitor)}
    found = {name: hub.store.hint(hub.workspace, name) for name in names - hints.keys()}
    missing = [name for name, record in found.items() if record is None]
    expect(not missing, f"messages without a hint: {missing}")
    return hints | found


def filings(hub: Hub) -> Iterator:
    """Give every conversation."""
    before = None
    while page := hub.store.filings(hub.workspace, identifiers=None, before=before, limit=500):
        yield from page
        before = page[-1].opened


def messages_of(hub: Hub, conversation: int) -> list:
    """Give every message of a conversation."""
    return hub.store.messages(hub.workspace, conversation, before=None, limit=ALL)


def verify_contacts(hub: Hub, hints: dict, rulings: list) -> None:
    """Fold everything that counts anew, and compare it with the contacts as they are stored and as they are found."""
    evidence = [one.evidence for one in hints.values() if not one.is_withdrawn]
    partition = fold(evidence, [one.ruling for one in rulings if not one.is_withdrawn], POLICY)
    expected = Counter(frozenset(map(str, group)) for group in partition.contacts())
    contacts = hub.store.contacts(hub.workspace, after=0, limit=ALL)
    stored = Counter(frozenset(str(held.node) for held in one.holdings) for one in contacts)
    expect(stored == expected, f"only stored: {stored - expected}\nonly folded: {expected - stored}")
    members = [member for one in contacts for member in one.members]
    expect(len(members) == len(set(members)), "a contact id leads to two contacts")
    for one in contacts:
        expect(one.id in one.members, f"contact {one.id} does not lead to itself")
        for member in one.members:
            expect(hub.contact(member).id == one.id, f"contact {member} does not redirect to {one.id}")
    names_of = {one.id: {str(held.node) for held in one.holdings} for one in contacts}
    for record in hints.values():
        if record.evidence.anchor is None or record.is_withdrawn:
            continue
        node = partition.epochs.node(record.evidence.anchor, record.evidence.moment)
        group = partition.group(node)
        found = hub.store.find(hub.workspace, record.evidence.anchor, record.evidence.moment)
        names = None if found is None else names_of.get(found, set())
        expect(
            names == (None if group is None else set(map(str, group))),
            f"{record.evidence.hint} is attributed to {names}, and belongs to {group}",
        )


def verify_messages(hub: Hub, hints: dict) -> set[str]:
    """Check that messages, conversations and hints agree; give the external ids of all messages."""
    names: list[str] = []
    for filing in filings(hub):
        messages = messages_of(hub, filing.id)
        names += [one.external_id for one in messages]
        expect(bool(messages), f"conversation {filing.id} is empty")
        expect(filing.messages == filing.unread == len(messages), f"conversation {filing.id} counts {filing.messages}")
        expect(filing.last_at == max(one.at for one in messages), f"conversation {filing.id} has another last time")
        said = [hints[f"{one.channel}/{one.external_id}"] for one in messages]
        expect({one.conversation for one in said} == {filing.id}, f"hints name another conversation than {filing.id}")
        anchors = {one.evidence.anchor for one in said} - {None}
        expect(anchors <= {filing.identifier}, f"conversation {filing.id} of {filing.identifier} holds {anchors}")
        expect(filing.opened[1] in {one.evidence.hint for one in said}, f"what opened {filing.id} is not in it")
        owner = hub.conversation(filing.id).contact
        expect(owner is None or hub.contact(owner).id == owner, f"conversation {filing.id} is on no contact: {owner}")
    twice = [name for name, number in Counter(names).items() if number > 1]
    expect(not twice, f"stored twice: {twice}")
    alone = hints.keys() - {f"{CHANNEL}/{name}" for name in names}
    expect(not alone, f"hints without their message: {alone}")
    return set(names)


def verify_notices(hub: Hub, messages: set[str]) -> None:
    """Check that observers hear of each message, and of each conversation once."""
    told: Counter[str] = Counter()
    opened: list[int] = []
    since = 0
    while page := hub.store.notices(hub.workspace, since=since, limit=1000):
        told.update(one.type for one in page)
        opened += [one.payload["conversation"] for one in page if one.type == "conversation.opened"]
        since = page[-1].id
    expect(told["message.received"] == len(messages), f"{told['message.received']} messages were told of")
    expect(sorted(opened) == sorted(one.id for one in filings(hub)), "conversations and what was told of them differ")


def verify_newcomers(url: str, rounds: int) -> None:
    """Check that every address has one contact, in one conversation with what all writers wrote from it."""
    with closing(Hub(url, policy=POLICY)) as hub:
        contacts = hub.store.contacts(hub.workspace, after=0, limit=ALL)
        expect(len(contacts) == rounds, f"{len(contacts)} contacts for {rounds} addresses")
        expect(all(one.members == (one.id,) for one in contacts), "a contact was made twice and joined")
        counts = [one.messages for one in filings(hub)]
        expect(counts == [PROCESSES * THREADS] * rounds, f"messages in each conversation: {counts}")
        created = [one for one in hub.store.notices(hub.workspace, since=0, limit=ALL) if one.type == "contact.created"]
        expect(len(created) == rounds, f"{len(created)} contacts were told of")


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["random", "newcomers", "worker", "verify"])
    parser.add_argument("url")
    parser.add_argument("--kind", choices=["random", "newcomers"], default="random")
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    options = {"seconds": given.seconds, "rounds": given.rounds, "seed": given.seed}
    if given.command == "worker":
        worker(given.url, given.kind, given.process, **options)
        return
    acknowledged = None if given.command == "verify" else run(given.url, given.command, **options)
    print(dict(verify(given.url, acknowledged, rounds=given.rounds)))  # noqa: T201  (the result)
    if given.command == "newcomers":
        verify_newcomers(given.url, given.rounds)


if __name__ == "__main__":
    main()
