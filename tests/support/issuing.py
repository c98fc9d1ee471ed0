"""What the program orders of the provider that issues certificates."""

from collections.abc import Mapping
from typing import Any

import contract
from components.authority_provider import Issuer


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


def create_certificates(inputs: dict[str, Any]) -> dict[str, Any]:
    """Have the provider create what is ordered, and return its outputs."""
    outs = Issuer().create(inputs).outs
    assert outs is not None
    return outs


def update_certificates(root: str, olds: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """Have the provider change what it has created, and return its outputs."""
    outs = Issuer().update(root, olds, inputs).outs
    assert outs is not None
    return outs


def read_parameters(ssm: Any, names: contract.Names) -> dict[str, str]:
    """Return a stack's parameters by name, decrypted."""
    pages = ssm.get_paginator("get_parameters_by_path").paginate(Path=names.root, Recursive=True, WithDecryption=True)
    return {p["Name"]: p["Value"] for page in pages for p in page["Parameters"]}
