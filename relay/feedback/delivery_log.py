"""The log lines about receivers of events: one function for each thing that happens. A receiver is its host."""

from __future__ import annotations

import logging

from relay.logfmt import logfmt

_log = logging.getLogger("relay.mail")


def failing(host: str, result: str) -> None:
    """Posts to the receiver fail. Each is tried again."""
    _log.warning(logfmt("receiver_failing", host=host, result=result))


def working(host: str, failed_s: float) -> None:
    """Posts arrive again, after this time."""
    _log.info(logfmt("receiver_working", host=host, after=f"{failed_s:.0f}s"))


def given_up(message_id: str, event_id: str, host: str, result: str, attempts: int) -> None:
    """An event didn't arrive in three days. It is shown as dead."""
    values = {"id": message_id, "event_id": event_id, "host": host, "result": result, "attempts": attempts}
    _log.error(logfmt("event_given_up", **values))


def given_up_unsent(host: str | None, events: int) -> None:
    """Events waited for three days behind others of a receiver that is down or that was removed (None)."""
    _log.error(logfmt("events_given_up", host=host, n=events))
