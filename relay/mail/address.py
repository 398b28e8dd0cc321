"""Mailbox addresses of the SMTP dialogue (RFC 5321 4.1.2, RFC 6531) and the providers behind them."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

MAX_PATH_OCTETS = 256
"""RFC 5321 4.5.3.1.3, angle brackets included. Its 64 for a local part is not held: VERP senders pass it daily."""

MAX_DOMAIN_OCTETS = 253
"""what DNS can hold; a longer one is none, and every look at its labels would cost"""

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
    `<` and a bare address without brackets are let pass: old programs write both. Raises ValueError, with a text fit
    for a 501 reply, on anything else that is no address.
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
    """The lower-case domain, '' when there is none, or one that can't be."""
    domain = address.rpartition("@")[2].lower() if "@" in address else ""
    return domain if len(domain) <= MAX_DOMAIN_OCTETS else ""


def is_ascii(address: str) -> bool:
    """Whether it can be sent without SMTPUTF8."""
    return address.isascii()


_COUNTRIES = (  # noqa: SIM905
    "at be ca ch cl cn co.il co.jp co.kr co.nz co.th co.uk co.za com.ar com.au com.br com.mx com.my "
    "com.tr com.tw cz de dk es fi fr gr hu ie in it jp nl no ph pt se sg"
).split()
_MICROSOFT = [f"{name}.{tld}" for name in ("hotmail", "outlook", "live") for tld in ("com", *_COUNTRIES)]
_YAHOO = [f"yahoo.{tld}" for tld in ("com", "co.in", "co.id", "com.hk", "com.ph", "com.sg", "com.vn", *_COUNTRIES)]
_DOMAINS = {
    "gmail.com": ["googlemail.com"],
    "outlook.com": [*_MICROSOFT, "msn.com", "passport.com", "windowslive.com"],
    # yahoo.co.jp is LY Corporation's, on servers of its own.
    "yahoo.com": [*(name for name in _YAHOO if name != "yahoo.co.jp"), "ymail.com", "rocketmail.com", "myyahoo.com"],
    "yahoo.co.jp": ["ybb.ne.jp"],
    "aol.com": ["aim.com", "aol.de", "aol.fr", "aol.co.uk", "aol.it", "netscape.net", "verizon.net"],
    "icloud.com": ["me.com", "mac.com"],
    "proton.me": ["protonmail.com", "protonmail.ch", "pm.me"],
    "gmx.net": ["gmx.de", "gmx.at", "gmx.ch", "gmx.com", "gmx.org", "gmx.eu", "gmx.fr", "gmx.co.uk"],
    "web.de": [],
    "mail.com": [],
    "t-online.de": ["magenta.de"],
    "freenet.de": [],
    "fastmail.com": ["fastmail.fm"],
    "zoho.com": ["zohomail.com", "zoho.eu", "zohomail.eu"],
    "tutanota.com": ["tutanota.de", "tutamail.com", "tuta.io", "tuta.com", "keemail.me"],
    "mail.ru": ["bk.ru", "inbox.ru", "list.ru", "internet.ru"],
    "yandex.ru": ["yandex.com", "ya.ru", "yandex.by", "yandex.kz", "yandex.ua"],
    "qq.com": ["foxmail.com", "vip.qq.com"],
    "163.com": ["126.com", "yeah.net"],
    "naver.com": [],
    "daum.net": ["hanmail.net", "kakao.com"],
    "docomo.ne.jp": [],
    "orange.fr": ["wanadoo.fr"],
    "free.fr": [],
    "laposte.net": [],
    "libero.it": [],
    "seznam.cz": ["email.cz", "post.cz"],
    "wp.pl": ["o2.pl"],
    "onet.pl": ["op.pl", "poczta.onet.pl", "vp.pl"],
    "interia.pl": [],
    "uol.com.br": ["bol.com.br"],
    "comcast.net": [],
    "att.net": ["sbcglobal.net", "bellsouth.net"],
    "btinternet.com": [],
    "rediffmail.com": [],
}
_PROVIDER_OF = {alias: provider for provider, aliases in _DOMAINS.items() for alias in aliases if alias != provider}
KNOWN_PROVIDERS: frozenset[str] = frozenset(_DOMAINS)
"""The big mailbox providers: a bounded set of values for a metric's label"""


def provider(address: str) -> str:
    """The mailbox provider: the domain, alias domains of the big providers folded into one."""
    domain = domain_of(address)
    return _PROVIDER_OF.get(domain, domain)


def provider_label(provider: str) -> str:
    """The provider as a metric's label: one of KNOWN_PROVIDERS, or `other`."""
    return provider if provider in KNOWN_PROVIDERS else "other"


_NOT_XCHAR = re.compile(rb"[^!-*,-<>-~]")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(rb"\+([0-9A-F]{2})")


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
