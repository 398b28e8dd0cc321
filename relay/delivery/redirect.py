"""Staging: all mail goes to one address instead of its recipients.

Only the wire changes. Each attempt carries one copy, whatever the number of recipients, and its result is the result of
each of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay.mail.envelope import Recipient
from relay.mail.original_to import original_to, with_field
from relay.mail.recode import Form
from relay.store.model import OpenRecipient
from relay.upstream.attempt import Report
from relay.upstream.load import Finish, Load, Parts


class RedirectedLoad:
    """A load (`relay.upstream.base.Load`) for the redirect address, with its true recipients in X-Original-To."""

    __slots__ = (
        *("_field", "_load", "accepted_at", "envelope", "is_part", "memo", "message_id", "original", "recipients"),
        *("redirected_to", "repeat_key"),
    )

    def __init__(self, load: Load, address: str) -> None:
        true = [recipient for _, recipient in load.recipients]
        # Parameters of RCPT (RFC 3461) are about one recipient, so none is passed on, unless all of them agree.
        silent = all(one.notify is not None and "NEVER" in one.notify for one in true)
        instead = Recipient(address, true[0].notify if silent else None)
        self.message_id = load.message_id
        self.envelope = load.envelope._replace(recipients=(instead,))
        self.recipients: Sequence[tuple[int, Recipient]] = [(0, instead)]
        self.original = load.original
        self.accepted_at = load.accepted_at
        self._field = original_to([one.address for one in true])
        self._load = load
        self.memo: dict[object, object] = {}
        self.redirected_to: str | None = address
        self.is_part = load.is_part
        self.repeat_key = load.repeat_key

    async def content(self, form: Form) -> bytes:
        # Without the field, which is ASCII. The sizes that are declared don't count signatures either.
        return await self._load.content(form)

    async def signed(self, form: Form, finish: Finish) -> Parts:
        parts = await self._load.signed(form, finish)
        return lambda: with_field(parts(), self._field)

    async def finished(self, finish: Finish) -> bytes:
        return b"".join(with_field([await self._load.finished(finish)], self._field))

    def finished_now(self, finish: Finish) -> bytes | None:
        content = self._load.finished_now(finish)
        return None if content is None else b"".join(with_field([content], self._field))


def for_each(report: Report, due: Sequence[OpenRecipient]) -> Report:
    """The report of a redirected attempt, as one about each recipient that is due. The upstream knows nothing of their
    wish for a report of success (RFC 3461 4.1), so that one stays the relay's."""
    results = tuple(result._replace(position=one.position) for result in report.results for one in due)
    return report._replace(results=results, dsn=False, redirected=True)
