"""The seam behind intake: where an accepted message goes."""

from __future__ import annotations

from typing import Protocol

from relay.intake.draft import Draft
from relay.intake.spool import Large
from relay.store.model import NewMessage


class Destination(Protocol):
    """Stores accepted messages and sends them on: the lanes of this process, a bulk worker, another node."""

    async def submit(self, message: NewMessage, final_dot: float) -> None:
        """Store a message. It is durable when this returns.

        `final_dot`: when the app ended it (time.monotonic). Raises StoreFull, StoreError: the message was not stored.
        """

    async def submit_spooled(self, draft: Draft, content: Large) -> NewMessage:
        """`submit` a message whose content lies in a spool file. Returns the message, with or without its content.

        Raises Unacceptable and SpoolFailed, too.
        """
