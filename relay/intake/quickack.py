"""TCP_QUICKACK: what has come in from an app is acknowledged at once (tcp(7)).

An app that writes a message in several pieces, without TCP_NODELAY, has one small segment under way at a time (Nagle's
algorithm). The kernel delays the ACK of such a segment by about 40 ms, for a reply that could carry it. While the relay
waits for the rest there is no reply, so a code came 40 ms late.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

SMALL_READ_BYTES = 65_483
"""The largest segment (loopback's). The kernel doesn't delay the ACK of more than a whole segment."""

_OPTION = getattr(socket, "TCP_QUICKACK", None)  # Linux only


def acknowledge(transport: asyncio.Transport) -> None:
    """Send the ACK that waits, if one does. The option doesn't last: this is for each read that isn't the last.

    Does nothing for unix sockets, and where the platform has no such option. Never raises.
    """
    if _OPTION is None or transport.is_closing():  # its descriptor may be another connection's by now
        return
    under = transport.get_extra_info("socket")  # also under TLS
    if under is not None and under.family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            under.setsockopt(socket.IPPROTO_TCP, _OPTION, 1)
