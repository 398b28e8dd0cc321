"""What lint knows of domains: free mail, names that aren't public, and which belong together."""

from __future__ import annotations

from relay.mail.mailbox_provider import provider_of_domain

_MORE_FREE_MAIL = frozenset((
    "mail.com", "t-online.de", "orange.fr", "free.fr", "libero.it", "seznam.cz", "wp.pl", "o2.pl",
))  # fmt: skip
_NOT_PUBLIC = frozenset(("localhost", "local", "localdomain", "lan", "internal", "intranet", "home", "corp", "invalid"))
"""top-level names that the public DNS will never have, RFC 6761, RFC 6762 and by use"""
_SECOND_LEVEL = frozenset(("ac", "co", "com", "edu", "gov", "net", "org"))


def is_free_mail(domain: str) -> bool:
    """Whether it is of a mailbox provider, which alone signs for it."""
    return provider_of_domain(domain) != domain or domain in _MORE_FREE_MAIL


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
