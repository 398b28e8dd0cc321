"""`otp-relay keygen`: make a DKIM key."""

from __future__ import annotations

import argparse
from pathlib import Path

from relay.cli.common import EXIT_OK, EXIT_USAGE, CommandFailed, set_command, write_secret

RSA_BITS = 2048
"""RFC 8301 3.2; longer keys sign slower and no longer fit into one DNS packet"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    keygen_parser = subparsers.add_parser(
        "keygen",
        help="make a DKIM key",
        description="Writes a private key for DKIM (readable by its owner only) and prints the DNS record to publish.",
    )
    keygen_parser.add_argument("domain", metavar="DOMAIN", help="the domain that signs: auth.example.com")
    keygen_parser.add_argument("selector", metavar="SELECTOR", help="the key's name below _domainkey: s1")
    keygen_parser.add_argument("--ed25519", action="store_true", help="Ed25519 (RFC 8463) instead of RSA-2048")
    keygen_parser.add_argument("--out", metavar="DIR", type=Path, default=Path(), help="its folder (default: this one)")
    set_command(keygen_parser, keygen)


def keygen(args: argparse.Namespace) -> int:
    """Exit 0, or 2 if the names are wrong or the file can't be written."""
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from relay.mail.dkim import ascii_domain, dns_record, is_dns_name

    domain = ascii_domain(args.domain)
    for name, what in ((domain, "domain"), (args.selector, "selector")):
        if not is_dns_name(name):
            raise CommandFailed(f"not a {what}: {getattr(args, what)!r}", EXIT_USAGE)
    key = ed25519.Ed25519PrivateKey.generate() if args.ed25519 else rsa.generate_private_key(65537, RSA_BITS)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = args.out / f"{domain}.{args.selector}.pem"
    write_secret(path, pem)
    print(f"; private key in {path}; publish:")
    print(zone_line(domain, args.selector, dns_record(key)))
    print("; and in the configuration:")
    print(f"; dkim: [{{domain: {domain}, keys: [{{selector: {args.selector}, key_file: {path}}}]}}]")
    return EXIT_OK


def zone_line(domain: str, selector: str, record: str) -> str:
    """The TXT record for a zone file, in strings of at most 255 octets (RFC 1035 3.3.14)."""
    strings = " ".join(f'"{record[at : at + 255]}"' for at in range(0, len(record), 255))
    return f"{selector}._domainkey.{domain}. IN TXT ( {strings} )"
