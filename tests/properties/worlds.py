"""Random histories for the property tests: few people, few values, all trusts, so that everything collides."""

from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st

from convsdk.core.fold import Policy
from convsdk.core.identifiers import Kinds, MessagingId
from convsdk.core.model import Claim, IdentityHint, Trust

DAY_ZERO = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(kinds=Kinds([MessagingId("messenger_psid"), MessagingId("whatsapp_bsuid")]), component_cap=5)

VALUES = {
    "email": ["ann@shop.example", "bob@shop.example", "cat@shop.example", "info@shop.example"],
    "phone": ["+14155550123", "+14155550199"],
    "external_id": ["u-1", "u-2"],
    "messenger_psid": ["p-1", "p-2"],
    "whatsapp_bsuid": ["b-1", "b-2"],
}
CLAIMS = st.sampled_from([(kind, value) for kind, values in VALUES.items() for value in values])


def examples(number):
    """Give settings for so many examples: in a profile with fewer than Hypothesis' usual 100, for as large a part."""
    return settings(max_examples=number * settings.default.max_examples // 100, deadline=None)


@st.composite
def hints(draw, *, number=None, trusts=tuple(Trust)):
    """Give one hint about the few people of this world; `number` makes its id and its event time its own."""
    claims = draw(st.lists(st.tuples(CLAIMS, st.sampled_from(trusts)), max_size=3))
    number = draw(st.integers(0, 10_000)) if number is None else number
    return IdentityHint(
        id=f"h{number:05}",
        at=DAY_ZERO + timedelta(hours=number),
        identifiers=tuple(Claim(kind, value, trust) for (kind, value), trust in claims),
        visitor=draw(st.sampled_from([None, None, "v1", "v2"])),
        may_create=draw(st.sampled_from([True, True, True, False])),
    )


@st.composite
def histories(draw, *, most=9):
    """Give hints with distinct event times."""
    numbers = draw(st.lists(st.integers(0, 2000), min_size=1, max_size=most, unique=True))
    return [draw(hints(number=number)) for number in numbers]
