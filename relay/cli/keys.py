"""`otp-relay keygen` and `otp-relay lint`: what can be done to keys and mail without a running relay."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from relay.cli.common import write_secret

EXIT_FOUND = 1
EXIT_USAGE = 2
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
    keygen_parser.add_argument("--out", metavar="DIR", type=Path, default=Path(), help="where to (default: here)")
    keygen_parser.set_defaults(run=keygen)

    lint_parser = subparsers.add_parser(
        "lint",
        help="what would hurt an OTP mail",
        description="Reads a message and says what would keep it from the inbox. Exit 0: nothing found; 1: something.",
    )
    lint_parser.add_argument("file", metavar="FILE.eml", type=Path)
    lint_parser.add_argument("--json", action="store_true", help="one JSON object a line for each finding")
    lint_parser.set_defaults(run=lint)


def keygen(args: argparse.Namespace) -> int:
    """Exit 0, or 2 with a line on stderr. A key that is there is never overwritten."""
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from relay.mail.dkim import ascii_domain, dns_record, is_dns_name

    domain = ascii_domain(args.domain)
    for name, what in ((domain, "domain"), (args.selector, "selector")):
        if not is_dns_name(name):
            return _fail(f"not a {what}: {getattr(args, what)!r}")
    key = ed25519.Ed25519PrivateKey.generate() if args.ed25519 else rsa.generate_private_key(65537, RSA_BITS)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = args.out / f"{domain}.{args.selector}.pem"
    try:
        args.out.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(path, pem)
    except FileExistsError:
        return _fail(f"{path} exists; it is left as it is")
    except OSError as error:
        return _fail(f"{path}: {error.strerror}")
    print(f"; private key in {path}; publish:")
    print(zone_line(domain, args.selector, dns_record(key)))
    print("; and in the configuration:")
    print(f"; dkim: [{{domain: {domain}, keys: [{{selector: {args.selector}, key_file: {path}}}]}}]")
    return 0


def zone_line(domain: str, selector: str, record: str) -> str:
    """The TXT record as a zone file has it: strings of at most 255 octets (RFC 1035 3.3.14)."""
    strings = " ".join(f'"{record[at : at + 255]}"' for at in range(0, len(record), 255))
    return f"{selector}._domainkey.{domain}. IN TXT ( {strings} )"


def lint(args: argparse.Namespace) -> int:
    """Exit 0 nothing found, 1 something, 2 the file can't be read."""
    from relay.mail.lint import lint as findings_in
    from relay.mail.message import Unacceptable

    try:
        content = args.file.read_bytes()
    except OSError as error:
        return _fail(f"{args.file}: {error.strerror}")
    try:
        findings = findings_in(content)
    except Unacceptable as refused:
        return _fail(f"{args.file}: {refused}")
    for finding in findings:
        if args.json:
            print(json.dumps({"rule": finding.rule, "text": finding.text}, ensure_ascii=False))
        else:
            print(f"{args.file}: {finding.rule}: {finding.text}")
    return EXIT_FOUND if findings else 0


def _fail(text: str) -> int:
    print(f"otp-relay: {text}", file=sys.stderr)
    return EXIT_USAGE
