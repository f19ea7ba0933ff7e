from datetime import UTC, datetime, timedelta

from convsdk.core.fold import Evidence
from convsdk.core.model import Identifier, Trust
from convsdk.core.storage import cuts
from convsdk.store.memory import MemoryStore

START = datetime(2026, 1, 1, tzinfo=UTC)
PHONE = Identifier("phone", "", "+4930123456")


def seen(day, account, *, is_alone=False):
    """Give evidence that attests the phone, with an account or alone."""
    links = () if is_alone else ((Identifier("external_id", "", account), Trust.PROVEN),)
    return Evidence(hint=f"h{day}", at=START + timedelta(days=day), anchor=PHONE, trust=Trust.PROVEN, links=links)


def test_identifier_is_cut_where_joint_evidence_says_something_new():
    """What says the same again cuts nothing, nor does what stands alone; the order it is given in does not matter."""
    evidence = [seen(3, "u2"), seen(1, "u1"), seen(0, "", is_alone=True), seen(2, "u1"), seen(4, "u1")]

    moments = cuts(evidence)[PHONE]

    assert [hint for _, hint in moments] == ["h1", "h3", "h4"]


def test_store_without_older_releases_finishes_nothing():
    """A store that says nothing of upgrades has no step left over."""
    assert MemoryStore().finish_upgrade() == []


def test_store_of_one_process_hears_of_no_other():
    """A store that cannot tell what others queue calls nobody."""
    heard = []

    stop = MemoryStore().listen(lambda: heard.append(1))
    stop()

    assert heard == []
