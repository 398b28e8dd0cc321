"""Both event loops, for what hangs on them: uvloop is what the relay runs on, asyncio's own what it falls back to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

ON_BOTH = {"test_connection.py", "test_session.py", "test_listeners.py", "test_security.py", "test_quickack.py"}


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.path.name in ON_BOTH:
        factories["asyncio"] = asyncio.new_event_loop
    return factories
