"""Alias of `components.authority_provider`, by which states deployed before that module existed load their provider."""

from components.authority_provider import Issuer

__all__ = ["Issuer"]
