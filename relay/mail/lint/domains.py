"""What lint knows of domains: free mail, names that aren't public, and which belong together."""

from __future__ import annotations

from collections.abc import Iterator

FREE_MAIL = frozenset((
    "gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "live.com", "msn.com", "yahoo.com", "ymail.com",
    "aol.com", "icloud.com", "me.com", "mac.com", "gmx.com", "gmx.net", "gmx.de", "web.de", "mail.ru", "yandex.ru",
    "yandex.com", "qq.com", "163.com", "126.com", "proton.me", "protonmail.com", "mail.com", "zoho.com",
    "t-online.de", "orange.fr", "free.fr", "libero.it", "seznam.cz", "wp.pl", "o2.pl",
))  # fmt: skip
_NOT_PUBLIC = frozenset(("localhost", "local", "localdomain", "lan", "internal", "intranet", "home", "corp", "invalid"))
"""top-level names that the public DNS will never have, RFC 6761, RFC 6762 and by use"""
_SECOND_LEVEL = frozenset(("ac", "co", "com", "edu", "gov", "net", "org"))


def is_public(domain: str) -> bool:
    """Whether the public DNS can have it. An IP address in brackets isn't a name."""
    labels = domain.rstrip(".").split(".")
    return len(labels) > 1 and labels[-1] not in _NOT_PUBLIC and not domain.startswith("[")


def is_related(host: str, sender: str) -> bool:
    """Whether both seem to be below one registered domain. There is no list of public suffixes here."""
    labels = sender.split(".")
    keep = 3 if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL else 2
    registered = ".".join(labels[-keep:])
    return host == registered or host.endswith(f".{registered}")


def parents(domain: str) -> Iterator[str]:
    """The domain and those above it."""
    while domain:
        yield domain
        domain = domain.partition(".")[2]
