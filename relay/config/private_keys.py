"""Load and check private keys in PEM form, for DKIM and TLS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

# RFC 8301 3.2: verifiers ignore RSA keys below 1024 bits, and signers should have 2048.
MIN_RSA_BITS = 1024
GOOD_RSA_BITS = 2048


def load_private_key(path: Path, pem: bytes) -> PrivateKeyTypes:
    """The private key in a PEM file. Raises ValueError with one line that names the file and shows none of it."""
    if b"PUBLIC KEY-----" in pem:
        raise ValueError(f"expected a private key in {path}, got a public one")
    if b"PRIVATE KEY-----" not in pem:
        raise ValueError(f"expected a private key in PEM form in {path}")
    try:
        return _load_and_try(pem)
    except TypeError:
        raise ValueError(f"the key in {path} is encrypted; the relay needs it without a passphrase") from None
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        raise ValueError(f"the private key in {path} is damaged or of an unknown kind") from None


@lru_cache(maxsize=64)
def _load_and_try(pem: bytes) -> PrivateKeyTypes:
    """A key whose signature its public half verifies. For RSA that takes 0.6 ms; OpenSSL's full check, which
    `contradictions` makes, takes 50."""
    key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, RSAPrivateKey):
        key.public_key().verify(key.sign(b"", PKCS1v15(), SHA256()), b"", PKCS1v15(), SHA256())
    return key


def check_dkim_key(path: Path, pem: bytes) -> str | None:
    """What is weak about a key that can sign mail, or None. Raises ValueError for any other file."""
    key = load_private_key(path, pem)
    if isinstance(key, Ed25519PrivateKey):
        return None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError(f"expected an RSA or Ed25519 key in {path}, got another kind")  # noqa: TRY004
    if key.key_size < MIN_RSA_BITS:
        raise ValueError(f"expected an RSA key of at least {MIN_RSA_BITS} bits in {path}, got {key.key_size}")
    if key.key_size < GOOD_RSA_BITS:
        return f"the key has {key.key_size} bits; {GOOD_RSA_BITS} are advised (RFC 8301)"
    return None


def contradictions(pems: Mapping[Path, bytes]) -> Iterator[str]:
    """A line for each key that signs, but whose numbers contradict each other. Takes 50 ms for an RSA key."""
    for path, pem in pems.items():
        try:
            load_pem_private_key(pem, password=None)
        except ValueError:
            yield f"the key in {path} is damaged, though it still signs; make a new one"
