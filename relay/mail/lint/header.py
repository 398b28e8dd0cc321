"""Mistakes in header fields: identities, Date, Message-ID, and what marks a mail as one of many."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime

from relay.mail.address import domain_of, with_parents
from relay.mail.address_list import addresses_in
from relay.mail.header_text import decoded, without_folds
from relay.mail.lint.domains import is_free_mail, is_public, is_related
from relay.mail.lint.mail import Mail
from relay.mail.lint.rules import LintFinding, found
from relay.mail.message import first

_SHOWN_CHARS = 60
_AHEAD_S = 600
_BEHIND_S = 3_600
_OLD_S = 86_400
"""A mail older than this was kept in a file: its Date says nothing of the clock."""


def header(mail: Mail, now: float, signed: Collection[str] | None) -> Iterator[LintFinding]:
    yield from _identities(mail)
    yield from _alignment(mail, signed)
    yield from _date(mail, now)
    yield from _message_id(mail)
    yield from _marks(mail)


def _identities(mail: Mail) -> Iterator[LintFinding]:
    if not mail.authors:
        yield found("from")
        return
    others = {domain_of(one).lower() for name in ("reply-to", "sender") for one in _addresses(mail, name)}
    foreign = sorted(one for one in others if not any(is_related(one, author) for author in mail.author_domains))
    if foreign:
        yield found("identities", what=f"Reply-To or Sender at {_shown(foreign[0])}, From at another domain")
    elif len(set(mail.authors)) > 1:
        yield found("identities", what=f"{len(set(mail.authors))} addresses in From")
    recipients = {one.lower() for name in ("to", "cc") for one in _addresses(mail, name)}
    if len(recipients) > 1:
        yield found("recipients", number=len(recipients))


def _addresses(mail: Mail, name: str) -> list[str]:
    value = first(mail.message, name)
    return [] if value is None else list(addresses_in(without_folds(value)))


def _alignment(mail: Mail, signed: Collection[str] | None) -> Iterator[LintFinding]:
    for domain in dict.fromkeys(mail.author_domains):
        if is_free_mail(domain):
            yield found("free-mail", domain=domain)
        elif not is_public(domain):
            yield found("no-domain", domain=_shown(domain) or "no domain")
        elif signed is not None and not any(one in signed for one in with_parents(domain)):
            yield found("no-key", domain=_shown(domain))


def _date(mail: Mail, now: float) -> Iterator[LintFinding]:
    value = first(mail.message, "date")
    if value is None:
        yield found("date")
        return
    try:
        moment = parsedate_to_datetime(decoded(value))
        late_s = now - (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        yield found("date-unreadable")
        return
    if late_s < -_AHEAD_S:
        yield found("date-off", hours=-late_s / 3_600, where="ahead")
    elif _BEHIND_S < late_s < _OLD_S:
        yield found("date-off", hours=late_s / 3_600, where="behind")


def _message_id(mail: Mail) -> Iterator[LintFinding]:
    value = first(mail.message, "message-id")
    if value is None:
        yield found("message-id")
        return
    _, at, host = decoded(value).rpartition("@")
    # Without an @, all of it is the app's own: it may be a code, and isn't shown.
    domain = host.strip(" <>").lower() if at else ""
    if not is_public(domain):
        yield found("message-id-host", domain=_shown(domain) or "no domain")


def _marks(mail: Mail) -> Iterator[LintFinding]:
    if "auto-submitted" not in mail.names:
        yield found("auto-submitted")
    if "list-unsubscribe" in mail.names:
        yield found("list-unsubscribe")
    precedence = decoded(first(mail.message, "precedence") or b"").strip().lower()
    if precedence in ("bulk", "list", "junk"):
        yield found("precedence", value=precedence)


def _shown(domain: str) -> str:
    return domain[:_SHOWN_CHARS]
