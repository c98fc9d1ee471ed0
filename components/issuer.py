"""Former place of `components.authority_provider`: deployed states load their provider by this path."""

from components.authority_provider import Issuer

__all__ = ["Issuer"]
