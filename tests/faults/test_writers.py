"""Many writers at once on one store. `workload.py` beside this file is what they do, and the check of what is left."""

import importlib.util
import os
import random
import sys
from pathlib import Path

import pytest
from servers import STORES, fresh_store

pytestmark = pytest.mark.once  # a store's doing

_spec = importlib.util.spec_from_file_location("workload", Path(__file__).with_name("workload.py"))
workload = sys.modules.setdefault("workload", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(workload)

SECONDS = float(os.environ.get("CONVSDK_TEST_FAULT_SECONDS", "2"))
ROUNDS = min(500, int(20 * SECONDS))


@pytest.fixture(params=STORES[1:])
def url(request, tmp_path):
    """Give the URL of an empty store that several processes can open."""
    return fresh_store(request.param, tmp_path)


def test_one_new_address_from_all_writers_is_one_contact(url):
    """16 writers in 4 processes meet a new address at the same time: one contact, one conversation, and no error."""
    acknowledged = workload.run(url, "newcomers", rounds=ROUNDS)

    assert workload.verify(url, acknowledged, rounds=ROUNDS)["messages"] == 16 * ROUNDS
    workload.verify_newcomers(url, ROUNDS)


def test_all_that_writers_do_at_once_adds_up(url):
    """After messages, merges, undos and withdrawals in 4 processes, the contacts are what all evidence folds to."""
    seed = random.randrange(10**9)  # noqa: S311  (pytest-randomly seeds it)

    acknowledged = workload.run(url, "random", seconds=SECONDS, seed=seed)

    found = workload.verify(url, acknowledged)
    assert min(found["messages"], found["rulings"], found["contacts"]) > 0
