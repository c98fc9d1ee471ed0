"""Say whether labs run on this system. Any system can import this; most other modules of the lab only Linux."""

import sys

from lab.errors import NotPermitted


def require_linux() -> None:
    """Raise `NotPermitted` on a system that has no network namespaces."""
    if sys.platform != "linux":
        raise NotPermitted("a lab needs Linux")
