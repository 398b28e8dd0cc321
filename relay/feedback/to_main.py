"""What goes from the feedback process to the main process: counts, effects, and that there are new events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from relay.feedback import messages
from relay.feedback.counts import Counts
from relay.ipc import Link
from relay.store.sqlite.events_file import EventsFile

REPORT_EVERY_S = 0.25
TELL_AFTER_S = 0.05
"""new events within this time are one notification"""
EFFECTS_AT_ONCE = 32
EFFECTS_WITHIN_S = 20.0
EFFECTS_EVERY_S = 1.0
"""an effect that must wait, say for the settlement of its recipient, is tried again"""
EFFECTS_FOR_S = 2 * 86400.0


class ToMain:
    """`link` is set before anything else is called."""

    link: Link

    def __init__(self) -> None:
        self.counts = Counts()
        self._effects_due = asyncio.Event()
        self._telling = False

    def on_recorded(self) -> None:
        """An event was written, perhaps with effects."""
        self._effects_due.set()
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_later(TELL_AFTER_S, self._tell)

    def _tell(self) -> None:
        self._telling = False
        self.link.notify(messages.RECORDED)

    def count_post(self, result: str) -> None:
        """A post to the app ended so."""
        self.counts.posts[result] += 1

    def found_provider(self, domain: str, provider: str) -> None:
        """The MX records of a domain named its mailbox provider."""
        self.link.notify(messages.PROVIDER, (domain, provider))

    def report(self) -> None:
        """Send what was counted since the last report."""
        if (counts := self.counts.take()) is not None:
            self.link.notify(messages.COUNTS, counts)

    async def report_often(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self.report()

    async def hand_over_effects(self, events: EventsFile, now: Callable[[], float]) -> None:
        """Have the main process apply effects, and forget those that it has applied. Never returns."""
        while True:
            self._effects_due.clear()
            after, is_late = 0, False
            while found := await events.effects(after, EFFECTS_AT_ONCE):
                after = found[-1][0]
                effects = [effect for _, effect in found]
                done = set(await self.link.ask(messages.EFFECTS, effects, within_s=EFFECTS_WITHIN_S))
                too_old = now() - EFFECTS_FOR_S
                over = [
                    number for position, (number, effect) in enumerate(found) if position in done or effect.at < too_old
                ]
                await events.effects_done(over)
                is_late = is_late or len(over) < len(found)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EFFECTS_EVERY_S if is_late else None):
                    await self._effects_due.wait()
