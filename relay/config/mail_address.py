"""Mail addresses as the configuration writes them."""

from __future__ import annotations

import re
from typing import Any

from relay.config.masking import shown
from relay.config.network import is_host, is_ip

MAX_CHARS = 254
"""RFC 5321 4.5.3.1.3, without the angle brackets"""
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")


def parse_mail_address(value: Any) -> str:
    """A mailbox in ASCII (RFC 5321 4.1.2, without quotes and literals): every upstream can take it."""
    local, _, domain = value.rpartition("@") if isinstance(value, str) else ("", "", "")
    if not (_LOCAL_PART.fullmatch(local) and len(value) <= MAX_CHARS and is_host(domain) and not is_ip(domain)):
        raise ValueError(f"expected a mail address such as staging@example.com, got {shown(value)}")
    return f"{local}@{domain.lower()}"
