"""Hypothesis: quick for `make test`; `pytest --hypothesis-profile=thorough` looks harder."""

from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("default"), max_examples=5_000)
settings.load_profile("default")

pytest_plugins = ["tenants", "browser"]  # servers of the API tests, and a browser
