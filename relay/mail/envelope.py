"""The envelope of a message: sender, recipients, and their ESMTP parameters."""

from __future__ import annotations

from typing import Literal, NamedTuple

Notify = Literal["NEVER", "SUCCESS", "FAILURE", "DELAY"]


class DeliverBy(NamedTuple):
    """RFC 2852: `BY=60;R` and `BY=60;NT`. `seconds` counts from acceptance and may be zero or negative for N."""

    seconds: int
    mode: Literal["R", "N"]
    trace: bool = False


class Recipient(NamedTuple):
    """One RCPT. `notify` None: not given, so the next MTA's default applies (RFC 3461 4.1)."""

    address: str
    notify: frozenset[Notify] | None = None
    orcpt: str | None = None
    """as given, `rfc822;user@example.com`, still xtext-encoded"""


class Envelope(NamedTuple):
    """One MAIL with its RCPTs. `sender` is '' for the null sender; addresses have no angle brackets."""

    sender: str
    recipients: tuple[Recipient, ...]
    body: Literal["7BIT", "8BITMIME"] | None = None
    smtputf8: bool = False
    ret: Literal["FULL", "HDRS"] | None = None
    envid: str | None = None
    """as given, still xtext-encoded"""
    priority: int | None = None
    """MT-PRIORITY (RFC 6710), -9..9"""
    deliver_by: DeliverBy | None = None
