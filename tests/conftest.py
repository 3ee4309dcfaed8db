"""Hypothesis: quick for `make test`; `pytest --hypothesis-profile=thorough` looks harder.

Long tests begin first.
"""

from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("default"), max_examples=5_000)
settings.load_profile("default")

pytest_plugins = ["tenants", "browser"]  # servers of the API tests, and a browser

LONG: Final = (
    "test_torture.py", "test_process_kill.py", "test_page_trail.py", "test_verify_url.py", "test_limits.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """At the end, each of several processes has something to do until the others have.

    Each takes one file after the other, so that what the tests of a file share is made once.
    """
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))
