"""Start the process of a lab's region: ``python -m lab.server DIRECTORY``, as `lab.region` does.

Half of the processor time of a start would go into parsing botocore's models several times and searching them for
garbage. What prevents that must come before anything imports moto.
"""

import gc
import sys
from pathlib import Path

from lab.botocore_cache import share_between_sessions


def start(directory: Path) -> None:
    """Import the region's parts and run them until SIGTERM."""
    gc.disable()
    share_between_sessions()
    from lab.region_server import main

    gc.freeze()  # what is imported stays for the life of the process
    gc.enable()
    main(directory)


if __name__ == "__main__":
    start(Path(sys.argv[1]))
