from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from servers import STORES, fresh_store

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.core.events import MessageReceived
from convsdk.core.inbox import ConversationStatus
from convsdk.core.model import Direction
from convsdk.errors import Conflict, NotFound
from convsdk.hub import Hub
from convsdk.store import open_store
from convsdk.testing.builders import NOON, FakeClock, hint

OPEN, COMPLETE = ConversationStatus.OPEN, ConversationStatus.COMPLETE


@pytest.fixture(params=STORES)
def hub(request, tmp_path):
    """Give a hub with a chat, on a store of each kind that ships."""
    with closing(open_store(fresh_store(request.param, tmp_path))) as store:
        yield shop(store)


def shop(store):
    """Give a hub with a chat."""
    return Hub(store, channels=[ChatChannel("site", ChatSettings())], clock=FakeClock())


def wrote(hub, name="m1", **fields):
    """Let a visitor write; give the conversation."""
    said = hint(visitor="v1", at=NOON)
    event = MessageReceived(external_id=name, hint=said, at=NOON, text="Hello?", thread="v1", **fields)
    (received,) = hub.receive("site", [event])
    return received.conversation


def lines(hub, conversation):
    """Give the lines of a conversation, the oldest first."""
    return [one.text for one in hub.messages(conversation) if one.direction is Direction.LINE][::-1]


def told(hub, prefix="conversation."):
    """Give the notices of a kind, each as its type and who did it, but for the opening."""
    notices = hub.store.notices(hub.workspace, since=0, limit=1000)
    found = [(one.type, one.payload.get("by")) for one in notices if one.type.startswith(prefix)]
    return [one for one in found if one[0] != "conversation.opened"]


def test_conversation_is_completed_and_opened_again(hub):
    """A line says who did it, observers are told, and a second time says nothing more."""
    conversation = wrote(hub)

    for _ in range(2):
        assert hub.complete(conversation, by="kim").filing.status is COMPLETE
    assert hub.conversation(conversation).filing.unread == 0
    for _ in range(2):
        assert hub.reopen(conversation, by="lee").filing.status is OPEN

    assert lines(hub, conversation) == ["completed by kim", "reopened by lee"]
    assert told(hub) == [("conversation.completed", "kim"), ("conversation.reopened", "lee")]


def test_whoever_writes_opens_a_conversation_again(hub):
    """Observers are told, once; what a program wrote opens nothing."""
    conversation = wrote(hub)
    hub.complete(conversation, by="kim")

    wrote(hub, "m2", is_automatic=True)
    assert hub.conversation(conversation).filing.status is COMPLETE
    wrote(hub, "m3")
    wrote(hub, "m4")

    assert hub.conversation(conversation).filing.status is OPEN
    assert told(hub) == [("conversation.completed", "kim"), ("conversation.reopened", None)]


def test_conversation_is_assigned_and_given_back(hub):
    """A line says to whom and by whom; to whom it is already, says nothing."""
    conversation = wrote(hub)

    for to in ("kim", "kim", ""):
        assert hub.assign(conversation, to, by="lee").filing.assignee == to

    assert lines(hub, conversation) == ["assigned to kim by lee", "assigned to nobody by lee"]
    assert told(hub) == [("conversation.assigned", "lee")] * 2


def test_conversation_is_read_by_all_agents(hub):
    """Unless more came than was read."""
    conversation = wrote(hub)
    seen = hub.conversation(conversation).filing.messages
    wrote(hub, "m2")

    assert hub.mark_read(conversation, messages=seen).filing.unread == 2
    assert hub.mark_read(conversation, messages=seen + 1).filing.unread == 0
    wrote(hub, "m3")
    assert hub.mark_read(conversation).filing.unread == 0


def test_conversation_in_review_is_not_completed(hub):
    """Somebody has to say first whose it is."""
    conversation = wrote(hub, review="two senders")

    with pytest.raises(Conflict, match="is in review"):
        hub.complete(conversation, by="kim")

    assert hub.reopen(conversation, by="kim").filing.status is ConversationStatus.REVIEW


@pytest.mark.parametrize("action", ["complete", "reopen", "mark_read"])
def test_conversation_that_is_not_there_is_said_so(hub, action):
    """The error names it, and where to find those that are."""
    more = {} if action == "mark_read" else {"by": "kim"}

    with pytest.raises(NotFound, match="no conversation 99"):
        getattr(hub, action)(99, **more)


def test_agents_who_act_at_once_agree(hub):
    """Of many who complete a conversation one does; who assigns it last has it, and each change is told once."""
    conversation = wrote(hub)
    agents = [f"agent-{number}" for number in range(8)]

    with ThreadPoolExecutor(len(agents)) as pool:
        list(pool.map(lambda one: hub.complete(conversation, by=one), agents))
        list(pool.map(lambda one: hub.assign(conversation, one, by=one), agents))

    filing = hub.conversation(conversation).filing
    (completed, *assigned) = lines(hub, conversation)
    assert completed.startswith("completed by agent-")
    assert len(assigned) == len(agents)
    assert assigned[-1] == f"assigned to {filing.assignee} by {filing.assignee}"
    assert filing.messages == len(hub.messages(conversation).items) == 1 + 1 + len(agents)
    assert len(told(hub)) == 1 + len(agents)
