"""Take a list of addresses (RFC 5322 3.4) apart: the names decoded, the addresses as they are."""

from __future__ import annotations

import re
from functools import lru_cache

from relay.mail.address import parse_path
from relay.mail.address_list import is_well_formed
from relay.mail.exact import CannotRebuild, unfolded, words_decoded
from relay.providers.api import Mailbox

# What is well formed has no quote without its end, and no bracket in an address but a literal's.
_MAILBOX = re.compile(r'((?:"(?:[^"\\]|\\.)*+"|[^",<])*+)(?:<((?:"(?:[^"\\]|\\.)*+"|[^">])++)> *)?(?:,|\Z)')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"')
_ESCAPED = re.compile(r"\\(.)")


def mailboxes(raw: bytes, field: str) -> tuple[Mailbox, ...]:
    """The mailboxes of a raw From, To, Cc, Reply-To or Sender value. Raises CannotRebuild for groups, source routes,
    comments, addresses beyond ASCII and lists that programs read in different ways. `field` is for the reason."""
    return _mailboxes(raw, field)


@lru_cache(maxsize=64)
def author_of(raw: bytes, field: str) -> tuple[Mailbox, ...]:
    """`mailboxes`, cached: an app has few senders."""
    return _mailboxes(raw, field)


def _mailboxes(raw: bytes, field: str) -> tuple[Mailbox, ...]:
    text = unfolded(raw)
    if not is_well_formed(text):
        raise CannotRebuild(f"{field} is no plain list of addresses")
    if "(" in _QUOTED.sub("", text):
        raise CannotRebuild(f"{field} has a comment")
    found: list[Mailbox] = []
    at = 0
    while at < len(text):
        one = _MAILBOX.match(text, at)
        if one is None:
            raise CannotRebuild(f"{field} is no plain list of addresses")
        at = one.end()
        before, address = one[1].strip(" "), one[2]
        found.append(Mailbox(before, "") if address is None else Mailbox(address, _name(before)))
        _check_address(found[-1].address, field)
    return tuple(found)


def _check_address(address: str, field: str) -> None:
    if not address.isascii():
        raise CannotRebuild(f"{field} has an address beyond ASCII")
    try:
        mailbox, rest = parse_path(f"<{address}>")
    except ValueError:
        mailbox, rest = "", ""
    if mailbox != address or rest or "@" not in address:
        raise CannotRebuild(f"{field} has a malformed address")


def _name(phrase: str) -> str:
    """A display name: quoted strings, atoms and encoded words, one blank between two of them."""
    if '"' not in phrase:
        return words_decoded(_single_blanks(phrase))
    out: list[str] = []
    last = 0
    for quoted in _QUOTED.finditer(phrase):
        start, end = quoted.span()
        # RFC 2047 5 forbids an encoded word within quotes: some programs decode it there.
        if "=?" in quoted[1]:
            raise CannotRebuild("an encoded word in quotes")
        if phrase[max(last, start - 1) : start].strip(" ") or phrase[end : end + 1].strip(" "):
            raise CannotRebuild("a name whose quotes begin or end within a word")
        if start > last + 1:
            out.append(words_decoded(_single_blanks(phrase[last:start].strip(" "))))
        out.append(_ESCAPED.sub(r"\1", quoted[1]))
        last = end
    if last < len(phrase):
        out.append(words_decoded(_single_blanks(phrase[last:].strip(" "))))
    return " ".join(out)


def _single_blanks(text: str) -> str:
    return re.sub(" {2,}", " ", text) if "  " in text else text
