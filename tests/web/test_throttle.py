import pytest
from servers import fresh_store
from visits import Browser, opened

from convsdk.web import Limits
from convsdk.web.throttle import Throttle


class Timer:
    """A clock in seconds that a test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def statuses(answers):
    """Give the status of each answer."""
    return [one.status_code for one in answers]


def test_so_many_go_through_at_once_and_then_one_by_one():
    """A minute's number goes through at once, then one more whenever its share of the minute has passed."""
    timer = Timer()
    throttle = Throttle(6, timer=timer)

    at_once = [throttle.wait_s("ann") for _ in range(8)]
    timer.now += 10
    later = [throttle.wait_s("ann") for _ in range(2)]
    timer.now += 3600
    after_a_pause = [throttle.wait_s("ann") for _ in range(7)]

    assert at_once == [0] * 6 + [10, 10]
    assert later == [0, 10]
    assert after_a_pause == [0] * 6 + [10]


def test_keys_do_not_count_for_one_another():
    """What one does too often, another may still do."""
    throttle = Throttle(1, timer=Timer())

    assert [bool(throttle.wait_s(one)) for one in ("ann", "ann", "bob")] == [False, True, False]


def test_memory_is_bounded(monkeypatch):
    """However many come, only so many are remembered, and those that come often are."""
    monkeypatch.setattr("convsdk.web.throttle._MOST_KEYS", 10)
    throttle = Throttle(1, timer=Timer())

    for number in range(1000):
        throttle.wait_s("often")
        throttle.wait_s(f"stranger {number}")

    assert throttle.wait_s("often") > 0
    assert len(throttle._empty_at) == 10  # noqa: SLF001  (what it holds is the point)


def test_visitor_who_floods_is_held_back(tmp_path):
    """Beyond the limit a visitor's messages are a 429 with a pause; reading goes on, and so do others."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, limits=Limits(visitor_per_minute=3)) as shop:
        browser, other = Browser(shop), Browser(shop)
        browser.open()

        answers = [browser.post("/messages", id=str(one), text=str(one)) for one in range(5)]
        refused = answers[-1]

        assert statuses(answers) == [200, 200, 200, 429, 429]
        assert refused.json()["error"]["code"] == "too_many"
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert browser.texts() == ["0", "1", "2"]
        assert other.say("Hello")


@pytest.mark.parametrize("how", ["/messages", "/forms", "/identity", "/session", "/seen", "reset", "file"])
def test_address_that_floods_is_held_back(tmp_path, how):
    """New visitors make no difference: an address may write so much and no more."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, limits=Limits(address_per_minute=2)) as shop:

        def write():
            browser = Browser(shop)
            if how == "reset":
                return browser.reset()
            if how == "file":
                return browser.upload()
            body = {"id": "1", "text": "x", "fields": {"email": "ann@shop.example"}, "conversation": 1, "message": 1}
            return browser.post(how, **body)

        answers = [write() for _ in range(3)]
        elsewhere = Browser(shop, address="203.0.113.8").open()

        assert [one == 429 for one in statuses(answers)] == [False, False, True]
        assert elsewhere.status_code == 200


def test_reading_has_ten_times_as_much(tmp_path):
    """Pages that ask every few seconds, in many tabs behind one address, are let through; a flood is not."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, limits=Limits(address_per_minute=2)) as shop:
        answers = [Browser(shop).get() for _ in range(21)]

    assert statuses(answers) == [200] * 20 + [429]


@pytest.mark.parametrize(
    ("first", "second", "are_one"),
    [
        ("203.0.113.7", "203.0.113.8", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:203.0.113.7", "::ffff:203.0.113.8", False),
        ("::ffff:203.0.113.7", "203.0.113.7", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("unix", "unix", True),
    ],
)
def test_address_is_one_customers(tmp_path, first, second, are_one):
    """An IPv4 address counts by itself, also on a socket for both; of IPv6, all that one customer gets."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, limits=Limits(address_per_minute=1)) as shop:
        answers = [Browser(shop, address=one).open() for one in (first, second)]

    assert statuses(answers) == [200, 429 if are_one else 200]


def test_refusals_count_for_nothing(tmp_path):
    """Who keeps asking while held back waits no longer for that."""
    timer = Timer()
    throttle = Throttle(1, timer=timer)
    throttle.wait_s("ann")

    waits = [throttle.wait_s("ann") for _ in range(100)]
    timer.now += 60

    assert (set(waits), throttle.wait_s("ann")) == ({60}, 0)
