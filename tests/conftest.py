import sys

from hypothesis import settings

# Playwright's event loop would stand in the way of tests that run their own: `pytest tests/browser` runs these alone.
collect_ignore = ["browser"]

# No deadline: a loaded machine makes no test wrong.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, print_blob=True)
settings.register_profile("brief", settings.get_profile("ci"), max_examples=20)
settings.load_profile("default")


def pytest_sessionfinish():
    """End the PostgreSQL server: pytest-xdist kills who takes ten seconds to exit, and its server would stay."""
    if "servers" in sys.modules:
        sys.modules["servers"].stop_postgresql()
