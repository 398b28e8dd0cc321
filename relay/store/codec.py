"""How contents are stored: the one place where they are sealed (encrypted) and opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_TAG_BYTES = 16
SEAL_BYTES = _NONCE_BYTES + _TAG_BYTES
"""so much longer is what is sealed"""


class Codec(Protocol):
    """Seals and opens each part of a content by itself. `name` (`ID/PART`) is unique among all parts of a relay."""

    @property
    def key_id(self) -> str | None:
        """Names the key that `seal` uses; it is stored with the message. None: there is no key."""

    def seal(self, content: bytes, name: str) -> bytes:
        """The bytes to store."""

    def open(self, stored: bytes, name: str, key_id: str | None) -> bytes:
        """The content that `seal` was given with this name and key. Raises ValueError where it isn't that; the text
        continues `the content is`."""

    def check(self, key_id: str | None) -> None:
        """Raises that ValueError where there is no key of this id."""


class Plain:
    """Leaves contents as they are. A relay always seals; commands that need no content open a store with this."""

    key_id = None

    def __init__(self, lacking: str = "there is no key for it") -> None:
        """`lacking`: what the operator is told of the key."""
        self._lacking = lacking

    def seal(self, content: bytes, name: str) -> bytes:  # noqa: ARG002 - the protocol's
        return content

    def open(self, stored: bytes, name: str, key_id: str | None) -> bytes:  # noqa: ARG002 - the protocol's
        self.check(key_id)
        return stored

    def check(self, key_id: str | None) -> None:
        if key_id is not None:
            raise ValueError(f"encrypted with key {key_id}, and {self._lacking}")


class Sealed:
    """AES-256-GCM: a random nonce, the ciphertext, the tag. The first key seals, each of them opens. What was written
    without a key is read as it is.

    Every part has a key of its own, derived from the file's and the part's name. So a part in another's place doesn't
    open, and a nonce never comes twice with one key however much mail there is: with a single key, NIST SP 800-38D
    8.3 ends the use of random nonces at 2^32.
    """

    __slots__ = ("_aes_gcm", "_keys", "_source", "key_id")

    def __init__(self, keys: Sequence[bytes], source: str) -> None:
        """`keys`: 32 bytes each, at least one; `source`: where they stand, for an operator."""
        self._keys = {key_id(key): key for key in keys}
        self._source = source
        self.key_id: str = key_id(keys[0])
        # Loaded here: the commands that read the log and no content do without.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._aes_gcm = AESGCM

    def __reduce__(self) -> tuple[type[Sealed], tuple[tuple[bytes, ...], str]]:
        return Sealed, (tuple(self._keys.values()), self._source)  # a worker loads the library with its configuration

    def __repr__(self) -> str:
        return f"Sealed(<{len(self._keys)} keys of {self._source}>)"

    def seal(self, content: bytes, name: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher(self.key_id, name).encrypt(nonce, content, name.encode())

    def open(self, stored: bytes, name: str, key_id: str | None) -> bytes:
        from cryptography.exceptions import InvalidTag

        self.check(key_id)
        if key_id is None:
            return stored
        if len(stored) < SEAL_BYTES:
            raise ValueError("damaged: it is cut short")
        nonce, sealed = stored[:_NONCE_BYTES], stored[_NONCE_BYTES:]
        try:
            return self._cipher(key_id, name).decrypt(nonce, sealed, name.encode())
        except InvalidTag:
            raise ValueError("damaged, or another message's") from None

    def _cipher(self, key_id: str, name: str) -> AESGCM:
        return self._aes_gcm(
            blake2b(name.encode(), key=self._keys[key_id], digest_size=32, person=b"otp-relay part").digest()
        )

    def check(self, key_id: str | None) -> None:
        if key_id is not None and key_id not in self._keys:
            raise ValueError(f"encrypted with key {key_id}, which {self._source} doesn't hold")


def key_id(key: bytes) -> str:
    """A name for a key, that tells nothing of it."""
    return blake2b(key, digest_size=4, person=b"otp-relay key id").hexdigest()
