"""Parse addresses of MAIL and RCPT (RFC 5321 4.1.2, RFC 6531), and encode xtext (RFC 3461)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

MAX_PATH_OCTETS = 256
"""RFC 5321 4.5.3.1.3, angle brackets included. Its limit of 64 for a local part isn't kept: VERP senders exceed it."""

MAX_DOMAIN_OCTETS = 253
"""what DNS can hold"""

# Atoms as they occur: any dots (docomo.ne.jp has `a..b` and `a.`), and UTF-8 but for its controls and separators.
_UNSEEN = r"\x00-\x1f\x7f-\xa0\xad\u2000-\u202f\u2060-\u206f\u3000\ud800-\udfff\ufeff"
_TEXT = rf"[^{_UNSEEN} ()<>\[\]:;,@\\\"]"
_QUOTED = rf'"(?:[^{_UNSEEN}"\\<>]|\\[ -;=?-~])*"'
_LABEL = rf"(?:[A-Za-z0-9_]|[^\x00-\x7f{_UNSEEN}])"
_DOMAIN = rf"{_LABEL}(?:(?:{_LABEL}|-)*{_LABEL})?"
_ROUTE = rf"@{_DOMAIN}(?:\.{_DOMAIN})*"
# RFC 5321 4.1.3 lets a literal hold `<` and `>`, in which no program would find its end. No literal in use has them.
_PATH = re.compile(
    rf"(?:{_ROUTE}(?:,{_ROUTE})*:)?"
    rf"(?P<mailbox>(?:{_TEXT}+|{_QUOTED})@(?P<domain>{_DOMAIN}(?:\.{_DOMAIN})*|\[(?P<literal>[!-;=?-Z^-~]+)\]))"
)
_TAGGED = re.compile(r"[A-Za-z0-9-]*[A-Za-z0-9]:[!-;=?-Z^-~]+")


def parse_path(text: str) -> tuple[str, str]:
    """What follows `FROM:` or `TO:` → the mailbox without brackets ('' for `<>`) and the parameters behind it.

    A source route is dropped (RFC 5321 F.2), `<postmaster>` needs no domain (RFC 5321 4.1.1.3). Blanks before the
    `<` and an address without brackets are accepted: old programs write both. Raises ValueError with the text of a 501
    reply.
    """
    text = text.lstrip(" ")
    if text.startswith("<"):
        path, closed, rest = text[1:].partition(">")
        if not closed:
            raise ValueError("address without a closing >")
        if rest and not rest.startswith(" "):
            raise ValueError("no blank between address and parameters")
    else:
        path, _, rest = text.partition(" ")
        if not path:
            raise ValueError("address missing")
    return _mailbox(path), rest.strip(" ")


def _mailbox(path: str) -> str:
    if path == "" or path.lower() == "postmaster":
        return path
    if len(path.encode("utf-8", "surrogatepass")) + 2 > MAX_PATH_OCTETS:
        raise ValueError(f"address longer than {MAX_PATH_OCTETS} octets")
    found = _PATH.fullmatch(path)
    if found is None:
        raise ValueError("not an address")
    if found["literal"] is not None:
        _check_literal(found["literal"])
    elif any(len(label) > 63 for label in found["domain"].split(".")):
        raise ValueError("domain label longer than 63 octets")
    return found["mailbox"]


def _check_literal(literal: str) -> None:
    """RFC 5321 4.1.3: an IPv4 address, `IPv6:` and one, or `tag:content`."""
    tag, colon, rest = literal.partition(":")
    try:
        if not colon:
            IPv4Address(literal)
        elif tag.lower() == "ipv6":
            IPv6Address(rest)
        elif not _TAGGED.fullmatch(literal):
            raise ValueError
    except ValueError:
        raise ValueError("not an address literal") from None


def domain_of(address: str) -> str:
    """The domain in lower case; '' without one, or where it is too long for DNS."""
    domain = address.rpartition("@")[2].lower() if "@" in address else ""
    return domain if len(domain) <= MAX_DOMAIN_OCTETS else ""


_NOT_XCHAR = re.compile(rb"[^!-*,-<>-~]")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(rb"\+([0-9A-F]{2})")


def with_parents(domain: str) -> Iterator[str]:
    """The domain, and those above it."""
    while domain:
        yield domain
        domain = domain.partition(".")[2]


def xtext_encode(text: str) -> str:
    """RFC 3461 4: everything but printable ASCII without `+` and `=` becomes `+XX`."""
    return _NOT_XCHAR.sub(lambda found: b"+%02X" % found[0][0], text.encode()).decode("ascii")


def xtext_decode(text: str) -> str:
    """The text that was xtext-encoded. Raises ValueError for what is not xtext, and where control characters come
    out of it (RFC 3461 4.4: printable only), so that no encoded line end reaches a header."""
    if not _XTEXT.fullmatch(text):
        raise ValueError("not xtext")
    decoded = _HEXCHAR.sub(lambda found: bytes([int(found[1], 16)]), text.encode()).decode("utf-8", "replace")
    if not decoded.isprintable():
        raise ValueError("control characters in xtext")
    return decoded
