"""The files that a configuration names, read and judged once, when it is loaded.

What goes wrong raises ValueError with one line for the operator; it never holds what a file contains.
"""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from relay.config.content import content
from relay.config.errors import Finding, Loc, note
from relay.config.model import DkimDomain, Listener, Section, Upstream

MIN_RSA_BITS = 1024
GOOD_RSA_BITS = 2048
EXPIRES_SOON = timedelta(days=14)
STORE_KEY_BYTES = 32
STORE_KEY_CREDENTIAL = "store_key"
_STORE_KEY_HINT = "otp-relay store key makes one: 32 bytes in base64 or hexadecimal, a line each"


def password(path: Path) -> str:
    """The one line of a password file, without its line end."""
    try:
        text = content(path).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} isn't UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"{path} is empty")
    if any(char in text for char in "\0\r\n"):
        raise ValueError(f"expected one line in {path}, got more")
    return text


def check(
    sections: Mapping[Loc, Section], now: datetime, pems: dict[Path, bytes], *, users_may_lack: bool = False
) -> Iterator[Finding]:
    """All files of the sections. The DKIM keys that can be used are put into `pems`.

    `users_may_lack`: a users file that isn't there is no mistake.
    """
    for loc, section in sections.items():
        match section:
            case Listener():
                if section.users_file is not None and not (users_may_lack and _lacks(section.users_file)):
                    yield from readable((*loc, "users_file"), section.users_file)
                yield from _listener(loc, section, now)
            case Upstream():
                yield from _upstream(loc, section)
            case DkimDomain():
                for n, key in enumerate(section.keys):
                    yield from _dkim_key((*loc, "keys", n, "key_file"), key.key_file, pems)


def store_keys(path: Path) -> tuple[bytes, ...]:
    """The keys in a `store_key_file`: 32 bytes in base64 or hexadecimal, a line each; blank lines and lines with #
    before them count for nothing."""
    try:
        text = content(path).decode("ascii")
    except UnicodeDecodeError:
        raise ValueError(f"{path} isn't text; {_STORE_KEY_HINT}") from None
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        if (word := line.strip()) and not word.startswith("#"):
            key = _store_key(word)
            if key is None:
                raise ValueError(f"line {number} of {path} isn't a key; {_STORE_KEY_HINT}")
            keys.append(key)
    if not keys:
        raise ValueError(f"there is no key in {path}; {_STORE_KEY_HINT}")
    return tuple(dict.fromkeys(keys))


def _store_key(word: str) -> bytes | None:
    try:
        if len(word) == 2 * STORE_KEY_BYTES:
            return bytes.fromhex(word)
        padded = word.rstrip("=") + "=" * (-len(word.rstrip("=")) % 4)
        key = base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
    except ValueError:
        return None
    return key if len(key) == STORE_KEY_BYTES else None


def store_key_credential(environ: Mapping[str, str]) -> Path | None:
    """The key that systemd gives the service (systemd.exec(5), LoadCredential=store_key:...)."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, STORE_KEY_CREDENTIAL) if folder else None
    return path if path is not None and path.exists() else None


def readable(loc: Loc, path: Path | None) -> Iterator[Finding]:
    if path is not None:
        try:
            content(path)
        except ValueError as error:
            yield Finding(loc, str(error))


def _lacks(path: Path) -> bool:
    try:
        return not path.exists()
    except OSError:  # it can't be seen whether it is there
        return False


def _exposed(path: Path) -> bool:
    with suppress(OSError):
        return bool(path.stat().st_mode & stat.S_IROTH)
    return False


def secret(loc: Loc, path: Path | None) -> Iterator[Finding]:
    if path is not None and _exposed(path):
        yield note(loc, f"every user of this machine can read {path}; chmod 600 it")


def _listener(loc: Loc, listener: Listener, now: datetime) -> Iterator[Finding]:
    if listener.tls == "none" or listener.cert_file is None or listener.key_file is None:
        return
    missing = [
        *readable((*loc, "cert_file"), listener.cert_file),
        *readable((*loc, "key_file"), listener.key_file),
    ]
    yield from missing
    if not missing:
        yield from _certificate(loc, listener.cert_file, listener.key_file, now)
        yield from secret((*loc, "key_file"), listener.key_file)


def _certificate(loc: Loc, cert_file: Path, key_file: Path, now: datetime) -> Iterator[Finding]:
    import ssl

    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificates(content(cert_file))[0]
    except ValueError:
        yield Finding((*loc, "cert_file"), f"expected certificates in PEM form in {cert_file}")
        return
    try:
        key = _private_key(key_file, content(key_file))
    except ValueError as error:
        yield Finding((*loc, "key_file"), str(error))
        return
    if key.public_key() != certificate.public_key():
        yield Finding((*loc, "key_file"), f"the key in {key_file} doesn't belong to the certificate")
        return
    try:
        # The password is never asked for on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file, password="")
    except ssl.SSLError:  # a kind or a strength of key that OpenSSL doesn't serve
        yield Finding((*loc, "key_file"), f"the key in {key_file} can't be used for TLS")
        return
    until = certificate.not_valid_after_utc
    if until <= now:
        yield note((*loc, "cert_file"), f"the certificate expired on {until:%Y-%m-%d}")
    elif until <= now + EXPIRES_SOON:
        yield note((*loc, "cert_file"), f"the certificate expires on {until:%Y-%m-%d}")
    elif certificate.not_valid_before_utc > now:
        yield note((*loc, "cert_file"), f"the certificate holds from {certificate.not_valid_before_utc:%Y-%m-%d} on")


def _upstream(loc: Loc, upstream: Upstream) -> Iterator[Finding]:
    yield from secret((*loc, "password_file"), upstream.password_file)
    if upstream.ca_file is None or upstream.tls == "none":
        return
    from cryptography import x509

    try:
        pem = content(upstream.ca_file, 1 << 22)
    except ValueError as error:
        yield Finding((*loc, "ca_file"), str(error))
        return
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError:
        yield Finding((*loc, "ca_file"), f"expected certificates in PEM form in {upstream.ca_file}")


def _dkim_key(loc: Loc, path: Path, pems: dict[Path, bytes]) -> Iterator[Finding]:
    try:
        pem = content(path).replace(b"\r\n", b"\n")  # a key that went through Windows
        key = _private_key(path, pem)
    except ValueError as error:
        yield Finding(loc, str(error))
        return
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if isinstance(key, RSAPrivateKey):
        # RFC 8301 3.2: verifiers take nothing below 1024 bits, and 2048 is what to sign with.
        if key.key_size < MIN_RSA_BITS:
            yield Finding(loc, f"expected an RSA key of at least {MIN_RSA_BITS} bits in {path}, got {key.key_size}")
            return
        if key.key_size < GOOD_RSA_BITS:
            yield note(loc, f"the key has {key.key_size} bits; {GOOD_RSA_BITS} are advised (RFC 8301)")
    elif not isinstance(key, Ed25519PrivateKey):
        yield Finding(loc, f"expected an RSA or Ed25519 key in {path}, got another kind")
        return
    yield from secret(loc, path)
    pems[path] = pem


def _private_key(path: Path, pem: bytes) -> Any:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    if b"PUBLIC KEY-----" in pem:
        raise ValueError(f"expected a private key in {path}, got a public one")
    if b"PRIVATE KEY-----" not in pem:
        raise ValueError(f"expected a private key in PEM form in {path}")
    try:
        return _parsed(pem)
    except TypeError:
        raise ValueError(f"the key in {path} is encrypted; the relay needs it without a passphrase") from None
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        raise ValueError(f"the private key in {path} is damaged or of an unknown kind") from None


@lru_cache(maxsize=64)
def _parsed(pem: bytes) -> Any:
    """A key that works: what it signs is held against its public half. For RSA that takes 0.6 ms; to look whether all
    of its numbers fit together takes OpenSSL 50 (`contradictions` does)."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, RSAPrivateKey):
        key.public_key().verify(key.sign(b"", PKCS1v15(), SHA256()), b"", PKCS1v15(), SHA256())
    return key


def contradictions(pems: Mapping[Path, bytes]) -> Iterator[str]:
    """The keys that sign, but whose numbers don't all fit together: a line each. 50 ms for an RSA key."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    for path, pem in pems.items():
        try:
            load_pem_private_key(pem, password=None)
        except ValueError:
            yield f"the key in {path} is damaged, though it still signs; make a new one"


def utc_now() -> datetime:
    return datetime.now(UTC)
