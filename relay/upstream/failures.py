"""Why no connection could be opened, in words that may be logged."""

from __future__ import annotations

import os
import ssl

from relay.mail.reply import Reply
from relay.upstream.results import OpenFailed


def insecure(error: ssl.SSLError) -> OpenFailed:
    """TLS failed, or the certificate isn't trusted."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return OpenFailed("tls", Reply.own(454, "4.7.5", f"certificate not trusted: {error.verify_message}"))
    return OpenFailed("tls", Reply.own(454, "4.7.5", f"TLS failed: {error.reason or 'handshake'}"))


def plain(error: BaseException) -> str:
    """A system error as the system describes it, without addresses or paths."""
    if not isinstance(error, OSError) or not error.strerror:
        return "connection failed"
    # asyncio's own text contains the address. Errors of the look-up (negative numbers) have no other text.
    return (os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror).lower()
