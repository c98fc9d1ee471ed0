"""Event loops for programs that run against the SDK's mock monitor."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop for here and one for each thread the SDK calls its monitor on, where it would leave one open."""
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
        asyncio.set_event_loop(None)
        for loop in loops:
            loop.close()
