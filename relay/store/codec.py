"""How contents lie in the store: the one place where they are encoded and decoded."""

from __future__ import annotations

from typing import Protocol


class Codec(Protocol):
    """Applied to each part of a content by itself. `name` (`ID/PART`) is unique in the store and tells parts apart."""

    def encode(self, content: bytes, name: str) -> bytes:
        """What is written."""

    def decode(self, stored: bytes, name: str) -> bytes:
        """What was given to `encode` under this name. Raises ValueError when it is not that."""


class Plain:
    """As it is."""

    def encode(self, content: bytes, name: str) -> bytes:  # noqa: ARG002 - the protocol's
        return content

    def decode(self, stored: bytes, name: str) -> bytes:  # noqa: ARG002 - the protocol's
        return stored
