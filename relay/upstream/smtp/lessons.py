"""What a transaction teaches about its upstream: the window, the account, and whether messages may stand behind each
other."""

from __future__ import annotations

import time

from relay.mail.redact import redact, redact_reply
from relay.upstream.account import credential_failure
from relay.upstream.base import Upstream
from relay.upstream.depth import Depth
from relay.upstream.load import Load
from relay.upstream.results import OpenFailed
from relay.upstream.smtp.report import TransactionReport
from relay.upstream.window import throttles

TIMED_UP_TO_BYTES = 65_536
"""The reply to a larger content is late because of its way there."""


def adapt_window(upstream: Upstream, sent: TransactionReport, size_bytes: int, *, kept: bool) -> None:
    """Whether the upstream would take more at once, or gets too much. `kept`: the session carried others before."""
    now = time.monotonic()
    if any(result.outcome == "sent" for result in sent.results):
        reply_s = sent.data_ms / 1000.0 if size_bytes <= TIMED_UP_TO_BYTES else None
        upstream.window.succeeded(now, upstream.counts()["busy"], reply_s)
    elif any(
        result.outcome == "deferred" and throttles(result.reply, result.phase, kept=kept) for result in sent.results
    ):
        upstream.window.throttled(now)


def mind_the_account(upstream: Upstream, load: Load, sent: TransactionReport) -> None:
    """Where the credentials are refused, open the circuit: they are no good for other messages either."""
    bad = credential_failure(sent.results)
    if bad is None:
        if sent.answered and not was_never_handed_over(sent):
            upstream.circuit.account_accepted()
        return
    # The reply may quote the mail.
    quoted = redact(redact_reply(bad.reply.text, load.original))
    reason = OpenFailed(bad.phase, bad.reply._replace(text=quoted), from_upstream=True)
    if bad.phase == "mail":
        upstream.condemn(reason)
    else:
        upstream.account_refused(reason, load.message_id)


def learn_depth(upstream: Upstream, depth: Depth, sent: TransactionReport, size_bytes: int) -> None:
    """Whether messages may stand behind each other."""
    if sent.out_of_step:
        lost_step(upstream, depth)
    elif sent.held_up:
        if depth.slow(time.monotonic()):
            upstream.goes_one_at_a_time(depth.reason)
    elif sent.shows_reading_ahead:
        depth.is_proven = True
    alone = not sent.behind and size_bytes <= TIMED_UP_TO_BYTES
    if alone and any(result.phase == "dot" and result.outcome != "ambiguous" for result in sent.results):
        depth.answered(sent.data_ms / 1000.0)


def lost_step(upstream: Upstream, depth: Depth) -> None:
    """A reply came that answers no command, or not the one that it should."""
    if depth.upset(time.monotonic()):
        upstream.goes_one_at_a_time(depth.reason)


def was_never_handed_over(sent: TransactionReport) -> bool:
    """Whether a session broke off, ended with 421, or lost step with messages behind each other, while nothing of this
    one can have been accepted."""
    if any(result.outcome in ("sent", "ambiguous") for result in sent.results):
        return False
    if sent.blames_pipelining:
        return True
    if any(result.phase == "dot" for result in sent.results):
        return False
    return sent.lost or sent.out_of_step or sent.codes[-1:] == (421,)
