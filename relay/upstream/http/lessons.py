"""What an answer, or its absence, says about an API beyond the message."""

from __future__ import annotations

import time
from collections.abc import Sequence

from relay.mail.redact import redact, redact_reply
from relay.mail.reply import Reply
from relay.providers.api import Kind, Verdict
from relay.upstream.attempt import Progress
from relay.upstream.base import Upstream
from relay.upstream.http.connection import Exchange
from relay.upstream.load import Load
from relay.upstream.redaction import reply_for_operators
from relay.upstream.results import OpenFailed, Result

DEFAULT_PAUSE_S = 1.0
"""after a 429 that doesn't say how long"""
TIMED_UP_TO_BYTES = 65_536
"""The answer to a larger content is late because of its way there."""


def was_dead(exchange: Exchange) -> bool:
    """Whether the connection broke off before the whole request had left: nothing of it can have been taken."""
    return exchange.end == "lost" and exchange.answer is None and not exchange.is_complete


def learn(
    upstream: Upstream,
    exchange: Exchange,
    verdict: Verdict | None,
    found: Sequence[Result],
    load: Load,
    progress: Progress,
    *,
    is_new: bool,
) -> None:
    """Circuit, pause and window. `verdict`: None where no answer came; `is_new`: the connection was opened for it."""
    if verdict is None:
        if exchange.end == "timed out":
            upstream.timed_out(progress)
        elif exchange.end != "stopped" and (exchange.is_complete or is_new):
            upstream.connection_lost()
        return
    kinds: set[Kind] = {one.kind for one in verdict.found}
    status = exchange.answer.status if exchange.answer is not None else 0
    if "account" in kinds:
        refused = next(result.reply for result in found if result.phase == "auth")
        # The reply may quote the mail.
        quoted = refused._replace(text=redact(redact_reply(refused.text, load.original)))
        failure = OpenFailed("auth", Reply.own(535, "5.7.8", f"HTTP {status}"))
        upstream.condemn(failure, reply_text=reply_for_operators(quoted))
    elif "throttled" in kinds:
        upstream.throttled(DEFAULT_PAUSE_S if verdict.retry_after_s is None else verdict.retry_after_s)
    elif "unavailable" in kinds or ("unknown" in kinds and not 400 <= status < 500):
        upstream.failed_once(OpenFailed("session", Reply.own(451, "4.3.0", f"HTTP {status}")))
    elif "in_progress" not in kinds:
        upstream.answered()
    if "sent" in kinds and not upstream.express:
        reply_s = exchange.ended_at - exchange.left_at if len(load.original) <= TIMED_UP_TO_BYTES else None
        upstream.window.succeeded(time.monotonic(), upstream.counts()["busy"], reply_s)
