import importlib.util
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from servers import STORES, fresh_store

from convsdk.core.fold import fold, weigh
from convsdk.core.model import Identifier, Outcome, Trust
from convsdk.hub import Hub
from convsdk.store import open_store

pytestmark = pytest.mark.once  # many random histories

_spec = importlib.util.spec_from_file_location("worlds", Path(__file__).with_name("worlds.py"))
worlds = sys.modules.setdefault("worlds", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(worlds)


@pytest.fixture(scope="module", params=STORES)
def store(request, tmp_path_factory):
    """A store that many examples share, each in a workspace of its own."""
    opened = open_store(fresh_store(request.param, tmp_path_factory.mktemp("db")))
    # The examples write tens of thousands of tiny transactions: what survives a power cut is another test's question.
    if request.param == "sqlite":
        opened._connection.execute("pragma synchronous = off")  # noqa: SLF001
    yield opened
    opened.close()


class Workspaces:
    count = 0


def new_hub(store):
    """Give a hub on a workspace of its own."""
    Workspaces.count += 1
    return Hub(store, workspace=f"w{Workspaces.count}", policy=worlds.POLICY)


def partition(hub):
    """Give who is who, as strings."""
    return {frozenset(str(one.node) for one in contact.identifiers) for contact in hub.contacts(limit=1000)}


def folded(hints, rulings=()):
    """Give who should be who, by folding everything at once."""
    whole = fold([weigh(hint, worlds.POLICY) for hint in hints], rulings, worlds.POLICY)
    return {frozenset(map(str, group)) for group in whole.contacts()}


def state(hub, hints):
    """Give everything that an undo must bring back: contacts with their ids, and whose each conversation is.

    Not the redirects: a contact that stood apart for a while keeps its id, and leads to the joined one afterwards.
    """
    contacts = {contact.id: (contact.identifiers, contact.visitors) for contact in hub.contacts(limit=1000)}
    return contacts, {hint.id: hub.attribution(hint.id) for hint in hints}


@given(data=st.data(), history=worlds.histories())
@worlds.examples(150)
def test_order_of_delivery_does_not_matter(store, data, history):
    """For hints with distinct event times, every order of delivery gives the same people and attributions."""
    shuffled = data.draw(st.permutations(history))
    first, second = new_hub(store), new_hub(store)

    for hint in history:
        first.resolve(hint)
    for hint in shuffled:
        second.resolve(hint)

    assert partition(first) == partition(second) == folded(history)
    for hint in history:
        owners = [hub.attribution(hint.id) for hub in (first, second)]
        names = [
            owner and {str(one.node) for one in hub.contact(owner).identifiers}
            for hub, owner in zip((first, second), owners, strict=True)
        ]
        assert names[0] == names[1]


@given(history=worlds.histories(most=12))
@worlds.examples(300)
def test_claims_take_nothing_over(history):
    """Without all that was only asserted, the partition of the rest is the same."""
    stripped = [
        evolve(hint, identifiers=tuple(one for one in hint.identifiers if one.trust > Trust.ASSERTED))
        for hint in history
    ]
    attested = {
        str(node)
        for group in fold([weigh(hint, worlds.POLICY) for hint in stripped], (), worlds.POLICY).contacts()
        for node in group
    }

    with_claims = {group & attested for group in folded(history)} - {frozenset()}

    assert with_claims == folded(stripped)


@given(data=st.data(), history=worlds.histories(), more=worlds.histories(most=4))
@worlds.examples(150)
def test_unmerge_takes_a_merge_back_exactly(store, data, history, more):
    """After a merge and its undo everything is as it was, attribution and ids included, whatever came meanwhile."""
    merged, plain = new_hub(store), new_hub(store)
    more = [evolve(hint, id=f"later{hint.id}", at=hint.at + timedelta(hours=2001)) for hint in more]
    for hub in (merged, plain):
        for hint in history:
            hub.resolve(hint)
    kind, value = data.draw(worlds.CLAIMS)
    other_kind, other_value = data.draw(worlds.CLAIMS)
    before = state(merged, history)

    ruled = merged.merge(Identifier(kind, "", value), Identifier(other_kind, "", other_value), by="agent:1")
    merged.unmerge(ruled.id, by="agent:1")

    assert state(merged, history) == before

    merged.restore(ruled.id, by="agent:1")
    for hub in (merged, plain):
        for hint in more:
            hub.resolve(hint)
    merged.unmerge(ruled.id, by="agent:1")

    assert partition(merged) == partition(plain)


@given(history=worlds.histories(), cuts=st.sets(st.integers(1, 8)))
@worlds.examples(150)
def test_a_batch_ends_as_its_hints_would_one_by_one(store, history, cuts):
    """Resolving in batches gives the same decisions and people as resolving one by one."""
    batched, single = new_hub(store), new_hub(store)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(history)), len(history)]

    in_batches = [decision for start, end in pairwise(bounds) for decision in batched.resolve_many(history[start:end])]
    one_by_one = [single.resolve(hint) for hint in history]

    assert [one.outcome for one in in_batches] == [one.outcome for one in one_by_one]
    assert partition(batched) == partition(single)


@given(history=worlds.histories())
@worlds.examples(100)
def test_a_replay_gives_the_first_decision_and_writes_nothing(store, history):
    """The same hint id twice changes nothing."""
    hub = new_hub(store)
    first = [hub.resolve(hint) for hint in history]
    before = state(hub, history)
    told = hub.store.notices(hub.workspace, since=0, limit=1000)

    again = [hub.resolve(hint) for hint in history]

    assert [one.outcome for one in again] == [Outcome.DUPLICATE] * len(history)
    assert [evolve(one, outcome=was.outcome) for one, was in zip(again, first, strict=True)] == first
    assert state(hub, history) == before
    assert hub.store.notices(hub.workspace, since=0, limit=1000) == told


@given(data=st.data(), history=worlds.histories())
@worlds.examples(150)
def test_a_withdrawn_hint_might_never_have_come(store, data, history):
    """Withdrawing hints leaves the people of the rest, and restoring them brings everything back, ids included."""
    hub = new_hub(store)
    for hint in history:
        hub.resolve(hint)
    before = state(hub, history)
    taken = data.draw(st.lists(st.sampled_from(history), unique_by=lambda hint: hint.id))

    for hint in taken:
        hub.withdraw(hint.id, by="agent:1")

    assert partition(hub) == folded([hint for hint in history if hint not in taken])

    for hint in reversed(taken):
        hub.restore(hint.id, by="agent:1")

    assert state(hub, history) == before


@given(data=st.data(), history=worlds.histories())
@worlds.examples(200)
def test_undoing_everything_in_reverse_leaves_no_trace(store, data, history):
    """Merges and withdrawals on top of one another, undone the last first: everything is as it was, ids included."""
    hub = new_hub(store)
    for hint in history:
        hub.resolve(hint)
    before = state(hub, history)
    pairs = st.tuples(worlds.CLAIMS, worlds.CLAIMS).filter(lambda pair: pair[0] != pair[1])
    steps = data.draw(st.lists(st.sampled_from(history) | pairs, min_size=2, max_size=6, unique_by=str))

    done = []
    for step in steps:
        if isinstance(step, tuple):
            sides = (Identifier(kind, "", value) for kind, value in step)
            done.append((hub.unmerge, hub.merge(*sides, by="agent:1").id))
        else:
            hub.withdraw(step.id, by="agent:1")
            done.append((hub.restore, step.id))
    for undo, target in reversed(done):
        undo(target, by="agent:1")

    assert state(hub, history) == before
