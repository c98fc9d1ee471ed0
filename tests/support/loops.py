"""Event loops for programs that run against the SDK's mock monitor."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from pulumi.runtime.settings import reset_options


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop for here and one for each thread the SDK calls its monitor on, where it would leave one open.

    The SDK keeps globals, which are reset afterwards: a root stack that one program left would stop the next.
    """
    loops = [asyncio.new_event_loop()]

    def open_one() -> None:
        loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(loops[-1])

    asyncio.set_event_loop(loops[0])
    try:
        with ThreadPoolExecutor(max_workers=4, initializer=open_one) as executor:
            loops[0].set_default_executor(executor)
            yield loops[0]
    finally:
        reset_options()
        asyncio.set_event_loop(None)
        for loop in loops:
            loop.close()
