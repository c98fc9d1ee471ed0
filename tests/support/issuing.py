"""What the program orders of the provider that issues certificates."""

from collections.abc import Mapping
from typing import Any


def order_certificates(profiles: Mapping[str, str], *, client_days: float = 365.0) -> dict[str, Any]:
    """Return the inputs of a stack's certificates; `profiles` has the profile of each client by its name."""
    return {
        "stack": "dev",
        "region": "eu-west-1",
        "account": "123456789012",
        "serverName": "dev.drawbridge",
        "profiles": dict(profiles),
        # Pulumi's wire has floats only.
        "lifetimes": {"ca": 3650.0, "server": 825.0, "client": client_days},
        "owner": "one deployment",
    }
