"""Plugins for all tests: pytest takes them from the topmost conftest alone."""

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile("weir", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("weir")

pytest_plugins = [
    "actors.runtime.testing",
    "pytester",
    "tests.engines.redis",
    "tests.engines.postgres",
    "tests.engines.kafka",
]
