"""How many connections the process has descriptors for: past that, a client would be cut off without a word."""

from __future__ import annotations

import logging
import resource

from relay.config.model import Limits

_A_CONNECTION = 2
"""its socket, and the file that a large content comes in by"""
_OTHERS = 256
"""store files, HTTP, workers, and clients that only hear that there are too many"""
_BACKLOG = 1_024
"""clients that may come all at once, before the first of them is refused"""
_LOG = logging.getLogger("relay")


def fitted(limits: Limits, upstream_sessions: int) -> Limits:
    """`limits` with as many connections as there can be descriptors for, beside so many sessions to upstreams; the
    process's own limit is raised as far as that takes and the system allows."""
    others = _OTHERS + upstream_sessions
    needed = _A_CONNECTION * limits.connections + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits
    wanted = needed + _BACKLOG if hard == resource.RLIM_INFINITY else min(hard, needed + _BACKLOG)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft >= needed:
        return limits
    connections = max(1, (soft - others) // _A_CONNECTION)
    _LOG.warning(
        'event=connections_lowered connections=%d limit=%d reason="RLIMIT_NOFILE is %d"',
        connections, limits.connections, soft,
    )  # fmt: skip
    return limits.model_copy(update={"connections": connections})
