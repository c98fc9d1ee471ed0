"""Fixtures of the engine's tests."""

from tests.unit.lab.aws import endpoint, lab

__all__ = ["endpoint", "lab"]
