"""Pseudonyms of addresses: keyed hashes, by which only someone who knows an address finds it."""

from __future__ import annotations

import re

SALT_BYTES = 32
_HASHED = re.compile(r"h:[0-9a-f]{16}(?:@.*)?", re.DOTALL)
_LOCAL = r"\w.!#$%&*+/=?^{|}~-"
# A hash is found first and left alone. The look behind keeps the search linear: it begins at a word's begin only.
_IN_TEXT = re.compile(
    rf"h:[0-9a-f]{{16}}(?:@[\w.-]+)?|(?:(?<![{_LOCAL}])[{_LOCAL}]+|\"[^\"\r\n]{{1,64}}\")@(?:[\w-]+(?:\.[\w-]+)*|\[[^\]\s]+\])"
)
_SHORTEST_LOCAL = 3


class Hashed:
    """`h:` and 16 hexadecimal digits, then the domain as it was: `h:0c5f6a7d19b2e348@example.net`. `salt` is the
    store's own: the same address has another hash elsewhere."""

    __slots__ = ("_salt",)

    def __init__(self, salt: bytes) -> None:
        self._salt = salt

    def address(self, address: str) -> str:
        """An address's hash, the same whatever its case; the null sender and a hash stay as they are."""
        if not address or _HASHED.fullmatch(address):
            return address
        from hashlib import blake2b  # here, for the commands that read: it loads OpenSSL

        folded = address.casefold()
        digest = blake2b(folded.encode("utf-8", "replace"), key=self._salt, digest_size=8).hexdigest()
        return f"h:{digest}{folded[folded.rfind('@') :]}" if "@" in folded else f"h:{digest}"

    def text(self, text: str, known: str) -> str:
        """A text (a reply, a subject) with each address in it hashed, and the local part of the `known` one where it
        stands alone (`<bob>: user unknown`)."""
        local, at, _ = known.rpartition("@")
        folded = text.casefold()
        if at and local.casefold() in folded:
            hashed = self.address(known)
            # The whole address first, which may be quoted, then its local part where that stands alone.
            text = re.sub(re.escape(known), lambda _: hashed, text, flags=re.IGNORECASE)
            if _is_distinctive(local):
                alone = rf"(?<![\w.+=@:-]){re.escape(local)}(?![\w+=@-]|\.\w)"
                text = re.sub(alone, lambda _: hashed, text, flags=re.IGNORECASE)
        return _IN_TEXT.sub(lambda found: self.address(found[0]), text) if "@" in folded else text


def is_hashed(address: str) -> bool:
    """Does a hash stand in the address's place?"""
    return _HASHED.fullmatch(address) is not None


def _is_distinctive(local: str) -> bool:
    """Is it no reply code (three digits), and longer than two letters?"""
    return len(local) >= _SHORTEST_LOCAL and not (len(local) == _SHORTEST_LOCAL and local.isdigit())
