"""Programs that a bench runs."""

import shutil
import sys

#: What every bench of tunnels runs.
OF_TUNNELS = ("openvpn", "nft", "ip", "nsenter", "setpriv", "ping")


def require_programs(*programs: str) -> None:
    """End this program with one line if some are not installed."""
    if missing := [program for program in programs if not shutil.which(program)]:
        sys.exit(f"not installed: {', '.join(missing)}; as root: tools/setup bench")
