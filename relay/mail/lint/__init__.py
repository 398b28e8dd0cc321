"""Check a message, before it is sent, for what hurts a one-time code on its way to the mailbox and to its reader."""

from __future__ import annotations

from collections.abc import Collection

from relay.mail.lint.framing import framing
from relay.mail.lint.header import header
from relay.mail.lint.layout import layout
from relay.mail.lint.mail import Mail
from relay.mail.lint.rules import LintFinding
from relay.mail.lint.wording import wording
from relay.mail.message import parse


def lint(content: bytes, *, now: float, signed: Collection[str] | None = None) -> tuple[LintFinding, ...]:
    """Every finding, those about bytes first.

    `now`: seconds since 1970, which Date is compared with. `signed`: the domains that have a DKIM key, in lower case;
    None: that isn't known. Raises Unacceptable where the header section exceeds a limit of the relay.
    """
    mail = Mail(parse(content, limited=True))
    return (*framing(mail), *header(mail, now, signed), *wording(mail), *layout(mail))
