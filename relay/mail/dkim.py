"""Sign messages with DKIM (RFC 6376; Ed25519: RFC 8463). Keys are parsed once, a body is hashed once for all keys.

The tests verify every signature with dkimpy. It doesn't sign here, since it parses the PEM at every signature and signs
with RSA in pure Python (7 ms).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from relay.config.model import DkimDomain
from relay.mail.address import MAX_DOMAIN_OCTETS, with_parents
from relay.mail.canonical import BodyHash, relaxed_field
from relay.mail.message import Message
from relay.mail.private_key import PrivateKey, sign_digest

OVERSIGNED = (
    "from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id",
    "mime-version", "content-type", "content-transfer-encoding", "in-reply-to", "references",
)  # fmt: skip
"""signed once more than they occur, so that none can be added above (RFC 6376 8.15)"""

SIGNED = (
    "resent-date", "resent-from", "resent-sender", "resent-to", "resent-cc", "resent-message-id",
    "content-id", "content-description", "list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post",
    "list-subscribe", "list-post", "list-owner", "list-archive", "feedback-id", "auto-submitted",
)  # fmt: skip
"""signed where they occur (RFC 6376 5.4.1; List-Unsubscribe-Post must be: RFC 8058 4)"""

_LABELS = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*")


class Unsignable(Exception):
    """The message can't be signed. It is relayed without a signature."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Signature(NamedTuple):
    """`headers`: DKIM-Signature fields, CRLF-ended, to stand before the content."""

    headers: bytes
    selectors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """A private key, with the part of its signature fields that is always the same."""

    selector: str
    private: PrivateKey
    tags: bytes
    number: int = field(default_factory=count(1).__next__, compare=False)
    """unique in this process"""

    def sign(self, digest: bytes) -> bytes:
        """The signature for a SHA-256 digest. This is the slow part of signing."""
        return sign_digest(self.private, digest)


class Unsigned(NamedTuple):
    """Signature fields without their signatures, which another process may make: each of the `digests` goes through
    its key's `Key.sign`, and the results go to `signed`."""

    keys: tuple[Key, ...]
    values: tuple[bytes, ...]
    digests: tuple[bytes, ...]

    def signed(self, signatures: Sequence[bytes]) -> Signature:
        """One DKIM-Signature field for each key."""
        fields = [_field(value, one) for value, one in zip(self.values, signatures, strict=True)]
        return Signature(b"".join(fields), tuple(key.selector for key in self.keys))

    def sign(self) -> Signature:
        """Make the signatures in this process."""
        return self.signed([key.sign(digest) for key, digest in zip(self.keys, self.digests, strict=True)])


@dataclass(frozen=True, slots=True)
class KeySet:
    """All keys of one configured domain."""

    domain: str
    keys: tuple[Key, ...]

    @property
    def selectors(self) -> tuple[str, ...]:
        return tuple(key.selector for key in self.keys)


class Signer:
    """The configured domains with their keys. `pems` holds the content of each key file, as the configuration's loading
    has checked it."""

    def __init__(self, domains: Sequence[DkimDomain], pems: Mapping[Path, bytes]) -> None:
        self._domains: dict[str, KeySet] = {}
        for entry in domains:
            domain = ascii_domain(entry.domain)
            keys = tuple(_key(domain, key.selector, pems[key.key_file]) for key in entry.keys)
            self._domains[domain] = KeySet(domain, keys)

    def select(self, from_domain: str) -> KeySet | None:
        """The keys of the longest configured domain that is `from_domain` or above it."""
        domains = with_parents(ascii_domain(from_domain))
        return next((self._domains[one] for one in domains if one in self._domains), None)

    @property
    def keys(self) -> tuple[Key, ...]:
        """Of all domains."""
        return tuple(key for keyset in self._domains.values() for key in keyset.keys)

    @staticmethod
    def prepare(
        message: Message,
        keyset: KeySet,
        *,
        now: int,
        unsigned_headers: frozenset[str] = frozenset(),
        body_hash: bytes | None = None,
    ) -> Unsigned:
        """One DKIM-Signature field for each key, relaxed/relaxed, over a message as `message.prepare` makes it.

        `unsigned_headers` (lower-case) are left out, for upstreams that rewrite them; From is always covered.
        `body_hash` is `BodyHash(...).digest()` where it is known. `now` is in seconds. Raises Unsignable.
        """
        plan = _plan_for(message, unsigned_headers)
        if plan.reason is not None:
            raise Unsignable(plan.reason)
        fields = message.fields
        head = b"".join([relaxed_field(name, fields[at].value) + b"\r\n" for name, at in plan.order])
        if body_hash is None:
            body_hash = BodyHash(message.content, message.body_at).digest()
        # A line end stands where a blank may stand: relaxed, both count as one blank.
        rest = b"t=%d;\r\n\th=%b;\r\n\tbh=%b;\r\n\tb=" % (now, plan.listed, base64.b64encode(body_hash))
        values = tuple(b" " + key.tags + rest for key in keyset.keys)
        digests = tuple(hashlib.sha256(head + relaxed_field(b"dkim-signature", value)).digest() for value in values)
        return Unsigned(keyset.keys, values, digests)


def why_unsignable(message: Message) -> str | None:
    """Why the message can't be signed; None where it can."""
    return _plan_for(message, frozenset()).reason


class _Plan(NamedTuple):
    """The fields to sign in a header section, by the names of its fields."""

    reason: str | None
    """why it can't be signed"""
    listed: bytes = b""
    """the names for h="""
    order: tuple[tuple[bytes, int], ...] = ()
    """name and index of each field in the order of hashing (RFC 6376 5.4.2: from the bottom up)"""


def _plan_for(message: Message, unsigned: frozenset[str]) -> _Plan:
    names = tuple([field.name for field in message.fields])
    return _plan(names, unsigned) if message.head_end <= _PLANNED_BYTES else _plan.__wrapped__(names, unsigned)


_PLANNED_BYTES = 8_192
"""plans of longer header sections aren't cached"""


@lru_cache(maxsize=256)
def _plan(names: tuple[str, ...], unsigned: frozenset[str]) -> _Plan:
    """Cached, since an app's messages have the same fields."""
    if "" in names or not "".join(names).isascii():
        # Verifiers disagree about such a header section, or refuse it.
        return _Plan("malformed header section")
    if "from" not in names:
        return _Plan("no From")
    places: dict[str, list[int]] = {}
    for at, name in enumerate(names):
        places.setdefault(name, []).append(at)
    listed: list[bytes] = []
    order: list[tuple[bytes, int]] = []
    for wanted, extra in ((OVERSIGNED, 1), (SIGNED, 0)):
        for name in wanted:
            if name in unsigned and name != "from":
                continue
            found = places.get(name, ())
            raw_name = name.encode()
            order += [(raw_name, at) for at in reversed(found)]
            listed += [raw_name] * (len(found) + extra)
    return _Plan(None, _folded(listed), tuple(order))


def _field(value: bytes, signature: bytes) -> bytes:
    encoded = base64.b64encode(signature)
    lines = b"\r\n\t ".join(encoded[at : at + 72] for at in range(0, len(encoded), 72))
    return b"DKIM-Signature:" + value + lines + b"\r\n"


def _folded(names: list[bytes]) -> bytes:
    """`a:b:c` in lines of at most 76 characters."""
    lines: list[bytes] = []
    line = b""
    for name in names:
        if line and len(line) + len(name) > 72:
            lines.append(line)
            line = b""
        line += name + b":"
    return b"\r\n\t ".join([*lines, line])[:-1]


def ascii_domain(domain: str) -> str:
    """The domain in lower case, with A-labels (RFC 5890) for Unicode ones; '' for an impossible domain."""
    domain = domain.rstrip(".").lower()
    if len(domain) > MAX_DOMAIN_OCTETS:
        return ""  # the codec and a loop over the labels take quadratic time
    try:
        return domain if domain.isascii() else domain.encode("idna").decode("ascii")
    except UnicodeError:
        return ""


def is_dns_name(name: str) -> bool:
    """Whether it can be a domain or a selector: ASCII labels, no character that ends a tag."""
    return len(name) <= MAX_DOMAIN_OCTETS and _LABELS.fullmatch(name) is not None


def _key(domain: str, selector: str, pem: bytes) -> Key:
    for name in (domain, selector):
        if not is_dns_name(name):
            raise ValueError(f"not a name for DNS: {name!r}")
    # `config.private_keys` has checked the key's numbers, which takes 50 ms.
    private = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
        raise TypeError(f"no key for DKIM: {type(private).__name__}")
    algorithm = "rsa" if isinstance(private, RSAPrivateKey) else "ed25519"
    tags = f"v=1; a={algorithm}-sha256; c=relaxed/relaxed; d={domain};\r\n\ts={selector}; "
    return Key(selector, private, tags.encode("ascii"))


def dns_record(private: PrivateKey) -> str:
    """The TXT record to publish at `SELECTOR._domainkey.DOMAIN` (RFC 6376 3.6.1, RFC 8463 4)."""
    public = private.public_key()
    if isinstance(private, RSAPrivateKey):
        kind, raw = "rsa", public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        kind, raw = "ed25519", public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"v=DKIM1; k={kind}; p={base64.b64encode(raw).decode()}"
