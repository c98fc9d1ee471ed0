"""Have all botocore sessions of a process share what none of them changes.

botocore keeps its data files, the list of its services, the methods of its clients and the names of its events for each
session or client only. EC2's model alone has 4 MB of JSON and 750 methods. A process that creates a session for each
test, or a client for each request, spends most of its time on them.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from botocore import hooks
from botocore.client import ClientCreator
from botocore.loaders import JSONFileLoader, Loader


@functools.cache
def share_between_sessions() -> None:
    """Replace the functions of botocore that compute the same for each session or client; twice is as once."""
    _share_files()
    _share_methods()
    _share_events()


def _share_files() -> None:
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

    _replace(JSONFileLoader, "load_file", load_file)
    _replace(Loader, "list_available_services", list_available_services)


def _share_methods() -> None:
    """Share clients' methods, which know nothing but their operation's name: the client is an argument."""
    methods: dict[tuple[str, str], dict[str, Any]] = {}
    create_methods: Any = vars(ClientCreator)["_create_methods"]

    def create(creator: ClientCreator, model: Any) -> dict[str, Any]:
        key = (model.service_name, model.api_version)
        if key not in methods:
            methods[key] = create_methods(creator, model)
        # Other methods are added to it for the client's class.
        return dict(methods[key])

    _replace(ClientCreator, "_create_methods", create)


def _share_events() -> None:
    names: dict[str, str] = {}
    initialize: Any = hooks.EventAliaser.__init__
    inspect_signature: Any = hooks.accepts_kwargs

    def initialize_aliaser(aliaser: Any, *args: Any, **kwargs: Any) -> None:
        initialize(aliaser, *args, **kwargs)
        if aliaser._event_aliases == hooks.EVENT_ALIASES:
            aliaser._alias_name_cache = names

    def accepts_kwargs(handler: Any) -> Any:
        code = getattr(getattr(handler, "__func__", handler), "__code__", None)
        return code.co_flags & inspect.CO_VARKEYWORDS if code else inspect_signature(handler)

    _replace(hooks.EventAliaser, "__init__", initialize_aliaser)
    _replace(hooks, "accepts_kwargs", accepts_kwargs)


def _replace(owner: object, name: str, function: Callable[..., Any]) -> None:
    if not hasattr(owner, name):
        raise LookupError(f"botocore has no {name} any more: its sessions cannot share it")
    setattr(owner, name, function)
