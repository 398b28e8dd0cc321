"""When the upstream's certificate ends: a session that outlives it is replaced before."""

from __future__ import annotations

import math
import ssl
import time

from relay.upstream.sessions.kept import KeptSession

BEFORE_S = 60.0
"""time for the successor"""


def replace_at(session: KeptSession) -> float:
    """time.monotonic; infinite where there is no certificate, and for a session that was opened so late that its
    successor would get the same one."""
    secured = session.transport_info("ssl_object")
    if not isinstance(secured, ssl.SSLObject):
        return math.inf
    ends = (secured.getpeercert() or {}).get("notAfter")
    if not isinstance(ends, str):
        return math.inf
    left_s = ssl.cert_time_to_seconds(ends) - time.time() - BEFORE_S
    return time.monotonic() + left_s if left_s > 0.0 else math.inf
