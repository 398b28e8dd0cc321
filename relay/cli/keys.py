"""`otp-relay keygen`: make a DKIM key."""

from __future__ import annotations

import argparse
from pathlib import Path

from relay.cli.common import EXIT_OK, EXIT_USAGE, NOT_READ, CommandFailed, add_config, set_command, write_secret


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
    add_config(keygen_parser, NOT_READ)
    set_command(keygen_parser, keygen)


def keygen(args: argparse.Namespace) -> int:
    """Exit 0, or 2 if the names are wrong or the file can't be written."""
    from relay.mail.dkim import ascii_domain, dns_record, is_dns_name
    from relay.setup.dkim_keys import file_name, new_key, pem_of, zone_line

    domain = ascii_domain(args.domain)
    for name, what in ((domain, "domain"), (args.selector, "selector")):
        if not is_dns_name(name):
            raise CommandFailed(f"not a {what}: {getattr(args, what)!r}", EXIT_USAGE)
    key = new_key(is_ed25519=args.ed25519)
    path = args.out / file_name(domain, args.selector)
    write_secret(path, pem_of(key))
    print(f"; private key in {path}; publish:")
    print(zone_line(domain, args.selector, dns_record(key)))
    print("; and in the configuration:")
    print(f"; dkim: [{{domain: {domain}, keys: [{{selector: {args.selector}, key_file: {path}}}]}}]")
    return EXIT_OK
