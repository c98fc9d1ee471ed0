"""Parse each of botocore's data files once a process.

botocore keeps them for each session only, and a session is created by each `boto3.Session`. EC2's model alone has 4 MB
of JSON.
"""

import functools
from typing import Any

from botocore.loaders import JSONFileLoader


@functools.cache
def parse_models_once() -> None:
    """Have all botocore sessions of this process share the files that one of them has parsed."""
    parse = functools.cache(JSONFileLoader().load_file)

    def load_file(loader: JSONFileLoader, file_path: str) -> Any:
        return parse(file_path)

    JSONFileLoader.load_file = load_file  # type: ignore[assignment]  # what every session reads them by
