"""Make DKIM keys, and their records as lines of a zone file."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relay.mail.private_key import PrivateKey

RSA_BITS = 2048
"""RFC 8301 3.2; longer keys sign slower and no longer fit into one DNS packet"""


def new_key(*, is_ed25519: bool) -> PrivateKey:
    """A new private key: Ed25519 (RFC 8463), or RSA."""
    return ed25519.Ed25519PrivateKey.generate() if is_ed25519 else rsa.generate_private_key(65537, RSA_BITS)


def pem_of(key: PrivateKey) -> bytes:
    """The key as a PEM file without a passphrase (PKCS 8)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def file_name(domain: str, selector: str) -> str:
    """The name of a key's file."""
    return f"{domain}.{selector}.pem"


def zone_line(domain: str, selector: str, record: str) -> str:
    """The TXT record for a zone file, in strings of at most 255 octets (RFC 1035 3.3.14)."""
    strings = " ".join(f'"{record[at : at + 255]}"' for at in range(0, len(record), 255))
    return f"{selector}._domainkey.{domain}. IN TXT ( {strings} )"
