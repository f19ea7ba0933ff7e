"""What we are said to have sent, for tests of what comes back."""

from attrs import evolve

from convsdk.core.model import Direction, Message
from convsdk.core.storage import Batch, ThreadQuery
from convsdk.testing import NOON


def send(hub, conversation, text, *, external_id, status):
    """Let us have answered in a conversation, and left it in `status`."""
    filing = hub.conversation(conversation).filing

    def work(transaction):
        transaction.candidates([ThreadQuery(channel=filing.channel, thread=filing.thread)])
        said = Message(
            id=next(transaction.new_ids()),
            conversation=conversation,
            channel=filing.channel,
            external_id=external_id,
            direction=Direction.OUTBOUND,
            at=NOON,
            text=text,
            status="sent",
        )
        changed = evolve(filing, status=status, unread=0, messages=filing.messages + 1)
        transaction.write(Batch(messages=[said], filings={conversation: changed}))

    hub.store.transact(hub.workspace, work)
