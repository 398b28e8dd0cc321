"""From an ESP's event and the recipient that it is about to what is recorded: pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from relay.feedback.reason import shown_reason
from relay.feedback.receiver import Receiver, event_body
from relay.providers.webhook import EspEvent
from relay.store.addresses import is_hashed
from relay.store.events import FURTHEST_BACK_S, Effect, MailEvent, Post, Recording, identify, latest
from relay.store.sqlite.locate import Located
from relay.store.view import event_json

FURTHEST_AHEAD_S = 300.0
"""an event's time is believed up to this, and from FURTHEST_BACK_S before its message was accepted; else it is the time
at which the event came"""
ENDS = frozenset({"bounced", "rejected", "failed"})
"""kinds that, where they are permanent, turn `sent` into `bounced`"""


def recording(event: EspEvent, one: Located, upstream: str, receivers: Sequence[Receiver], now: float) -> Recording:
    """What is written about an event, with the posts and effects that follow if it is new."""
    at, latest_at = _times(event, one, upstream, now)
    kept = MailEvent(
        identify("esp", upstream, event.key, one.message_id, str(one.position)),
        one.message_id,
        one.position,
        at,
        event.kind,
        "esp",
        upstream,
        event.permanent if event.kind in ENDS or event.kind == "deferred" else None,
        shown_reason(event.reason),
        latest_at,
    )
    return Recording(
        kept,
        one.lane,
        one.provider,
        one.accepted_at,
        tuple(posts(kept, one, receivers)),
        tuple(_effects(event, kept, one)),
        trace=one.trace,
    )


def _times(event: EspEvent, one: Located, upstream: str, now: float) -> tuple[float, float]:
    """When the event happened, as it is shown, and the latest time at which it did. None lies before the acceptance."""
    at = event.at if event.at is not None else now
    if not one.accepted_at - FURTHEST_BACK_S <= at <= now + FURTHEST_AHEAD_S:
        at = now
    earliest = one.accepted_at
    if one.upstream == upstream and one.sent_at is not None:
        earliest = max(earliest, one.sent_at)
    latest_at = max(earliest, latest(at, now))
    return (at if at >= one.accepted_at else latest_at), latest_at


def posts(event: MailEvent, one: Located, receivers: Sequence[Receiver]) -> Iterator[Post]:
    """The event for each receiver that wants it. `one`: the recipient that it is about."""
    if event.kind == "other":
        return
    wanting = [receiver for receiver in receivers if receiver.wants(event.kind, one.lane)]
    if wanting:
        shown = event_json(
            event,
            recipient=one.address,
            lane=one.lane,
            accepted_at=one.accepted_at,
            header_id=one.header_id,
            entry=one.entry,
        )
        body = event_body(shown)
        for receiver in wanting:
            yield Post(receiver.key, body)


def _effects(event: EspEvent, kept: MailEvent, one: Located) -> Iterator[Effect]:
    upstream = kept.upstream or ""
    if event.kind in ENDS and event.permanent:
        yield Effect("end", one.message_id, one.position, upstream, kept.at, one.lane, reason=kept.reason)
    if event.suppress is not None and event.recipient is not None:
        yield Effect(
            "suppress_unnamed" if is_hashed(one.address) else "suppress",
            one.message_id,
            one.position,
            upstream,
            kept.at,
            one.lane,
            event.suppress,
            event.recipient,
            event.status or (event.kind if event.kind != "other" else kept.reason or event.kind),
        )
