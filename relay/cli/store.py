"""`otp-relay store`: check, back up and compact the store; make its key."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from relay.cli.common import EXIT_OK, NOT_READ, add_config, fail, set_command, store_path, write_secret

STORE_KEY_BYTES = 32


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    store = subparsers.add_parser(
        "store",
        help="check, back up or compact the store; make its key",
        description="Maintains the store. Exit 0: done; 1: the reason is on stderr; 2: the configuration is wrong.",
    )
    actions = store.add_subparsers(title="actions", metavar="ACTION", required=True)
    check_parser = actions.add_parser(
        "check",
        help="verify all files of the store",
        description="Reads all files of the store and reports errors in them. A running relay isn't disturbed.",
    )
    backup_parser = actions.add_parser(
        "backup",
        help="copy it into new files",
        description="Copies the store as it is now, also while the relay runs: the main file to DEST, those of the "
        "processes for bulk mail beside it (DEST-bulk1.db for DEST.db). The copy holds the mail that waits: started on "
        "it, a relay sends that again, and needs the store's key for it, which isn't copied.",
    )
    backup_parser.add_argument("destination", metavar="DEST", type=Path, help="the new main file")
    compact_parser = actions.add_parser(
        "compact",
        help="give free space back to the disk",
        description="Rewrites the store without its free space. The relay must not be running.",
    )
    key_parser = actions.add_parser(
        "key",
        help="make a key for store_key_file",
        description="Writes a new key (readable by its owner only) for store_key_file, which encrypts waiting mail in "
        "the place of the store's own key. A key is replaced by a new line before the old one's: the first encrypts, "
        "all decrypt.",
    )
    key_parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the new file")
    add_config(key_parser, NOT_READ)
    set_command(key_parser, make_key)
    for parser, command in ((check_parser, check), (backup_parser, backup), (compact_parser, compact)):
        add_config(parser)
        set_command(parser, command)


def check(args: argparse.Namespace) -> int:
    """Exit 0, or 1 with each error on a line of stderr."""
    from relay.store import maintenance

    found = maintenance.check(store_path(args))
    for path, errors in found.items():
        for line in errors:
            print(f"{path}: {line}", file=sys.stderr)
        if not errors:
            print(f"{path}: all well")
    if any(found.values()):
        return fail("stop the relay, keep a copy of the files, and start with a backup or new ones")
    return EXIT_OK


def backup(args: argparse.Namespace) -> int:
    """Exit 0 when the copies are on the disk."""
    from relay.store import maintenance
    from relay.store.keys import own_key_file

    store = store_path(args)
    for path, size_bytes in maintenance.backup(store, args.destination).items():
        print(f"{path}: {size_bytes} bytes")
    if (own := own_key_file(store)).exists():
        print(f"not copied: {own}; a relay on the copy needs it as {own_key_file(args.destination)}")
    print("waiting mail is encrypted: keep its keys too, and the file that store_key_file names")
    return EXIT_OK


def compact(args: argparse.Namespace) -> int:
    """Exit 0 when the files are rewritten."""
    from relay.store import maintenance

    for path, (before, after) in maintenance.compact(store_path(args)).items():
        print(f"{path}: {before} bytes before, {after} after")
    return EXIT_OK


def make_key(args: argparse.Namespace) -> int:
    """Exit 0, or 2 if the file can't be written."""
    import base64

    write_secret(args.out, base64.b64encode(os.urandom(STORE_KEY_BYTES)) + b"\n")
    print(f"store_key_file: {args.out}")
    return EXIT_OK
