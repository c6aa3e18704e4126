"""Fixtures of the registry tests: the registry of three releases."""

from tests.registry_fixtures import store, tracking

__all__ = ["store", "tracking"]
