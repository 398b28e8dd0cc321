"""Which requests are the same: what an idempotency key stands for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from relay.mail.envelope import Envelope
from relay.mail.message import Message, first
from relay.mail.mime import content_type

HEADER = "x-relay-idempotency-key"
MOST_KEY_CHARS = 255
REQUESTS_KEPT_S = 24 * 3600.0
_MADE_ANEW = frozenset({"date", "message-id", "received", "x-mailer", HEADER})
"""fields that a program makes anew when it tries again"""


def is_key(text: str) -> bool:
    """Whether a text can be an idempotency key: printable ASCII, MOST_KEY_CHARS at most."""
    return 0 < len(text) <= MOST_KEY_CHARS and text.isascii() and text.isprintable()


def hash_of_key(salt: bytes, key: str, user: str | None) -> bytes:
    """A keyed hash of a key. Each user that logs in has keys of its own."""
    named = f"{user or ''}\n{key}".encode("utf-8", "surrogatepass")
    return blake2b(named, key=salt, digest_size=16, person=b"key").digest()


def hash_of_request(
    salt: bytes, envelope: Envelope, message: Message, body: Iterable[bytes], lane: str | None = None
) -> bytes:
    """A keyed hash of what a request asks for. `message`: its header section at least; `body`: what follows that, in
    pieces; `lane`: the one that the request names beside the message. Date, Message-ID and MIME boundaries don't
    matter: an app that tries again makes them anew."""
    digest = blake2b(key=salt, digest_size=16, person=b"request")
    addresses = [envelope.sender, *sorted(one.address for one in envelope.recipients)]
    digest.update("\n".join(addresses).encode("utf-8", "surrogatepass"))
    if lane is not None:
        digest.update(b"\0" + lane.encode("utf-8", "surrogatepass"))
    boundary = content_type(message)[1].get("boundary", "").encode() if first(message, "content-type") else b""
    for field in message.fields:
        if field.name not in _MADE_ANEW:
            digest.update(b"\n%s:%s" % (field.name.encode(), _without(boundary, field.value)))
    digest.update(b"\n\n")
    for piece in _without_boundaries(boundary, body):
        digest.update(piece)
    return digest.digest()


def _without(boundary: bytes, text: bytes) -> bytes:
    return text.replace(boundary, b"") if boundary else text


def _without_boundaries(boundary: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, however they are divided into pieces, without any boundary."""
    held = b""
    for piece in pieces:
        *done, held = (held + piece).split(boundary) if boundary else (held + piece, b"")
        yield from done
        if boundary and len(held) >= len(boundary):
            keep = len(boundary) - 1
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    yield held
