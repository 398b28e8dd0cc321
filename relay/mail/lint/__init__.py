"""Check a message, before it is sent, for what hurts a one-time code on its way to the mailbox and to its reader."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from relay.mail.codes.masking import MASK
from relay.mail.lint.framing import framing
from relay.mail.lint.header import header
from relay.mail.lint.layout import layout
from relay.mail.lint.mail import Mail
from relay.mail.lint.rules import LEVELS, LintFinding
from relay.mail.lint.wording import wording
from relay.mail.message import parse


def lint(content: bytes, *, now: float, signed: Collection[str] | None = None) -> tuple[LintFinding, ...]:
    """Every finding, the grave ones first.

    `now`: seconds since 1970, which Date is compared with. `signed`: the domains that have a DKIM key, in lower case;
    None: that isn't known. Raises Unacceptable where the header section exceeds a limit of the relay.
    """
    mail = Mail(parse(content, limited=True))
    findings = [*framing(mail), *header(mail, now, signed)]
    if not mail.is_broken:
        findings += [*wording(mail), *layout(mail)]
    code = mail.verdict.code
    if code is not None:
        # A host, too, can be named like the code.
        findings = [replace(one, text=one.text.replace(code, MASK)) for one in findings]
    return tuple(sorted(findings, key=lambda one: LEVELS.index(one.level)))
