from convsdk.core.events import Notice
from convsdk.testing.builders import NOON


def test_notice_of_a_contact_that_a_mail_made_automates_nothing():
    """How a contact came to be says whether an automation may hear of it; an inbound e-mail is the one that may not."""
    payloads = [{"how": "inbound e-mail"}, {"how": "chat form"}, {}]

    told = [Notice(type="automation.entered", at=NOON, payload=one).may_automate for one in payloads]

    assert told == [False, True, True]
