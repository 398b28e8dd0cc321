"""Write the Received field, and dates of header fields."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Literal

Protocol = Literal[
    "SMTP",
    "ESMTP",
    "ESMTPS",
    "ESMTPA",
    "ESMTPSA",
    "UTF8SMTP",
    "UTF8SMTPS",
    "UTF8SMTPA",
    "UTF8SMTPSA",
    "LMTP",
    "HTTP",
]
"""RFC 3848 and RFC 6531 4.3; HTTP for mail that no mail protocol brought"""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# The client chooses its HELO name: only characters of a domain or an address literal are kept.
_NOT_A_HOST = re.compile(r"[^A-Za-z0-9.:_\[\]-]")
_MAX_HOST = 255


def rfc5322_date(now: float) -> bytes:
    """`Sat, 01 Mar 2025 09:05:07 +0000`, in UTC, whatever the machine's zone and locale."""
    return _date_of(int(now))


@lru_cache(maxsize=2)
def _date_of(second: int) -> bytes:
    at = datetime.fromtimestamp(second, UTC)
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04} "
        f"{at.hour:02}:{at.minute:02}:{at.second:02} +0000"
    ).encode()


def received(
    hostname: str, helo: str, client: str, id: str, protocol: Protocol, recipient: str | None, now: float
) -> bytes:
    """The trace field (RFC 5321 4.4), folded, with its line end. `client` is an IP address, or a word such as `unix` or
    `local`. `recipient` is the only recipient, else None: several would disclose Bcc."""
    host, peer = f"Received: from {_host(helo)}", f"({_client(client)})"
    lines = [
        *([f"{host} {peer}"] if len(host) + len(peer) < 78 else [host, f"\t{peer}"]),
        f"\tby {_host(hostname)} with {protocol} id {id}",
    ]
    if recipient is not None and _shows(recipient):
        lines.append(f"\tfor <{recipient}>")
    return "\r\n".join(lines).encode() + b";\r\n\t" + rfc5322_date(now) + b"\r\n"


@lru_cache(maxsize=16)
def _host(text: str) -> str:
    return _NOT_A_HOST.sub("?", text[:_MAX_HOST]) or "unknown"


@lru_cache(maxsize=16)
def _client(client: str) -> str:
    try:
        address = ip_address(client)
    except ValueError:
        return _host(client)
    return f"[IPv6:{_host(str(address))}]" if isinstance(address, IPv6Address) else f"[{address}]"


def _shows(recipient: str) -> bool:
    return (
        recipient.isascii()
        and recipient.isprintable()
        and len(recipient) <= _MAX_HOST
        and not set(recipient) & set("<> ")
    )
