"""Make key, certificate and password files, good and bad ones, for a test run. The repository holds none."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

STORE_KEYS = (bytes(range(32)), bytes(range(224, 256)))
PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def write_keys(folder: Path) -> None:
    """Fill a folder with the files that the configurations under `tests/configs` name."""
    folder.mkdir(mode=0o700)
    strong = rsa.generate_private_key(65537, 2048)
    tls = ec.generate_private_key(ec.SECP256R1())
    pem = _pem(strong)
    files = {
        "rsa2048.pem": pem,
        "rsa1024.pem": _pem(rsa.generate_private_key(65537, 1024)),
        "rsa512.pem": RSA_512,
        "ed25519.pem": _pem(ed25519.Ed25519PrivateKey.generate()),
        "crlf.pem": pem.replace(b"\n", b"\r\n"),
        "ec.pem": _pem(tls),
        "encrypted.pem": _pem(tls, BestAvailableEncryption(b"hunter2")),
        "public.pem": strong.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "damaged.pem": pem[:200] + b"AAAA" + pem[204:],
        "garbage.pem": b"hunter2 is not a key\n",
        "huge": b"x" * 100_000,
        "tls.key": _pem(tls),
        "tls.crt": certificate(tls, timedelta(days=365)),
        "expired.crt": certificate(tls, timedelta(days=-1)),
        "password": b"hunter2\n",
        "password-crlf": b"hunter2\r\n",
        "two-lines": b"hunter2\nhunter2\n",
        "empty": b"\n",
        "latin-1": b"hunter2\xff\n",
        "users": b"app:$argon2id$v=19$m=19456,t=2,p=1$" + b"c2FsdHNhbHRzYWx0$" + b"aGFzaGhhc2hoYXNoaGFzaA\n",
        "store.key": b"# hunter2\n" + STORE_KEYS[0].hex().encode() + b"\n\n" + b64encode(STORE_KEYS[1]) + b"\n",
        "store.key-short": b"# hunter2\n\n" + b64encode(STORE_KEYS[0]) + b"\n" + b"hunter2" * 6 + b"\n",
        "store.key-empty": b"# hunter2\n",
    }
    for name, content in files.items():
        path = folder / name
        path.write_bytes(content)
        path.chmod(0o600)


def _pem(key: PrivateKey, encryption: KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def certificate(key: PrivateKey, lifetime: timedelta) -> bytes:
    """A certificate for localhost that ends `lifetime` from now."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    end = datetime.now(UTC) + lifetime
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(end - timedelta(days=400))
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


# No library makes such short keys any more.
RSA_512 = b"""\
-----BEGIN PRIVATE KEY-----
MIIBVQIBADANBgkqhkiG9w0BAQEFAASCAT8wggE7AgEAAkEAykh9fMPXK7ol9JoW
izQ1mYPcrJp4D3sNF///xxBNca6rDWFQPE4dg/uvbcILJTMeZKTUDqj96ySm6D/C
QG7ACwIDAQABAkARzAruXTSjLj+Eo8H0AWXt2cIilXyWsBbY07cnRnHp3HIuA6G+
FtDse9AYjA7bZ2/zkCHVJHnMQukUyGVSwgBRAiEA7nvKaWqjZM3qPxL8zAZDFf7U
VkGimswV3nfobtAHssUCIQDZJAXobgM04TDCHry/ohOrNLTQUy6/b9S9Q5xnoiiU
jwIhANQ6kczyO2ov3XA4I4QlZnoihzAjxOLhD+0k5FIJC3DJAiA6JclnOr6lFIDI
Gw8UikSWHmElQIFORpZDsK1bmzMexQIhAJqSqUdxZ9NAlmTbvO5sASf4GGKbiKlJ
s0NnoMx4YcZY
-----END PRIVATE KEY-----
"""
