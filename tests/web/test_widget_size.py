import gzip
from importlib import resources

import pytest

SCRIPT = resources.files("convsdk.web") / "static" / "widget.js"
LARGEST = 15 * 1024
WAYS_AROUND = ["eval(", "new Function", "innerHTML", "insertAdjacentHTML", "document.write", "style=", ".style"]


def test_widget_travels_in_15_kilobytes():
    """The whole widget, compressed as servers do, costs a page no more than 15 KB."""
    travelling = gzip.compress(SCRIPT.read_bytes(), compresslevel=9)

    assert len(travelling) <= LARGEST


@pytest.mark.parametrize("way", WAYS_AROUND)
def test_widget_has_no_way_around_a_strict_policy(way):
    """No text becomes code, markup or an inline style: a strict policy forbids it, and data could abuse it."""
    assert way not in SCRIPT.read_text(encoding="utf-8")
