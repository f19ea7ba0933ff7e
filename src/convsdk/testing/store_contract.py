"""The laws that every store keeps, as tests: subclass `StoreContract` and say how to open a fresh store.

::

    class TestMyStore(StoreContract):
        def open(self):
            return MyStore(new_empty_database())

Most laws go through a `Hub`, since that is how a store is used; a second, in-memory one says what is right.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from convsdk.core.consent import ConsentState, ListState
from convsdk.core.events import Event, MessageReceived, Notice
from convsdk.core.model import Attachment, Claim, Decision, Direction, Identifier, IdentityHint, Message, Outcome, Trust
from convsdk.core.resolver import Known
from convsdk.core.storage import (
    REFERENCES,
    Alias,
    Batch,
    ContactRecord,
    Delivery,
    Memo,
    Queue,
    Store,
    ThreadQuery,
    Transaction,
    Watermark,
)
from convsdk.errors import ConvsdkError
from convsdk.hub import Hub
from convsdk.store.memory import MemoryStore
from convsdk.testing.builders import NOON, FakeClock, hint

_SHOP = "shop"
_MANY = 1_000_000
_EXAMPLES = 60
_ODD_TEXT = "caf\u00e9 \U0001f408 \u202e 'quoted' \"twice\" \\ %s ? :a\r\n\tend"


class StoreContract:
    """The laws of every store. Give `open()`; for one that keeps its data, take `DurableStoreContract`."""

    def open(self) -> Store:
        """Give a fresh, empty store."""
        raise NotImplementedError(f"{type(self).__name__} has no open(): return an empty store from it")

    # -- what is written is there

    def test_a_fresh_store_is_empty(self) -> None:
        """Asking a new workspace gives nothing, and no error."""
        with self._store() as store:
            assert _identity(store) == []
            assert store.contact(_SHOP, 1) is None
            assert store.find(_SHOP, _email("ann")) is None
            assert store.hint(_SHOP, "none") is None
            assert store.ruling(_SHOP, "none") is None
            assert store.filings(_SHOP, identifiers=None, before=None, limit=5) == []
            assert store.notices(_SHOP, since=0, limit=5) == []

    def test_what_is_written_is_known(self) -> None:
        """After the commit, the contact is found by identifier and id, and the next transaction knows the decision."""
        with self._store() as store:
            hub = _hub(store)
            given_hint = _proven("1", "ann", traits={"name": _ODD_TEXT})

            decision = hub.resolve(given_hint)

            record = store.contact(_SHOP, decision.contact or 0)
            assert record is not None
            assert {held.node.identifier for held in record.holdings} == {_email("ann"), _account("ann")}
            assert store.find(_SHOP, _email("ann")) == decision.contact
            stored = store.hint(_SHOP, "1")
            assert stored is not None
            assert stored.decision == decision
            assert [one.value for one in store.traits(_SHOP, [*stored.evidence.identifiers])] == [_ODD_TEXT]
            evidence = stored.evidence
            assert store.transact(_SHOP, lambda one: one.load([evidence])).decisions == {"1": decision}

    def test_messages_are_read_back_equal(self) -> None:
        """Text, attachments and times come back as they were, and a time of any zone is the same moment."""
        with self._store() as store:
            hub = _hub(store)
            at = datetime(2026, 3, 29, 1, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=5, minutes=45)))
            files = (Attachment(name=_ODD_TEXT, media_type="image/png", size=2**40, url="https://x.example/1"),)
            written = evolve(_message("1", "ann"), at=at, text=_ODD_TEXT, html="<p>", attachments=files)

            (received,) = hub.receive("chat", [written])

            (message,) = hub.messages(received.conversation or 0)
            assert (message.text, message.html, message.attachments) == (_ODD_TEXT, "<p>", files)
            assert message.at == at
            assert message.direction is Direction.INBOUND

    def test_consents_and_lists_are_read_back_equal(self) -> None:
        """Statements are kept in order, and each as it was given."""
        with self._store() as store:
            clock = FakeClock()
            hub = _hub(store, clock)
            contact = hub.resolve(_proven("1", "ann")).contact or 0
            given_records = []
            for state in ConsentState:
                given_records.append(
                    hub.record_consent("email", "ann@shop.example", "news", state, by="eve", wording=_ODD_TEXT)
                )
                clock.advance(seconds=1)
            hub.set_list(contact, _ODD_TEXT, ListState.SUBSCRIBED, how="form")

            assert store.consents(_SHOP, [_email("ann")]) == given_records
            (kept,) = store.memberships(_SHOP, [contact])
            assert (kept.list, kept.state, kept.how, kept.at) == (_ODD_TEXT, ListState.SUBSCRIBED, "form", clock())

    def test_a_replay_gives_the_first_decision(self) -> None:
        """The same hint again, alone or inside a batch, is answered with its decision and writes nothing."""
        with self._store() as store:
            hub = _hub(store)
            first = hub.resolve(_proven("1", "ann"))
            before = _everything(store)

            again = hub.resolve(_proven("1", "ann"))
            inside = hub.resolve_many([_proven("1", "ann"), _proven("1", "ann")])

            assert again == first.as_replayed()
            assert inside == [again, again]
            assert _everything(store) == before

    def test_a_message_is_kept_once(self) -> None:
        """A redelivered message changes nothing; the store itself refuses a second of one channel and external id."""
        with self._store() as store:
            hub = _hub(store)
            (received,) = hub.receive("chat", [_message("1", "ann")])
            conversation = received.conversation or 0
            before = _everything(store)

            hub.receive("chat", [_message("1", "ann")])

            assert _everything(store) == before
            with pytest.raises(ConvsdkError):
                _write_message(store, conversation, "chat", "1")
            assert _everything(store) == before
            _write_message(store, conversation, "mail", "1")
            assert len(store.messages(_SHOP, conversation, before=None, limit=9)) == 2  # noqa: PLR2004

    def test_an_error_leaves_nothing(self) -> None:
        """A transaction that ends with an error keeps nothing of what it wrote, the new and the changed."""
        with self._store() as store:
            hub = _hub(store)
            hub.resolve(_proven("1", "ann"))
            hub.receive("chat", [_message("m1", "ann")])
            before = _everything(store)

            with _failing(store, after_writes=1), pytest.raises(_Failure):
                hub.receive("chat", [_message("m2", "ann"), _message("m3", "bob")])
            with _failing(store, after_writes=1), pytest.raises(_Failure):
                hub.resolve(_hint("2", "ann", phone="+4930123456", trust=Trust.CHANNEL))
            with _failing(store, after_writes=2), pytest.raises(_Failure):
                hub.withdraw("1", by="eve")

            assert _everything(store) == before
            assert store.hint(_SHOP, "2") is None
            hub.receive("chat", [_message("m2", "ann")])
            assert _everything(store) != before

    # -- evidence

    def test_history_reaches_over_refused_links(self) -> None:
        """`load_history` gives all that evidence leads to, links included that a rule refused."""
        with self._store() as store:
            hub = _hub(store)
            hub.resolve(_proven("1", "ann"))
            hub.resolve(_proven("2", "bob"))
            claims = (Claim("email", "bob@shop.example", Trust.AGENT),)
            refused = hub.resolve(hint("3", email="ann@shop.example", trust=Trust.AGENT, claims=claims))
            hub.resolve(_proven("4", "eve"))
            assert refused.refused, "the entry joins two established people, which rule 5 refuses"

            known = _load_history(store, "ann")

            assert set(known.evidence) == {"1", "2", "3"}
            reached = {node.identifier for node in known.holdings}
            assert reached == {_email("ann"), _account("ann"), _email("bob"), _account("bob")}
            assert len({known.contact(node) for node in known.holdings}) == 2  # noqa: PLR2004

    def test_history_reaches_over_merges(self) -> None:
        """`load_history` follows a merge, and names no merge that was taken back."""
        with self._store() as store:
            hub = _hub(store)
            hub.resolve(_proven("1", "ann"))
            hub.resolve(_proven("2", "bob"))
            hub.merge(_email("ann"), _email("bob"), by="eve", merge_id="merge")

            assert _history(store, "ann") == ({"1", "2"}, {"merge"})
            hub.unmerge("merge", by="eve")
            assert _history(store, "ann") == ({"1"}, set())

    def test_history_sums_up_lone_identifiers(self) -> None:
        """Of the hints that name one identifier alone, the first of each trust stands for all."""
        with self._store() as store:
            hub = _hub(store)
            for number, trust in enumerate((Trust.ASSERTED, Trust.CHANNEL, Trust.ASSERTED, Trust.CHANNEL)):
                hub.resolve(_hint(str(number), "ann", trust=trust, at=NOON + timedelta(days=number)))

            known = _load_history(store, "ann")

            assert {one.moment: one.attested for one in known.evidence.values()} == {
                (NOON, "0"): ((_email("ann"), Trust.ASSERTED),),
                (NOON + timedelta(days=1), "1"): ((_email("ann"), Trust.CHANNEL),),
            }

    def test_history_sees_its_own_transaction(self) -> None:
        """What a transaction has written, it can load before it commits."""
        with self._store() as store:
            hub = _hub(store)
            hub.resolve(_proven("1", "ann"))
            hub.resolve(_proven("2", "bob"))
            hub.merge(_email("ann"), _email("bob"), by="eve", merge_id="merge")

            hub.unmerge("merge", by="eve")

            assert store.find(_SHOP, _email("ann")) != store.find(_SHOP, _email("bob"))

    def test_a_withdrawn_hint_is_no_evidence(self) -> None:
        """A hint that was taken back stays on record, and counts for nothing."""
        with self._store() as store:
            hub = _hub(store)
            hub.resolve(_hint("1", "ann", traits={"name": "Ann"}, trust=Trust.CHANNEL, visitor="c" * 32))
            hub.resolve(_proven("2", "ann", at=NOON + timedelta(days=1)))

            hub.withdraw("1", by="eve")

            record = store.hint(_SHOP, "1")
            assert record is not None
            assert record.is_withdrawn
            assert _history(store, "ann") == ({"2"}, set())
            assert store.traits(_SHOP, [_email("ann")]) == []
            assert store.visitors(_SHOP, [_email("ann")]) == []
            assert store.visits(_SHOP, Identifier("visitor", "", "c" * 32)) == []
            hub.withdraw("2", by="eve")
            assert store.find(_SHOP, _email("ann")) is None

    def test_restoring_brings_everything_back(self) -> None:
        """A withdrawal that is undone leaves contacts, ids and attribution as they were, whatever was taken back."""
        with self._store() as store:
            hub = _hub(store)
            _fill(hub)
            before = _standing(store), _attribution(hub)

            for target in ("p0", "p3", "together", "merge", "apart"):
                take_back = hub.withdraw if store.hint(_SHOP, target) else hub.unmerge
                take_back(target, by="eve")
                hub.restore(target, by="eve")
                assert (_standing(store), _attribution(hub)) == before, f"after {target} was withdrawn and restored"

    def test_a_hint_and_a_ruling_of_one_id_are_two(self) -> None:
        """Taking a merge back leaves a hint that has the same id, and the other way round."""
        with self._store() as store:
            hub = _hub(store)
            hub.resolve(_hint("1", "ann", trust=Trust.CHANNEL))
            hub.resolve(_hint("2", "bob", trust=Trust.CHANNEL))
            hub.merge(_email("ann"), _email("bob"), by="eve", merge_id="1")

            hub.unmerge("1", by="eve")
            assert len(_identity(store)) == 2  # noqa: PLR2004
            hub.restore("1", by="eve")
            assert len(_identity(store)) == 1
            hub.withdraw("1", by="eve")

            ruling = store.ruling(_SHOP, "1")
            assert ruling is not None
            assert not ruling.is_withdrawn

    # -- merges

    def test_unmerging_is_exact(self) -> None:
        """A merge that is taken back leaves every contact as it was, its id and its conversations included."""
        with self._store() as store:
            hub = _hub(store)
            hub.receive("chat", [_message(str(n), name) for n, name in enumerate(("ann", "bob", "ann"))])
            hub.resolve(_hint("1", "ann", phone="+4930123456", trust=Trust.CHANNEL))
            hub.resolve(_hint("2", "bob", trust=Trust.PROVEN))
            before = _standing(store), _attribution(hub)

            ruled = hub.merge(_email("ann"), _email("bob"), by="eve", merge_id="merge")
            assert ruled.is_joined
            assert len(_standing(store)) == 1
            hub.unmerge("merge", by="eve")

            assert (_standing(store), _attribution(hub)) == before

    def test_old_contact_ids_redirect(self) -> None:
        """After merges one after the other, every former id leads to the survivor, the lowest of them."""
        with self._store() as store:
            hub = _hub(store)
            names = ("ann", "bob", "eve", "joe")
            ids = [hub.resolve(_hint(name, name, trust=Trust.CHANNEL)).contact or 0 for name in names]
            hub.merge(ids[3], ids[2], by="eve")
            hub.merge(ids[1], ids[0], by="eve")
            hub.merge(ids[3], ids[1], by="eve")

            records = [store.contact(_SHOP, one) for one in ids]

            assert [one.id for one in records if one] == [min(ids)] * 4
            assert all(one and one.members == tuple(sorted(ids)) for one in records)
            assert [one.id for one in _identity(store)] == [min(ids)]

    def test_a_ruling_is_kept_with_its_state(self) -> None:
        """Merges and cannot-links are found by id and by identifier, those taken back included."""
        with self._store() as store:
            hub = _hub(store)
            _fill(hub)
            hub.unmerge("merge", by="eve")

            merge, apart = store.ruling(_SHOP, "merge"), store.ruling(_SHOP, "apart")

            assert merge is not None
            assert merge.is_withdrawn
            assert apart is not None
            assert not apart.is_withdrawn
            assert store.rulings(_SHOP, [merge.ruling.a]) == [merge]
            assert store.rulings(_SHOP, [apart.ruling.b]) == [apart]

    # -- batches, workspaces, threads

    def test_a_batch_is_as_one_by_one(self) -> None:
        """Hints in one transaction end as they do in one each; both as the reference store says."""
        with self._store() as store, contextlib.closing(MemoryStore()) as reference:
            count = iter(range(_MANY))

            def check(hints: list[IdentityHint]) -> None:
                number = next(count)
                single = Hub(store, workspace=f"single {number}")
                batch = Hub(store, workspace=f"batch {number}")
                right = Hub(reference, workspace=str(number))
                outcomes = [[hub.resolve(one) for one in hints] for hub in (single, right)]
                outcomes.append(batch.resolve_many(hints))
                told = [[_told(decision) for decision in each] for each in outcomes]
                assert told[0] == told[1], "one by one differs from the reference store"
                assert told[2] == told[1], "a batch differs from one by one"
                people = [_people(hub) for hub in (single, right, batch)]
                assert people[0] == people[1], "one by one gives other people than the reference store"
                assert people[2] == people[1], "a batch gives other people than one by one"

            settings(max_examples=_EXAMPLES, deadline=None)(given(hints=_histories())(check))()

    def test_workspaces_never_see_one_another(self) -> None:
        """What one workspace holds, another does not find, whatever it asks for."""
        with self._store() as store:
            _fill(_hub(store))
            before = _everything(store)
            other = Hub(store, workspace="other")
            assert _everything(store, "other") == _everything(store, "third")
            assert store.contact("other", before["contacts"][0].id) is None
            assert store.hint("other", "p0") is None
            assert store.ruling("other", "merge") is None
            assert store.find("other", _email("p0")) is None
            assert store.named_together("other", None) == []

            assert other.resolve(_proven("p0", "p0")).outcome is Outcome.CREATED
            other.withdraw("p0", by="eve")

            assert _everything(store) == before

    def test_ids_rise_and_are_never_given_twice(self) -> None:
        """Ids rise in a transaction, and from one that has ended to the next; threads are never given the same."""
        with self._store() as store:
            taken: dict[int, list[int]] = {worker: [] for worker in range(4)}

            def one_turn(transaction: Transaction) -> list[int]:
                ids = transaction.new_ids()
                mine = [next(ids) for _ in range(300)]
                transaction.write(Batch(notices=[Notice(id=mine[0], type="kit", at=NOON, payload={})]))
                return mine

            def take(worker: int) -> None:
                for _ in range(10):
                    taken[worker] += store.transact(_SHOP, one_turn)

            _at_once(4, take)
            last = store.transact(_SHOP, one_turn)

            for mine in taken.values():
                assert mine == sorted(mine)
            given = [one for mine in taken.values() for one in mine]
            assert len(set(given)) == 4 * 10 * 300
            assert 0 < min(given) < max(given) < last[0]

    def test_a_checkpoint_is_kept_with_what_it_speaks_of(self) -> None:
        """A checkpoint is overwritten by the next, belongs to its workspace, and goes with its transaction."""
        with self._store() as store:
            assert store.checkpoint(_SHOP, "import") is None
            batches = [Batch(checkpoints={"import": position}) for position in ("1", _ODD_TEXT, "lost")]
            store.transact(_SHOP, lambda one: one.write(batches[0]))
            store.transact(_SHOP, lambda one: one.write(batches[1]))
            with _failing(store, after_writes=1), pytest.raises(_Failure):
                store.transact(_SHOP, lambda one: one.write(batches[2]))

            assert store.checkpoint(_SHOP, "import") == _ODD_TEXT
            assert store.checkpoint("another", "import") is None

    def test_a_memo_is_kept_by_its_kind_and_key(self) -> None:
        """The next memo of a kind and key takes the place of the one before; a transaction that fails leaves both."""
        with self._store() as store:
            first, second = Memo(_ODD_TEXT, NOON), Memo("", NOON + timedelta(days=1))

            _remember(store, {("session", _ODD_TEXT): first, ("duty", "a"): first})
            _remember(store, {("session", _ODD_TEXT): second})
            with _failing(store, after_writes=1), pytest.raises(_Failure):
                _remember(store, {("session", _ODD_TEXT): first})

            assert store.memo(_SHOP, "session", _ODD_TEXT) == second
            assert store.transact(_SHOP, lambda one: one.memo("duty", "a")) == first
            assert store.memo(_SHOP, "session", "a") is None
            assert store.memo("another", "duty", "a") is None

    def test_old_memos_of_a_kind_are_forgotten(self) -> None:
        """What was last written before a moment goes, of that kind and workspace alone."""
        with self._store() as store:
            old, new = Memo("old", NOON), Memo("new", NOON + timedelta(days=1))
            _remember(store, {("session", "1"): old, ("session", "2"): new, ("duty", "1"): old})

            gone = store.transact(_SHOP, lambda one: one.forget_memos("session", before=new.at))

            assert gone == 1
            assert [store.memo(_SHOP, "session", key) for key in ("1", "2")] == [None, new]
            assert store.memo(_SHOP, "duty", "1") == old

    def test_nobody_changes_a_memo_that_a_transaction_has_read(self) -> None:
        """Writers that count up in a memo, each on what it read, lose none."""
        with self._store() as store:

            def count(transaction: Transaction) -> None:
                memo = transaction.memo("counter", "a")
                number = int(memo.text) + 1 if memo else 1
                transaction.write(Batch(memos={("counter", "a"): Memo(str(number), NOON)}))

            def count_ten(_worker: int) -> None:
                for _ in range(10):
                    store.transact(_SHOP, count)

            _at_once(4, count_ten)

            assert store.memo(_SHOP, "counter", "a") == Memo("40", NOON)

    def test_what_more_there_is_to_a_message_and_a_conversation_is_kept(self) -> None:
        """The detail of a message, and where the bot automation of its conversation stands, come back as they were."""
        with self._store() as store:
            (received,) = _hub(store).receive("chat", [_message("1", "ann")])
            filing = store.filing(_SHOP, received.conversation or 0)
            assert filing is not None
            detail = {"block": _ODD_TEXT, "choices": [{"value": 1}], "none": None}

            def add(transaction: Transaction) -> None:
                (found,) = transaction.candidates([ThreadQuery(channel="chat", thread=filing.thread)])
                said = _outbound(next(transaction.new_ids()), filing.id, detail)
                filings = {filing.id: evolve(found[0][1], bot=_ODD_TEXT, messages=2)}
                transaction.write(Batch(filings=filings, messages=[said]))

            store.transact(_SHOP, add)

            assert store.filing(_SHOP, filing.id) == evolve(filing, bot=_ODD_TEXT, messages=2)
            assert [one.detail for one in store.messages(_SHOP, filing.id, limit=5)] == [detail, None]

    def test_a_revised_message_keeps_its_place(self) -> None:
        """A message's words, files, status and detail can change, what it is and where it stands cannot."""
        with self._store() as store:
            (received,) = _hub(store).receive("chat", [_message("1", "ann")])
            (before,) = store.messages(_SHOP, received.conversation or 0, limit=5)
            files = (Attachment(name=_ODD_TEXT, url="https://x.example/1"),)
            after = evolve(before, text=_ODD_TEXT, html="<p>", attachments=files, status="seen", detail={"a": [1]})

            _write(store, Batch(revised=[after]))

            assert store.messages(_SHOP, received.conversation or 0, limit=5) == [after]
            _write(store, Batch(revised=[evolve(after, detail=None)]))
            assert store.message(_SHOP, "chat", "1") == evolve(after, detail=None)
            with _failing(store, after_writes=1), pytest.raises(_Failure):
                _write(store, Batch(revised=[before]))
            assert store.message(_SHOP, "chat", "1") == evolve(after, detail=None)

    def test_an_alias_leads_to_its_message(self) -> None:
        """A message is found by each of its external ids, the first that said what one means is right, and so later."""
        with self._store() as store:
            first, second = _queue(store, "ann", 1), _queue(store, "bob", 1)
            alias = Alias(conversation=first[0].conversation, message=first[0].message, part=2)
            rival = evolve(alias, conversation=second[0].conversation, message=second[0].message)

            _write(store, Batch(aliases={("mail", _ODD_TEXT): alias}))
            _write(store, Batch(aliases={("mail", _ODD_TEXT): rival, ("mail", "out/ann/0"): rival}))

            asked = [("mail", _ODD_TEXT), ("mail", "out/ann/0"), ("mail", "none"), ("chat", _ODD_TEXT)]
            found = store.transact(_SHOP, lambda one: one.found(asked))
            assert {key: (one.message.id, one.part) for key, one in found.items()} == {
                asked[0]: (first[0].message, 2),
                asked[1]: (first[0].message, 0),
            }
            assert store.message(_SHOP, "mail", _ODD_TEXT) == found[asked[0]].message
            assert store.message("another", "mail", _ODD_TEXT) is None
            query = ThreadQuery(channel="mail", thread="none", references=("none", _ODD_TEXT))
            (candidates,) = store.transact(_SHOP, lambda one: one.candidates([query]))
            assert [(name, one.id) for name, one in candidates] == [(_ODD_TEXT, first[0].conversation)]

    def test_what_a_watermark_moves_is_found(self) -> None:
        """The outbound messages of a thread up to a moment are given, with the statuses that were asked for."""
        with self._store() as store:
            deliveries = _queue(store, "ann", 4)
            _queue(store, "bob", 1)
            sent = _said(store, deliveries)
            statuses = ("sent", "delivered", "read", "sent")
            _write(store, Batch(revised=[evolve(one, status=as_) for one, as_ in zip(sent, statuses, strict=True)]))
            mark = Watermark(channel="mail", thread="ann", until=sent[2].at, statuses=("sent", "delivered"))
            marks = [mark, evolve(mark, until=sent[3].at, statuses=("sent",)), evolve(mark, channel="chat")]

            found = store.transact(_SHOP, lambda one: one.sent_until(marks))

            assert [[one.external_id for one in each] for each in found] == [
                ["out/ann/0", "out/ann/1"],
                ["out/ann/0", "out/ann/3"],
                [],
            ]

    def test_memos_are_read_together(self) -> None:
        """Those that are there are given by key."""
        with self._store() as store:
            memo = Memo(_ODD_TEXT, NOON)
            _remember(store, {("report", _ODD_TEXT): memo, ("report", "b"): memo, ("duty", "c"): memo})

            found = store.transact(_SHOP, lambda one: one.memos("report", ["c", _ODD_TEXT]))

            assert found == {_ODD_TEXT: memo}
            assert store.memos(_SHOP, "report", ["c", "b"]) == {"b": memo}
            assert store.memos("another", "report", ["b"]) == {}

    # -- deliveries

    def test_a_delivery_is_kept_until_it_ends(self) -> None:
        """It comes back as it was last written, to nobody but its workspace, and is gone once it has ended."""
        with self._store() as store:
            (delivery,) = _queue(store, "ann", 1)
            changed = Delivery(
                message=delivery.message,
                conversation=delivery.conversation,
                channel="mail",
                due_at=NOON + timedelta(hours=1),
                put_off_at=NOON,
                owner=_ODD_TEXT,
                is_under_way=True,
                awaits_echo=True,
                tries=3,
                waited_s=2.5,
                parts_done=1,
            )

            _write(store, Batch(deliveries={changed.message: changed}))

            for read in (
                lambda one: one.deliveries([changed.message, _MANY]),
                lambda one: one.hold([delivery]),
                lambda one: {found.message: found for found in one.deliveries_of(_ODD_TEXT)},
            ):
                assert store.transact(_SHOP, read) == {changed.message: changed}
            assert store.owners(_SHOP) == [_ODD_TEXT]
            assert store.owners("another") == []
            with _failing(store, after_writes=1), pytest.raises(_Failure):
                _write(store, Batch(ended={changed.message: NOON}))
            _write(store, Batch(ended={changed.message: NOON, _MANY: NOON}))
            assert store.transact(_SHOP, lambda one: one.deliveries([changed.message])) == {}
            assert store.owners(_SHOP) == []

    def test_what_waits_is_told_by_channel(self) -> None:
        """How many are to go and when the oldest was written, whoever has them and whenever they are due."""
        with self._store() as store:
            first, second = _queue(store, "ann", 2)
            _queue(store, "bob", 1)
            (said,) = _said(store, [first])
            later = evolve(second, due_at=NOON + timedelta(days=1), owner="worker")
            _write(store, Batch(deliveries={later.message: later}))

            assert store.queues(_SHOP) == {"mail": Queue(3, said.at)}
            assert store.queues("another") == {}
            _write(store, Batch(ended={one.message: NOON for one in _due(store)}))
            assert store.queues(_SHOP)["mail"].length == 1

    def test_a_delivery_is_given_once(self) -> None:
        """What one worker was given, no other is, however many ask at once; another channel's to nobody else."""
        with self._store() as store:
            queued = [one for number in range(30) for one in _queue(store, f"p{number}", 1)]
            taken: dict[int, list[Delivery]] = {worker: [] for worker in range(4)}

            def take(worker: int) -> None:
                while due := _due(store, owner=f"worker {worker}", limit=3):
                    taken[worker] += due

            _at_once(4, take)

            given_away = [one for each in taken.values() for one in each]
            assert sorted(one.message for one in given_away) == [one.message for one in queued]
            assert {one.owner for one in taken[0]} <= {"worker 0"}
            assert _due(store, channel="chat") == []

    def test_a_conversation_is_in_order_and_has_its_turn(self) -> None:
        """Only the first of a conversation is due, and the next after all that others have waiting already."""
        with self._store() as store:
            ann = _queue(store, "ann", 3)
            bob = _queue(store, "bob", 2, at=NOON + timedelta(seconds=1))
            order: list[int] = []

            for turn in range(5):
                at = NOON + timedelta(minutes=1 + turn)
                (one,) = _due(store, at=at, limit=1)
                order.append(one.message)
                assert one.message not in [other.message for other in _due(store, at=at, owner="late", limit=1)]
                _write(store, Batch(deliveries={late.message: late for late in _freed(store, "late")}))
                _write(store, Batch(ended={one.message: at}))

            assert order == [one.message for one in (ann[0], bob[0], ann[1], bob[1], ann[2])]
            assert _due(store) == []

    def test_who_is_put_off_holds_up_its_conversation_alone(self) -> None:
        """A delivery that is not due yet lets none of its conversation pass, and all others."""
        with self._store() as store:
            first, _ = _queue(store, "ann", 2)
            (other,) = _queue(store, "bob", 1)
            later = NOON + timedelta(minutes=1)
            _write(store, Batch(deliveries={first.message: evolve(first, due_at=later)}))

            assert [one.message for one in _due(store, at=NOON)] == [other.message]
            assert [one.message for one in _due(store, at=later)] == [first.message]

    def test_what_is_queued_again_waits_for_what_goes_already(self) -> None:
        """An older message of a conversation that comes back is no second one that may go."""
        with self._store() as store:
            first, second = _queue(store, "ann", 2)
            _write(store, Batch(ended={first.message: NOON}))

            _write(store, Batch(deliveries={first.message: first}))

            assert [one.message for one in _due(store)] == [second.message]
            assert _due(store) == []
            _write(store, Batch(ended={second.message: NOON}))
            assert [one.message for one in _due(store)] == [first.message]

    def test_a_clock_that_is_set_back_holds_nothing_up(self) -> None:
        """What was put off by a clock that was ahead becomes due; what the clock of now put off does not."""
        with self._store() as store:
            (ahead,), (right,) = _queue(store, "ann", 1), _queue(store, "bob", 1)
            hour = timedelta(hours=1)
            for one, at in ((ahead, NOON + hour), (right, NOON)):
                _write(store, Batch(deliveries={one.message: evolve(one, put_off_at=at, due_at=NOON + 2 * hour)}))

            store.transact(_SHOP, lambda one: one.bring_forward(NOON))

            assert [one.message for one in _due(store, at=NOON)] == [ahead.message]

    def test_no_delivery_is_forgotten_between_writers(self) -> None:
        """While answers are queued and others end in one conversation, there is always one that may go."""
        with self._store() as store:
            hub = _hub(store)
            (received,) = hub.receive("mail", [evolve(_message("ann", "ann"), thread="ann")])
            conversation = received.conversation or 0

            def work(worker: int) -> None:
                for turn in range(20):
                    if worker:
                        _queue_one(store, "ann", conversation, f"{worker}/{turn}")
                        continue
                    _end_all(store)

            _at_once(4, work)
            while _end_all(store):
                continue

            assert store.transact(_SHOP, lambda one: one.deliveries(range(_MANY // 100))) == {}

    def test_what_a_delivery_needs_is_given(self) -> None:
        """Its message, conversation, the spelling of the address, up to 20 messages before, when the last came in."""
        with self._store() as store:
            hub = _hub(store)
            claims = (Claim("email", "Ann@Shop.example", Trust.CHANNEL),)
            events = [
                MessageReceived(
                    external_id=f"in/{turn}",
                    hint=IdentityHint(at=NOON + timedelta(minutes=turn), identifiers=claims),
                    at=NOON + timedelta(minutes=turn),
                    thread="ann",
                )
                for turn in range(REFERENCES + 2)
            ]
            (*_, received) = hub.receive("mail", events)
            hub.note(received.conversation or 0, "only for us", by="eve")
            first, second = (_queue_one(store, "ann", received.conversation or 0, name) for name in ("1", "2"))
            (other,) = _queue(store, "bob", 1)

            found = store.outgoing(_SHOP, [second, evolve(first, message=_MANY), other])

            assert [one.message.external_id for one in found] == ["out/ann/2", "out/bob/0"]
            assert found[0].address == "Ann@Shop.example"
            assert found[0].filing.identifier == _email("ann")
            names = [*(f"in/{turn}" for turn in range(REFERENCES + 2)), "out/ann/1"]
            assert found[0].references == tuple(names[-REFERENCES:])
            assert found[0].heard_at == NOON + timedelta(minutes=REFERENCES + 1)
            assert found[1].references == ("bob",)

    def test_what_goes_out_refers_to_messages_of_its_channel(self) -> None:
        """A chat that is followed up by mail has messages of both; the ids of one say nothing in the other."""
        with self._store() as store:
            (opened,) = _hub(store).receive("mail", [_message("in/1", "ann")])
            conversation = opened.conversation or 0
            ours = [
                evolve(_outbound(_MANY + turn, conversation, {}), channel=channel, external_id=f"out/{turn}")
                for turn, channel in enumerate(("mail", "follow-up", "mail", "follow-up"))
            ]
            delivery = Delivery(message=_MANY, conversation=conversation, channel="", due_at=NOON, put_off_at=NOON)

            store.transact(_SHOP, lambda one: one.write(Batch(messages=ours)))
            found = store.outgoing(_SHOP, [evolve(delivery, message=one.id) for one in ours])

            assert [one.references for one in found] == [("in/1",), (), ("in/1", "out/0"), ("out/1",)]

    def test_who_takes_part_in_a_conversation_is_kept(self) -> None:
        """The participants of a conversation come back in their order, and more of them are added later."""
        with self._store() as store:
            hub = _hub(store)
            first = evolve(_message("1", "ann"), participants=_copies("zoe", "ben"))
            second = evolve(_message("2", "ann"), participants=_copies("ben", "cat"))

            (opened,) = hub.receive("mail", [first])
            once = store.filing(_SHOP, opened.conversation or 0)
            hub.receive("mail", [second])
            twice = store.filing(_SHOP, opened.conversation or 0)

            assert once is not None
            assert twice is not None
            assert once.participants == (_email("zoe"), _email("ben"))
            assert twice.participants == (_email("zoe"), _email("ben"), _email("cat"))

    def test_conversations_in_review_are_given_alone(self) -> None:
        """The queue holds what staff must look at, until they have decided."""
        with self._store() as store:
            hub = _hub(store)
            nobody = IdentityHint(at=NOON)
            doubts = [evolve(_message(f"{turn}", "ann"), hint=nobody, review="two senders") for turn in range(3)]
            opened = [one.conversation for one in hub.receive("mail", [*doubts, _message("plain", "ann")])]

            hub.review(opened[1] or 0, sender="ben@shop.example", by="kim")
            hub.review(opened[2] or 0, sender="", by="kim")

            assert [one.id for one in hub.review_queue()] == opened[:1]
            assert [one.id for one in hub.conversations()] != opened[:1]

    def test_two_messages_of_one_id_that_come_at_once_are_both_kept(self) -> None:
        """Deliveries of two messages that share an id, each again and again, keep each once, one of them flagged."""
        with self._store() as store:
            hub = _hub(store)

            def write(worker: int) -> None:
                name = ("ann", "ben")[worker % 2]
                for turn in range(5):
                    twin = evolve(_message(f"twin {turn}", name), fingerprint=name)
                    hub.receive("mail", [twin, _message(f"{worker}/{turn}", name)])

            _at_once(4, write)

            kept = [
                message
                for filing in store.filings(_SHOP, identifiers=None, before=None, limit=_MANY)
                for message in store.messages(_SHOP, filing.id, before=None, limit=_MANY)
                if message.external_id.startswith("twin")
            ]
            flags = sorted((one.detail or {}).get("same_id_as", "") for one in kept)
            assert sorted((one.detail or {})["fingerprint"] for one in kept) == ["ann"] * 5 + ["ben"] * 5
            assert flags == [""] * 5 + [f"twin {turn}" for turn in range(5)]

    def test_a_thread_gives_its_conversations(self) -> None:
        """The conversations of one thread of one channel come newest first, and no more than asked for."""
        with self._store() as store:
            hub = _hub(store)
            events = [evolve(_message(f"{turn}", name), thread="t") for turn, name in enumerate(("ann", "ben", "cat"))]

            opened = [one.conversation for one in hub.receive("chat", events)]
            hub.receive("chat", [_message("other", "ann")])
            hub.receive("mail", [evolve(_message("mail", "ann"), thread="t")])

            assert [one.id for one in store.thread(_SHOP, "chat", "t", limit=_MANY)] == opened[::-1]
            assert [one.id for one in store.thread(_SHOP, "chat", "t", limit=1)] == opened[-1:]
            assert store.thread("another", "chat", "t", limit=1) == []

    def test_messages_are_read_from_either_side(self) -> None:
        """`before` gives the newest below a message, `after` the oldest above it; both lists have the newest first."""
        with self._store() as store:
            hub = _hub(store)
            (*_, last) = hub.receive("chat", [_message(f"{turn}", "ann") for turn in range(5)])
            number = last.conversation or 0
            ids = [one.id for one in store.messages(_SHOP, number, limit=_MANY)][::-1]

            older = store.messages(_SHOP, number, before=ids[3], limit=2)
            newer = store.messages(_SHOP, number, after=ids[0], limit=2)

            assert [one.id for one in older] == [ids[2], ids[1]]
            assert [one.id for one in newer] == [ids[2], ids[1]]
            assert store.messages(_SHOP, number, after=ids[-1], limit=2) == []

    def test_concurrent_writers_lose_nothing(self) -> None:
        """Threads that write about the same people at once give the people that one thread gives."""
        with self._store() as store:
            hub = _hub(store)

            def write(worker: int) -> None:
                for turn in range(6):
                    name = f"p{turn}"
                    hub.receive("chat", [_message(f"{worker}/{turn}", name), _message("same for all", "shared")])
                    hub.resolve(_proven(f"{worker}.{turn}", name))
                    assert store.find(_SHOP, _email(name)) is not None

            _at_once(6, write)

            assert len(_identity(store)) == 6 + 1
            kept = [
                message.external_id
                for filing in store.filings(_SHOP, identifiers=None, before=None, limit=_MANY)
                for message in store.messages(_SHOP, filing.id, before=None, limit=_MANY)
            ]
            assert sorted(kept) == sorted(["same for all", *(f"{w}/{t}" for w in range(6) for t in range(6))])
            assert sum(one.outcome is Outcome.CREATED for one in _decisions(store, 6)) == 6 + 1

    # -- pages

    @pytest.mark.parametrize("limit", [1, 4, 100])
    def test_pages_are_complete_and_without_doubles(self, limit: int) -> None:
        """Pages of contacts, conversations, messages and notices give each once, in order, ties of time included."""
        with self._store() as store:
            hub = _hub(store)
            hub.receive("chat", [_message(f"m{n}", f"p{n}") for n in range(9)])
            hub.receive("chat", [_message(f"again {n}", "p0") for n in range(9)])

            contacts = list(_pages(lambda last: store.contacts(_SHOP, after=last.id if last else 0, limit=limit)))
            filings = list(
                _pages(
                    lambda last: store.filings(
                        _SHOP, identifiers=None, before=last.opened if last else None, limit=limit
                    )
                )
            )
            talk = next(one for one in filings if one.identifier == _email("p0"))
            messages = list(
                _pages(lambda last: store.messages(_SHOP, talk.id, before=last.id if last else None, limit=limit))
            )
            notices = list(_pages(lambda last: store.notices(_SHOP, since=last.id if last else 0, limit=limit)))

            assert contacts == _identity(store)
            assert [one.id for one in contacts] == sorted({one.id for one in contacts})
            assert len(contacts) == 9  # noqa: PLR2004
            assert [one.opened for one in filings] == sorted({one.opened for one in filings}, reverse=True)
            assert len(filings) == 9  # noqa: PLR2004
            assert [one.id for one in messages] == sorted({one.id for one in messages}, reverse=True)
            assert len(messages) == 1 + 9
            assert notices == store.notices(_SHOP, since=0, limit=_MANY)
            assert [one.id for one in notices] == sorted({one.id for one in notices})
            assert [one.type for one in notices].count("message.received") == 18  # noqa: PLR2004

    @contextlib.contextmanager
    def _store(self) -> Iterator[Store]:
        store = self.open()
        try:
            yield store
        finally:
            store.close()


class DurableStoreContract(StoreContract):
    """The laws of a store in a database: data outlives the process, and batches are written in sets."""

    def reopen(self, store: Store) -> Store:
        """Close `store` and open what it has kept."""
        raise NotImplementedError(f"{type(self).__name__} has no reopen(): close the store and open its data again")

    def statements(self, store: Store) -> AbstractContextManager[list[str]]:
        """Give a context that lists the statements sent to the database inside it."""
        raise NotImplementedError(f"{type(self).__name__} has no statements(): list what is sent to the database")

    def test_data_outlives_the_store(self) -> None:
        """A store that is opened again gives everything, and goes on with new ids."""
        store = self.open()
        hub = _hub(store)
        _fill(hub)
        before = _everything(store)
        reopened = self.reopen(store)
        with contextlib.closing(reopened):
            assert _everything(reopened) == before
            assert _hub(reopened).resolve(_proven("new", "new")).contact not in {one.id for one in before["contacts"]}

    def test_statements_do_not_grow_with_the_batch(self) -> None:
        """A batch of 64 hints that attach takes as many statements as one of 8."""
        with self._store() as store:
            hub = _hub(store)
            hub.resolve_many([_hint(f"first {n}", f"p{n}", trust=Trust.CHANNEL) for n in range(64)])
            hub.receive("chat", [_message("first", "p0")])
            counts = []
            for size in (8, 64):
                hints = [_hint(f"{size}/{n}", f"p{n}", trust=Trust.CHANNEL) for n in range(size)]
                messages = [_message(f"{size}/{n}", f"p{n}") for n in range(size)]
                with self.statements(store) as statements:
                    hub.resolve_many(hints)
                    hub.receive("chat", messages)
                counts.append(len(statements))

            assert counts[0] == counts[1], "load and write in sets: no statement for each hint"
            assert counts[0] > 0


class _Failure(Exception):  # noqa: N818  (not an error of anybody's)
    pass


@contextlib.contextmanager
def _failing(store: Store, *, after_writes: int) -> Iterator[None]:
    """Let every transaction of `store` fail once it has written `after_writes` times."""
    transact = store.transact

    def transact_and_fail(workspace: str, work: Callable[[Transaction], object]) -> object:
        def failing(transaction: Transaction) -> object:
            write, writes = transaction.write, iter(range(1, _MANY))

            def fail(batch: Batch) -> None:
                write(batch)
                if next(writes) == after_writes:
                    raise _Failure

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(transaction, "write", fail)
                return work(transaction)

        return transact(workspace, failing)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "transact", transact_and_fail)
        yield


def _email(name: str) -> Identifier:
    return Identifier("email", "", f"{name}@shop.example")


def _account(name: str) -> Identifier:
    return Identifier("external_id", "", f"account-{name}")


def _hint(id: str, name: str, **fields: Any) -> IdentityHint:  # noqa: A002, ANN401  (what `hint` takes)
    return hint(id, email=f"{name}@shop.example", **fields)


def _proven(id: str, name: str, **fields: Any) -> IdentityHint:  # noqa: A002, ANN401  (what `hint` takes)
    return _hint(id, name, account=f"account-{name}", trust=Trust.PROVEN, **fields)


def _message(external_id: str, name: str) -> MessageReceived:
    return MessageReceived(external_id=external_id, hint=_hint("", name, trust=Trust.CHANNEL), at=NOON, text=name)


def _write(store: Store, batch: Batch) -> None:
    store.transact(_SHOP, lambda one: one.write(batch))


def _queue(store: Store, name: str, count: int, *, at: datetime = NOON) -> list[Delivery]:
    """Let somebody write by mail, and queue so many answers."""
    (received,) = _hub(store).receive("mail", [evolve(_message(name, name), thread=name)])
    return [_queue_one(store, name, received.conversation or 0, str(number), at=at) for number in range(count)]


def _queue_one(store: Store, thread: str, conversation: int, name: str, *, at: datetime = NOON) -> Delivery:
    def work(transaction: Transaction) -> Delivery:
        transaction.candidates([ThreadQuery(channel="mail", thread=thread)])
        number = next(transaction.new_ids())
        said = evolve(_outbound(number, conversation, {}), channel="mail", external_id=f"out/{thread}/{name}")
        delivery = Delivery(message=number, conversation=conversation, channel="mail", due_at=at, put_off_at=at)
        transaction.write(Batch(messages=[evolve(said, at=at + timedelta(minutes=1) * number)]))
        transaction.write(Batch(deliveries={number: delivery}))
        return delivery

    return store.transact(_SHOP, work)


def _said(store: Store, deliveries: Sequence[Delivery]) -> list[Message]:
    return [one.message for one in store.outgoing(_SHOP, deliveries)]


def _due(
    store: Store, *, channel: str = "mail", owner: str = "worker", at: datetime = NOON, limit: int = _MANY
) -> list[Delivery]:
    return store.transact(_SHOP, lambda one: one.due(channel, owner=owner, at=at, limit=limit))


def _freed(store: Store, owner: str) -> list[Delivery]:
    return [evolve(one, owner="") for one in store.transact(_SHOP, lambda one: one.deliveries_of(owner))]


def _end_all(store: Store) -> int:
    """End what is due, as a worker does; give how many there were."""

    def end(transaction: Transaction, due: list[Delivery]) -> None:
        transaction.write(Batch(ended=dict.fromkeys(transaction.hold(due), NOON)))

    due = _due(store)
    store.transact(_SHOP, lambda one: end(one, due))
    return len(due)


def _copies(*names: str) -> tuple[Claim, ...]:
    return tuple(Claim("email", _email(name).value, Trust.ASSERTED) for name in names)


def _remember(store: Store, memos: dict[tuple[str, str], Memo]) -> None:
    store.transact(_SHOP, lambda one: one.write(Batch(memos=memos)))


def _outbound(number: int, conversation: int, detail: dict[str, Any]) -> Message:
    return Message(
        id=number,
        conversation=conversation,
        channel="chat",
        external_id=f"out/{number}",
        direction=Direction.OUTBOUND,
        at=NOON,
        text="",
        detail=detail,
    )


def _write_message(store: Store, conversation: int, channel: str, external_id: str) -> None:
    def work(transaction: Transaction) -> None:
        message = Message(
            id=next(transaction.new_ids()),
            conversation=conversation,
            channel=channel,
            external_id=external_id,
            direction=Direction.INBOUND,
            at=NOON,
            text="",
        )
        transaction.write(Batch(messages=[message]))

    store.transact(_SHOP, work)


def _hub(store: Store, clock: FakeClock | None = None) -> Hub:
    return Hub(store, workspace=_SHOP, clock=clock or FakeClock(NOON + timedelta(days=30)))


def _fill(hub: Hub) -> None:
    """Write something of everything: people, messages, cookies, links, a refusal, a merge, a cannot-link, consent."""
    events: list[Event] = [_message(f"m{n}", f"p{n}") for n in range(5)]
    hub.receive("chat", events)
    hub.resolve_many([_proven(f"p{n}", f"p{n}", traits={"name": f"P{n}"}, visitor=f"{n}" * 32) for n in range(5)])
    pair = (Claim("phone", "+4930123456", Trust.CHANNEL), Claim("email", "p9@shop.example", Trust.CHANNEL))
    hub.resolve(hint("together", claims=pair))
    claims = (Claim("email", "p1@shop.example", Trust.AGENT),)
    hub.resolve(hint("refused", email="p2@shop.example", trust=Trust.AGENT, claims=claims))
    hub.merge(_email("p4"), _email("p9"), by="eve", merge_id="merge")
    hub.cannot_link(_email("p0"), _email("p1"), by="eve", ruling_id="apart")
    hub.record_consent("email", "p0@shop.example", "news", ConsentState.GRANTED, by="eve")
    contact = hub.find("email", "p0@shop.example")
    if contact:
        hub.set_list(contact.id, "news", ListState.SUBSCRIBED, how="form")


def _identity(store: Store, workspace: str = _SHOP) -> list[ContactRecord]:
    return store.contacts(workspace, after=0, limit=_MANY)


def _standing(store: Store) -> dict[int, dict[str, Trust | None]]:
    """Give who is who, by contact id: what a merge and its undo must leave as it was."""
    return {one.id: {str(held.node): held.trust for held in one.holdings} for one in _identity(store)}


def _attribution(hub: Hub) -> dict[int, int | None]:
    return {one.id: one.contact for one in hub.conversations(limit=_MANY)}


def _everything(store: Store, workspace: str = _SHOP) -> dict[str, Any]:
    """Give all that a workspace shows."""
    contacts = _identity(store, workspace)
    identifiers = {held.node.identifier for one in contacts for held in one.holdings}
    filings = store.filings(workspace, identifiers=None, before=None, limit=_MANY)
    return {
        "contacts": contacts,
        "filings": filings,
        "messages": [store.messages(workspace, one.id, before=None, limit=_MANY) for one in filings],
        "notices": store.notices(workspace, since=0, limit=_MANY),
        "hints": store.hints(workspace, identifiers, limit=_MANY),
        "rulings": store.rulings(workspace, identifiers),
        "traits": sorted(store.traits(workspace, identifiers), key=repr),
        "visitors": sorted(store.visitors(workspace, identifiers)),
        "named together": sorted(store.named_together(workspace, None), key=repr),
        "consents": store.consents(workspace, identifiers),
        "memberships": store.memberships(workspace, [member for one in contacts for member in one.members]),
    }


def _load_history(store: Store, name: str) -> Known:
    def work(transaction: Transaction) -> Known:
        known = transaction.load([])
        transaction.load_history(known, [_email(name)])
        return known

    return store.transact(_SHOP, work)


def _history(store: Store, name: str) -> tuple[set[str], set[str]]:
    """Give the joint hints and the rulings that the history of `name` holds."""
    known = _load_history(store, name)
    return {key for key, one in known.evidence.items() if one.links}, set(known.rulings)


def _decisions(store: Store, workers: int) -> list[Decision]:
    identifiers = [_email(name) for name in ("shared", *(f"p{n}" for n in range(workers)))]
    identifiers += [_account(f"p{n}") for n in range(workers)]
    return [one.decision for one in store.hints(_SHOP, identifiers, limit=_MANY)]


def _told(decision: Decision) -> Decision:
    """Give the decision without contact ids, which are each workspace's own."""
    return evolve(decision, contact=None, absorbed=(0,) * len(decision.absorbed))


def _people(hub: Hub) -> set[frozenset[str]]:
    records = hub.store.contacts(hub.workspace, after=0, limit=_MANY)
    return {frozenset(str(held.node) for held in record.holdings) for record in records}


def _pages(load: Callable[[Any], Sequence[Any]]) -> Iterator[Any]:
    last = None
    while page := load(last):
        yield from page
        last = page[-1]


def _at_once(workers: int, work: Callable[[int], None]) -> None:
    """Let threads start `work` at the same moment, and pass on what any of them raises."""
    start = threading.Barrier(workers)

    def run(worker: int) -> None:
        start.wait()
        work(worker)

    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(run, worker) for worker in range(workers)]:
            done.result()


def _histories() -> st.SearchStrategy[list[IdentityHint]]:
    """Give short histories about few people, so that they meet: links, refusals, epochs, cookies and replays."""
    values = {"email": ("a@x.example", "b@x.example", "info@x.example"), "phone": ("+4930123456",)}
    values["external_id"] = ("u1", "u2")
    claims = st.sampled_from(sorted(values)).flatmap(
        lambda kind: st.builds(Claim, st.just(kind), st.sampled_from(values[kind]), st.sampled_from(Trust))
    )
    hints = st.builds(
        lambda number, day, named, visitor, may_create: IdentityHint(
            id=f"h{number}",
            at=NOON + timedelta(days=day),
            identifiers=tuple(named),
            visitor=visitor,
            may_create=may_create,
        ),
        st.integers(0, 9),
        st.integers(0, 20),
        st.lists(claims, max_size=3),
        st.sampled_from((None, "c" * 32)),
        st.sampled_from((True, True, True, False)),
    )
    return st.lists(hints, min_size=1, max_size=7)
