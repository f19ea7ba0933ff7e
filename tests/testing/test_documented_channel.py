import re
from pathlib import Path

import pytest

from convsdk.testing import ChannelContract

pytestmark = pytest.mark.once  # as test_channel_contract.py

PAGE = Path(__file__).parents[2] / "docs" / "channels.md"


def documented_contract(name):
    """Give a contract of the channel that the documentation shows, as its readers write it."""
    namespace = {"__name__": "the_documented_channel"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, PAGE, "exec"), namespace)  # noqa: S102  (running the project's own documentation)
    return namespace[name]


@pytest.mark.parametrize("name", ["TestDeskChannel", "TestAnsweringDesk"])
@pytest.mark.parametrize("law", [name for name in dir(ChannelContract) if name.startswith("test_")])
def test_documented_channel_keeps_every_law(name, law):
    """The channels that authors start from pass the kit that they are told to use."""
    contract = documented_contract(name)

    getattr(contract(), law)()
