"""The adapters keep the laws that warn, and fail nobody, until the next release."""

from pathlib import Path

import pytest

from convsdk.plugins import load_plugins
from convsdk.testing import ChannelContract
from convsdk.testing.laws import laws_of
from convsdk.testing.scorecard import find_contract

ADAPTERS = sorted(one.name for one in Path(__file__).parent.glob("convsdk-*"))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapter_keeps_the_laws_to_come(adapter):
    """No adapter is warned: it keeps today what fails from the next release on."""
    plugins = load_plugins()
    types = [plugins.channel_types[name] for name, owner in plugins.distributions.items() if owner == adapter]
    contracts = [find_contract(adapter, one)() for one in types]

    assert contracts
    for contract in contracts:
        for one in laws_of(ChannelContract):
            if not one.is_binding and one.concerns(contract):
                one.check(contract)
