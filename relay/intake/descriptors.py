"""How many connections the process has file descriptors for. Past that it could not even refuse a client."""

from __future__ import annotations

import logging
import resource

from relay.config.model import Limits
from relay.logfmt import logfmt

_PER_CONNECTION = 2
"""Its socket, and the file that a large content comes in by."""
_OTHERS = 256
"""Store files, HTTP, workers, and clients that are being refused."""
_BACKLOG = 1_024
"""Clients that may connect at once, before the first of them is refused."""
_LOG = logging.getLogger("relay")


def fitted(limits: Limits, upstream_sessions: int) -> Limits:
    """`limits` with its connections lowered to what the process has descriptors for, beside `upstream_sessions`.

    The process's own limit is raised first, as far as needed and as the system allows.
    """
    others = _OTHERS + upstream_sessions
    needed = _PER_CONNECTION * limits.connections + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits
    wanted = needed + _BACKLOG if hard == resource.RLIM_INFINITY else min(hard, needed + _BACKLOG)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft >= needed:
        return limits
    connections = max(1, (soft - others) // _PER_CONNECTION)
    reason = f"RLIMIT_NOFILE is {soft}"
    _LOG.warning(logfmt("connections_lowered", connections=connections, limit=limits.connections, reason=reason))
    return limits.model_copy(update={"connections": connections})
