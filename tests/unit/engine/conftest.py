"""Fixtures of the engine's tests."""

from tests.support.aws import endpoint, lab

__all__ = ["endpoint", "lab"]
