"""The seam behind intake: where an accepted message goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from relay.intake.draft import Draft
from relay.intake.spool import Large
from relay.store.model import NewMessage


class Destination(Protocol):
    """Stores accepted messages and sends them on: the lanes of this process, a bulk worker, another node."""

    async def submit(self, message: NewMessage, final_dot: float, others: Sequence[NewMessage] = ()) -> None:
        """Store a message. It is durable when this returns.

        `final_dot`: when the app ended it (time.monotonic). `others`: the other parts of a split message, which are
        stored with this one or not at all. Raises StoreFull, StoreError: nothing was stored.
        """

    async def submit_spooled(self, draft: Draft, content: Large) -> NewMessage:
        """`submit` a message whose content lies in a spool file. Returns the message (of a split one the entry), with
        or without its content.

        Raises Unacceptable and SpoolFailed, too.
        """
