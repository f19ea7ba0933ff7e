import atexit
import importlib.util
import sys
import tempfile
from datetime import timedelta
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest
from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from servers import STORES, fresh_store

from convsdk.core.fold import fold, weigh
from convsdk.core.model import Identifier, Ruling, RulingKind
from convsdk.hub import Hub
from convsdk.store import open_store

pytestmark = pytest.mark.once  # many random histories

_spec = importlib.util.spec_from_file_location("worlds", Path(__file__).with_name("worlds.py"))
worlds = sys.modules.setdefault("worlds", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(worlds)


@cache
def opened(kind):
    """Open a store that all examples share, each in a workspace of its own."""
    folder = tempfile.TemporaryDirectory()
    store = open_store(fresh_store(kind, folder.name))
    if kind == "sqlite":  # what survives a power cut is another test's question
        store._connection.execute("pragma synchronous = off")  # noqa: SLF001
    atexit.register(lambda: (store.close(), folder.cleanup()))
    return store


def alike(told):
    """Fail unless every store tells the same as the first."""
    assert all(one == told[0] for one in told[1:])


class Stores(RuleBasedStateMachine):
    """Drives every store with the same random history, and a naive model that folds all of it anew each time."""

    hints_given = Bundle("hints_given")
    rulings_given = Bundle("rulings_given")
    withdrawn = Bundle("withdrawn")

    @initialize()
    def open(self):
        self.now = worlds.DAY_ZERO + timedelta(days=200)
        workspace = uuid4().hex
        self.hubs = [
            Hub(store, workspace=workspace, policy=worlds.POLICY, clock=lambda: self.now)
            for store in (opened(kind) for kind in STORES)
        ]
        self.hints = {}
        self.rulings = {}
        self.taken = set()

    @rule(target=hints_given, hint=worlds.hints())
    def resolve(self, hint):
        self.hints.setdefault(hint.id, hint)
        decisions = [hub.resolve(hint) for hub in self.hubs]
        alike([(one.outcome, one.displaced, one.refused, one.suggested) for one in decisions])
        return hint.id

    @rule(target=hints_given, batch=st.lists(worlds.hints(), min_size=2, max_size=5))
    def resolve_a_batch(self, batch):
        for hint in batch:
            self.hints.setdefault(hint.id, hint)
        alike([[one.outcome for one in hub.resolve_many(batch)] for hub in self.hubs])
        return multiple(*(hint.id for hint in batch))

    @rule(target=hints_given, hint=hints_given)
    def redeliver(self, hint):
        for hub in self.hubs:
            assert hub.resolve(self.hints[hint]).outcome.value == "duplicate"
        return hint

    @rule(
        target=rulings_given,
        kind=st.sampled_from(RulingKind),
        a=worlds.CLAIMS,
        b=worlds.CLAIMS,
        hours=st.integers(0, 3000),
        number=st.integers(0, 10_000),
    )
    def decide_by_staff(self, kind, a, b, hours, number):
        a, b = Identifier(a[0], "", a[1]), Identifier(b[0], "", b[1])
        if a == b:
            return multiple()
        at = worlds.DAY_ZERO + timedelta(hours=hours, minutes=30)
        ruling = Ruling(id=f"m{number:05}", kind=kind, a=a, b=b, at=at, by="agent:1")
        self.rulings.setdefault(ruling.id, ruling)
        for hub in self.hubs:
            if kind is RulingKind.MERGE:
                hub.merge(a, b, by="agent:1", merge_id=ruling.id, at=at)
            else:
                hub.cannot_link(a, b, by="agent:1", ruling_id=ruling.id, at=at)
        return ruling.id

    @rule(target=withdrawn, hint=hints_given)
    def withdraw(self, hint):
        self.taken.add(hint)
        for hub in self.hubs:
            hub.withdraw(hint, by="agent:1")
        return hint

    @rule(target=withdrawn, ruling=rulings_given)
    def unmerge(self, ruling):
        self.taken.add(ruling)
        for hub in self.hubs:
            hub.unmerge(ruling, by="agent:1")
        return ruling

    @rule(one=consumes(withdrawn))
    def restore(self, one):
        self.taken.discard(one)
        for hub in self.hubs:
            hub.restore(one, by="agent:1")

    @invariant()
    def people_are_those_of_the_model(self):
        if not hasattr(self, "hubs"):
            return
        evidence = [weigh(hint, worlds.POLICY) for hint in self.hints.values() if hint.id not in self.taken]
        rulings = [ruling for ruling in self.rulings.values() if ruling.id not in self.taken]
        naive = {frozenset(map(str, group)) for group in fold(evidence, rulings, worlds.POLICY).contacts()}

        pages = [list(hub.contacts(limit=1000)) for hub in self.hubs]

        people = [{one.id: frozenset(str(held.node) for held in one.identifiers) for one in page} for page in pages]
        for each in people:
            assert set(each.values()) == naive
        alike([sorted(repr(evolve(one, id=0, redirects=())) for one in page) for page in pages])
        owners = [{hint: hub.attribution(hint) for hint in self.hints} for hub in self.hubs]
        alike([{h: owner and each[owner] for h, owner in of.items()} for of, each in zip(owners, people, strict=True)])
        alike([{one.because for one in hub.suggestions()} for hub in self.hubs])


TestStores = Stores.TestCase
TestStores.settings = settings(worlds.examples(15), stateful_step_count=25)
