"""For authors of channels and stores: the contracts that say when one is right, and builders for tests.

`ChannelContract` and `StoreContract` need the extra `testing` (pytest and Hypothesis). Subclass one in a test file
under a name that begins with `Test`, and its laws become your tests.
"""

from convsdk.testing.builders import NOON, FakeClock, hint, request
from convsdk.testing.channel_contract import ChannelContract, Golden
from convsdk.testing.laws import LawWarning
from convsdk.testing.sending_contract import GoldenAnswer, GoldenSend, SendingContract
from convsdk.testing.store_contract import DurableStoreContract, StoreContract

__all__ = [
    "NOON",
    "ChannelContract",
    "DurableStoreContract",
    "FakeClock",
    "Golden",
    "GoldenAnswer",
    "GoldenSend",
    "LawWarning",
    "SendingContract",
    "StoreContract",
    "hint",
    "request",
]
