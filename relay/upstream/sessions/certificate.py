"""When the upstream's certificate ends: a session that outlives it is replaced before."""

from __future__ import annotations

import math
import ssl
import time

from relay.upstream.sessions.kept import KeptSession

BEFORE_S = 60.0
"""time for the successor"""


def certificate_end(session: KeptSession) -> float | None:
    """Seconds since the epoch; None where there is no certificate."""
    secured = session.transport_info("ssl_object")
    if not isinstance(secured, ssl.SSLObject):
        return None
    ends = (secured.getpeercert() or {}).get("notAfter")
    return float(ssl.cert_time_to_seconds(ends)) if isinstance(ends, str) else None


def replace_at(ends_at: float | None) -> float:
    """`ends_at`: the certificate's end. Returns a time.monotonic; infinite where there is no certificate, and for a
    session that was opened so late that its successor would get the same one."""
    left_s = math.inf if ends_at is None else ends_at - time.time() - BEFORE_S
    return time.monotonic() + left_s if left_s > 0.0 else math.inf
