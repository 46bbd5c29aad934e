"""Plugins for all tests: pytest takes them from the topmost conftest alone."""

pytest_plugins = [
    "actors.runtime.testing",
    "pytester",
    "tests.engines.redis",
    "tests.engines.postgres",
    "tests.engines.kafka",
]
