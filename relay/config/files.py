"""Read and check the files that a configuration names, once, when it is loaded.

Errors are one line for the operator and show nothing of a file's content.
"""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from relay.config.errors import Diagnostic, Loc, note
from relay.config.feedback import EventReceiver, Webhooks
from relay.config.fields import Section
from relay.config.model import DkimDomain, Http, Listener, Upstream
from relay.config.named_file import read_named_file

EXPIRES_SOON = timedelta(days=14)
STORE_KEY_BYTES = 32
STORE_KEY_CREDENTIAL = "store_key"
_STORE_KEY_HINT = "otp-relay store key makes one: 32 bytes in base64 or hexadecimal, a line each"


def read_password(path: Path) -> str:
    """The one line of a password file, without its line end. Raises ValueError."""
    try:
        text = read_named_file(path).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} isn't UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"{path} is empty")
    if any(char in text for char in "\0\r\n"):
        raise ValueError(f"expected one line in {path}, got more")
    return text


class FilesRead(NamedTuple):
    """What is kept of the files."""

    pems: dict[Path, bytes]
    """the usable DKIM keys"""
    certificate_ends: dict[Path, float]
    """of listeners: seconds since the epoch"""


def check(sections: Mapping[Loc, Section], read: FilesRead, *, may_lack_users: bool = False) -> Iterator[Diagnostic]:
    """Check every file of the sections, and put what is kept of them into `read`.

    `may_lack_users`: a missing users file is no mistake.
    """
    for loc, section in sections.items():
        match section:
            case Listener():
                if section.users_file is not None and not (may_lack_users and _is_missing(section.users_file)):
                    yield from _readable((*loc, "users_file"), section.users_file)
                if section.tls != "none" and section.cert_file is not None and section.key_file is not None:
                    yield from _tls_files(loc, section.cert_file, section.key_file, read)
            case Http():
                for name in ("token_file", "read_token_file", "send_token_file"):
                    yield from warn_if_exposed((*loc, name), getattr(section, name))
            case Webhooks(cert_file=Path() as cert_file, key_file=Path() as key_file):
                yield from _tls_files(loc, cert_file, key_file, read)
            case Upstream():
                yield from _upstream(loc, section)
            case EventReceiver():
                yield from warn_if_exposed((*loc, "secret_file"), section.secret_file)
                yield from _ca_file((*loc, "ca_file"), section.ca_file)
            case DkimDomain():
                for n, key in enumerate(section.keys):
                    yield from _dkim_key((*loc, "keys", n, "key_file"), key.key_file, read.pems)


def read_store_keys(path: Path) -> tuple[bytes, ...]:
    """The keys in a `store_key_file`: 32 bytes in base64 or hexadecimal, a line each. Blank lines and lines that begin
    with # don't count. Raises ValueError."""
    try:
        text = read_named_file(path).decode("ascii")
    except UnicodeDecodeError:
        raise ValueError(f"{path} isn't text; {_STORE_KEY_HINT}") from None
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        if (encoded := line.strip()) and not encoded.startswith("#"):
            key = _store_key(encoded)
            if key is None:
                raise ValueError(f"line {number} of {path} isn't a key; {_STORE_KEY_HINT}")
            keys.append(key)
    if not keys:
        raise ValueError(f"there is no key in {path}; {_STORE_KEY_HINT}")
    return tuple(dict.fromkeys(keys))


def _store_key(encoded: str) -> bytes | None:
    try:
        if len(encoded) == 2 * STORE_KEY_BYTES:
            return bytes.fromhex(encoded)
        padded = encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4)
        key = base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
    except ValueError:
        return None
    return key if len(key) == STORE_KEY_BYTES else None


def store_key_credential(environ: Mapping[str, str]) -> Path | None:
    """The key that systemd gives the service (systemd.exec(5), LoadCredential=store_key:...), or None."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, STORE_KEY_CREDENTIAL) if folder else None
    return path if path is not None and path.exists() else None


def warn_if_exposed(loc: Loc, path: Path | None) -> Iterator[Diagnostic]:
    """A note where every user of the machine can read a secret."""
    with suppress(OSError):
        if path is not None and path.stat().st_mode & stat.S_IROTH:
            yield note(loc, f"every user of this machine can read {path}; chmod 600 it")


def _readable(loc: Loc, path: Path) -> Iterator[Diagnostic]:
    try:
        read_named_file(path)
    except ValueError as error:
        yield Diagnostic(loc, str(error))


def _is_missing(path: Path) -> bool:
    try:
        return not path.exists()
    except OSError:  # this user may not look there
        return False


def _tls_files(loc: Loc, cert_file: Path, key_file: Path, read: FilesRead) -> Iterator[Diagnostic]:
    unreadable = [*_readable((*loc, "cert_file"), cert_file), *_readable((*loc, "key_file"), key_file)]
    yield from unreadable
    if not unreadable:
        yield from _certificate(loc, cert_file, key_file, read)
        yield from warn_if_exposed((*loc, "key_file"), key_file)


def _certificate(loc: Loc, cert_file: Path, key_file: Path, read: FilesRead) -> Iterator[Diagnostic]:
    import ssl

    from cryptography import x509

    from relay.config.private_keys import load_private_key

    try:
        certificate = x509.load_pem_x509_certificates(read_named_file(cert_file))[0]
    except ValueError:
        yield Diagnostic((*loc, "cert_file"), f"expected certificates in PEM form in {cert_file}")
        return
    try:
        key = load_private_key(key_file, read_named_file(key_file))
    except ValueError as error:
        yield Diagnostic((*loc, "key_file"), str(error))
        return
    if key.public_key() != certificate.public_key():
        yield Diagnostic((*loc, "key_file"), f"the key in {key_file} doesn't belong to the certificate")
        return
    try:
        # With a password given, OpenSSL never asks for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file, password="")
    except ssl.SSLError:  # a kind or a strength of key that OpenSSL doesn't serve
        yield Diagnostic((*loc, "key_file"), f"the key in {key_file} can't be used for TLS")
        return
    now, until = datetime.now(UTC), certificate.not_valid_after_utc
    read.certificate_ends[cert_file] = until.timestamp()
    if until <= now:
        yield note((*loc, "cert_file"), f"the certificate expired on {until:%Y-%m-%d}")
    elif until <= now + EXPIRES_SOON:
        yield note((*loc, "cert_file"), f"the certificate expires on {until:%Y-%m-%d}")
    elif certificate.not_valid_before_utc > now:
        yield note((*loc, "cert_file"), f"the certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d} on")


def _upstream(loc: Loc, upstream: Upstream) -> Iterator[Diagnostic]:
    for section, at in ((upstream, loc), (upstream.api, (*loc, "api")), (upstream.oauth2, (*loc, "oauth2"))):
        for key in type(section).model_fields if section is not None else ():
            if key.endswith("_file") and key != "ca_file":
                yield from warn_if_exposed((*at, key), getattr(section, key))
    if upstream.oauth2 is not None and upstream.oauth2.service_account_file is not None:
        yield from _service_account((*loc, "oauth2", "service_account_file"), upstream.oauth2.service_account_file)
    if upstream.tls != "none" or upstream.via != "smtp":
        yield from _ca_file((*loc, "ca_file"), upstream.ca_file)


def _service_account(loc: Loc, path: Path) -> Iterator[Diagnostic]:
    from relay.providers.oauth2 import read_service_account

    try:
        content = read_named_file(path)
    except ValueError as error:
        yield Diagnostic(loc, str(error))
        return
    try:
        read_service_account(content)
    except ValueError as error:
        yield Diagnostic(loc, f"{path}: {error}")


def _ca_file(loc: Loc, path: Path | None) -> Iterator[Diagnostic]:
    if path is None:
        return
    from cryptography import x509

    try:
        pem = read_named_file(path, 1 << 22)
    except ValueError as error:
        yield Diagnostic(loc, str(error))
        return
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError:
        yield Diagnostic(loc, f"expected certificates in PEM form in {path}")


def _dkim_key(loc: Loc, path: Path, pems: dict[Path, bytes]) -> Iterator[Diagnostic]:
    from relay.config.private_keys import check_dkim_key

    try:
        pem = read_named_file(path).replace(b"\r\n", b"\n")  # a key that went through Windows
        weakness = check_dkim_key(path, pem)
    except ValueError as error:
        yield Diagnostic(loc, str(error))
        return
    if weakness is not None:
        yield note(loc, weakness)
    yield from warn_if_exposed(loc, path)
    pems[path] = pem
