import pytest
from servers import fresh_store
from visits import opened


@pytest.fixture
def shop(tmp_path):
    """Give a shop on a SQLite file."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path) as one:
        yield one


@pytest.fixture(params=["sqlite", "postgresql"])
def any_shop(request, tmp_path):
    """Give a shop on each kind of store that a site would use."""
    with opened(fresh_store(request.param, tmp_path), tmp_path) as one:
        yield one
