"""Sign a digest with a private key. Imports only cryptography, to keep the helper process of `signing` small."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

PrivateKey = RSAPrivateKey | Ed25519PrivateKey


def sign_digest(private: PrivateKey, digest: bytes) -> bytes:
    """The signature for a SHA-256 digest."""
    if isinstance(private, RSAPrivateKey):
        return private.sign(digest, PKCS1v15(), Prehashed(SHA256()))
    # RFC 8463 3: Ed25519 signs the hash, not the text.
    return private.sign(digest)
