"""The log lines about receivers of events: one function for each thing that happens. A receiver is its place in the
configuration (`events[0]`) and its host."""

from __future__ import annotations

import logging

from relay.logfmt import logfmt
from relay.store.events import Waiting

_log = logging.getLogger("relay.mail")


def failing(receiver: str, host: str, result: str) -> None:
    """Posts to the receiver fail. Each is tried again."""
    _log.warning(logfmt("receiver_failing", receiver=receiver, host=host, result=result))


def working(receiver: str, host: str, failed_s: float) -> None:
    """Posts arrive again, after this time."""
    _log.info(logfmt("receiver_working", receiver=receiver, host=host, after=f"{failed_s:.0f}s"))


def given_up(post: Waiting, receiver: str, host: str, result: str) -> None:
    """An event didn't arrive in three days. It is shown as dead."""
    values = {"id": post.message_id, "event_id": post.event_id, "host": host, "result": result}
    _log.error(logfmt("event_given_up", **values, attempts=post.attempts + 1, receiver=receiver))


def given_up_unsent(receiver: str | None, host: str | None, events: int) -> None:
    """Events waited for three days behind others of a receiver that is down or that was removed (None, None)."""
    _log.error(logfmt("events_given_up", receiver=receiver, host=host, n=events))
