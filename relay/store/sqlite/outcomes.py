"""`base.Outcomes` in one SQLite file."""

from __future__ import annotations

from functools import partial

from relay.store.model import Ended, LateEnd
from relay.store.sqlite import settle
from relay.store.sqlite.state import StoreState


class SqliteOutcomes:
    """What ESPs report of recipients that were sent."""

    def __init__(self, state: StoreState) -> None:
        self.state = state

    async def end_sent(self, end: LateEnd) -> Ended:
        return await self.state.write(partial(settle.end_sent, end=end))
