from importlib import metadata, resources

import pytest


def test_distribution_announces_its_built_in_channels():
    """The four built-in channels are entry points of this distribution, as any plugin's are."""
    announced = metadata.distribution("convsdk").entry_points.select(group="convsdk.plugins")

    assert {entry.name: entry.value for entry in announced} == {
        "chat": "convsdk.channels.chat",
        "email": "convsdk.channels.email",
        "js_identify": "convsdk.channels.js_identify",
        "messenger": "convsdk.channels.messenger",
    }


@pytest.mark.parametrize("extra", ["all", "email", "postgresql", "testing", "web"])
def test_distribution_offers_extra(extra):
    """Every extra that the README names can be installed."""
    assert extra in metadata.metadata("convsdk").get_all("Provides-Extra")


def test_distribution_is_typed():
    """Type checkers find the marker that lets them read the annotations."""
    assert resources.files("convsdk").joinpath("py.typed").is_file()
