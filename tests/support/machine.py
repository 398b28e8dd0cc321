"""A state machine of hypothesis with an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis.stateful import RuleBasedStateMachine


class LoopMachine(RuleBasedStateMachine):
    """Its `teardown` must close `loop`."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()

    def happens(self, act: Callable[[], object] = lambda: None) -> None:
        """In the loop, with all that follows from it."""

        async def acted() -> None:
            act()
            for _ in range(4):
                await asyncio.sleep(0)

        self.loop.run_until_complete(acted())
