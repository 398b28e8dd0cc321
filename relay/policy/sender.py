"""Which addresses a client may send from: the patterns of its listener and of its user, which the envelope's sender and
the From addresses must match. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from relay.config.patterns import Test, compiled
from relay.mail.message import MAX_AUTHORS
from relay.mail.reply import Reply
from relay.policy.check import Accept, Decision, Refuse

Restriction = tuple[str, ...]
"""patterns, of which any may match; none: nothing is restricted"""
_MAX_SHOWN = 254


def check_sender(restrictions: Iterable[Restriction], sender: str) -> Decision:
    """Decide about the envelope's sender at MAIL. The null sender ('') passes: its From is checked later."""
    if not sender or _allowed(restrictions, sender):
        return Accept()
    return _refuse(f"{sender[:_MAX_SHOWN]} may not send here")


def check_author(
    restrictions: Iterable[Restriction],
    sender: str,
    from_addresses: Sequence[str],
    has_clear_authors: Callable[[], bool],
) -> Decision:
    """Decide about a whole message: its envelope's sender and each From address (RFC 6409 6.1). `has_clear_authors`:
    see `mail.message`."""
    held = [one for one in restrictions if one]
    if not held:
        return Accept()
    if isinstance(refused := check_sender(held, sender), Refuse):
        return refused
    if not from_addresses:
        return _refuse("a message without a From address may not be sent here")
    # Behind the limit no address is read, so that it could be anybody's.
    if len(from_addresses) >= MAX_AUTHORS:
        return _refuse("a message with so many From addresses may not be sent here")
    for address in from_addresses:
        if not _allowed(held, address):
            return _refuse(f"{address[:_MAX_SHOWN]} may not be in From here")
    # A mail program may read another address from it than the relay.
    if not has_clear_authors():
        return _refuse("From must be a list of addresses in the form of RFC 5322")
    return Accept()


def _refuse(text: str) -> Refuse:
    return Refuse(Reply(550, f"5.7.1 {text}"), "sender")


def _allowed(restrictions: Iterable[Restriction], address: str) -> bool:
    """Whether the address matches each restriction."""
    return all(not one or any(test(address) for test in _tests(one)) for one in restrictions)


@lru_cache(maxsize=1024)
def _tests(patterns: Restriction) -> tuple[Test, ...]:
    return tuple(compiled(pattern) for pattern in patterns)
