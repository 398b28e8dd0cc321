"""Intake's part of a message's trace: where tracing is on, what was accepted becomes a record."""

from __future__ import annotations

import time

from relay.intake.spool import Large
from relay.intake.types import Submission
from relay.observe import tracing
from relay.observe.tracing import Head, Tracing, wall
from relay.store.model import NewMessage


def trace_accepted(
    to: Tracing, submission: Submission, message: NewMessage, others: tuple[NewMessage, ...], began: float
) -> None:
    """A message, and its further parts, are durable. `began`: when its acceptance did (time.monotonic)."""
    final_dot, now = wall(submission.final_dot), time.time()
    received_at, began_at = final_dot - submission.receive_s, wall(began)
    http, content = submission.protocol == "HTTP", submission.content
    size_bytes = content.size_bytes if isinstance(content, Large) else len(content)
    for one in (message, *others):
        if not to.records(one.id, one.trace):
            continue
        attributes = {
            "relay.lane": one.lane,
            "relay.rule": one.rule,
            "relay.recipients": len(one.envelope.recipients),
            "relay.content": one.detected,
            "relay.limits": len(one.limited) or None,
            "relay.parts": 1 + len(others) if others and one is message else None,
            "messaging.message.envelope.size": len(message.content) or size_bytes,
            "network.protocol.name": "http" if http else "smtp",
        }
        items = [tracing.root(received_at, attributes, () if one is message else (message.id, message.trace))]
        if one is message:
            classify_s = one.timings_ms.get("classify", 0.0) / 1000.0
            items += [
                tracing.span("receive", received_at, final_dot),
                tracing.span("classify", began_at, began_at + classify_s),
                tracing.span("accept", final_dot, now),
            ]
        to.note(Head(one.id, one.trace, final_dot, len(one.envelope.recipients)), items)
