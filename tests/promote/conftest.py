"""Fixtures for promotion."""

from tests.registry.conftest import registry  # noqa: F401  # a fixture that two rooms use
