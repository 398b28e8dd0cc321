"""Certificates for tests: one CA, and what it or nobody signed."""

from __future__ import annotations

import datetime as dt
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certificate:
    cert_file: Path
    key_file: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context


@dataclass(frozen=True, slots=True)
class Certificates:
    """`ca_file` vouches for `good`, `expired` and `wrong_host`."""

    ca_file: Path
    good: Certificate
    """localhost, 127.0.0.1 and ::1"""
    expired: Certificate
    wrong_host: Certificate
    self_signed: Certificate
    """right names, but signed by nobody"""

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))


@dataclass(frozen=True, slots=True)
class _Signer:
    name: x509.Name
    key: ec.EllipticCurvePrivateKey


def make_certificates(directory: Path) -> Certificates:
    """Writes the PEM files below `directory`."""
    ca = _Signer(_name("otp-relay test CA"), ec.generate_private_key(ec.SECP256R1()))
    ca_file = directory / "ca.pem"
    ca_file.write_bytes(_issue(ca, ca, (), ca=True))
    here = ("localhost", "127.0.0.1", "::1")
    return Certificates(
        ca_file=ca_file,
        good=_leaf(directory, "good", ca, here),
        expired=_leaf(directory, "expired", ca, here, ends=-DAY),
        wrong_host=_leaf(directory, "wrong_host", ca, ("elsewhere.example",)),
        self_signed=_leaf(directory, "self_signed", None, here),
    )


def _leaf(
    directory: Path, label: str, signer: _Signer | None, hosts: tuple[str, ...], ends: dt.timedelta = 30 * DAY
) -> Certificate:
    own = _Signer(_name(f"test {label}"), ec.generate_private_key(ec.SECP256R1()))
    cert_file, key_file = directory / f"{label}.pem", directory / f"{label}.key"
    cert_file.write_bytes(_issue(own, signer or own, hosts, ends=ends))
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        own.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return Certificate(cert_file, key_file)


def _issue(
    subject: _Signer,
    signer: _Signer,
    hosts: tuple[str, ...],
    *,
    ca: bool = False,
    ends: dt.timedelta = 30 * DAY,
) -> bytes:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject.name)
        .issuer_name(signer.name)
        .public_key(subject.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * DAY)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(subject.key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), False)
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
