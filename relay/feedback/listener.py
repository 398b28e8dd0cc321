"""The HTTP listener for webhooks only (`webhooks.address`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from relay.web.backend import Webhook
from relay.web.connections import ANSWER_WITHIN_S
from relay.web.listening import Bounds, HttpListener
from relay.web.webhooks import MAX_BODY_BYTES, routes

MAX_CONNECTIONS = 256


def webhook_listener(webhooks: Callable[[], Mapping[str, Webhook]]) -> HttpListener:
    """It has no guard: each webhook checks its own proof."""
    return HttpListener(routes(webhooks), Bounds(ANSWER_WITHIN_S, MAX_BODY_BYTES, MAX_CONNECTIONS))
