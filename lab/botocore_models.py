"""Read botocore's data files once a process.

botocore keeps what it read for each session only, and a session is created by each `boto3.Session`. EC2's model alone
has 4 MB of JSON, and the list of services takes a look into 400 directories.
"""

import functools
from typing import Any

from botocore.loaders import JSONFileLoader, Loader


@functools.cache
def parse_models_once() -> None:
    """Have all botocore sessions of this process share the files and the list of services that one of them has read."""
    parse = functools.cache(JSONFileLoader().load_file)
    services: dict[tuple[str, ...], list[str]] = {}
    list_services = Loader.list_available_services

    def load_file(loader: JSONFileLoader, file_path: str) -> Any:
        return parse(file_path)

    def list_available_services(loader: Loader, type_name: str) -> list[str]:
        key = (type_name, *loader.search_paths)
        if key not in services:
            services[key] = list_services(loader, type_name)
        return list(services[key])

    JSONFileLoader.load_file = load_file  # type: ignore[assignment]  # what every session reads them by
    Loader.list_available_services = list_available_services  # type: ignore[assignment]
