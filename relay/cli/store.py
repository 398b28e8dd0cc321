"""`otp-relay store`: looks after the files that hold the mail and the log."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from relay.cli.common import add_config, store_path, told, write_secret

EXIT_FAILED = 1
EXIT_USAGE = 2
STORE_KEY_BYTES = 32


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    store = subparsers.add_parser(
        "store",
        help="check, back up or compact the store; make its key",
        description="Looks after the store. Exit 0: done; 1: the reason is on stderr; 2: the configuration is wrong.",
    )
    actions = store.add_subparsers(title="actions", metavar="ACTION", required=True)
    check_parser = actions.add_parser(
        "check",
        help="read all of it and tell what is wrong",
        description="Reads all files of the store and tells what is wrong with them. A running relay isn't disturbed.",
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
    key_parser.set_defaults(run=make_key)
    for parser, run in ((check_parser, check), (backup_parser, backup), (compact_parser, compact)):
        add_config(parser)
        parser.set_defaults(run=run)


def check(args: argparse.Namespace) -> int:
    """Exit 0 when all is well, else 1 and what is wrong."""

    def run(store: Path) -> int:
        from relay.store import maintenance

        found = maintenance.check(store)
        for path, wrong in found.items():
            for line in wrong:
                print(f"{path}: {line}", file=sys.stderr)
            if not wrong:
                print(f"{path}: all well")
        if any(found.values()):
            print(
                "otp-relay: stop the relay, keep a copy of the files, and start with a backup or new ones",
                file=sys.stderr,
            )
            return EXIT_FAILED
        return 0

    return _with_store(args, run)


def backup(args: argparse.Namespace) -> int:
    """Exit 0 when the copies are on the disk."""

    def run(store: Path) -> int:
        from relay.store import maintenance
        from relay.store.keys import own_key_file

        for path, size_bytes in maintenance.backup(store, args.destination).items():
            print(f"{path}: {size_bytes} bytes")
        own = own_key_file(store)
        if own.exists():
            print(f"not copied: {own}; a relay on the copy needs it as {own_key_file(args.destination)}")
        print("the mail that waits is encrypted: keep its keys too, the file that store_key_file names among them")
        return 0

    return _with_store(args, run)


def compact(args: argparse.Namespace) -> int:
    """Exit 0 when the files are rewritten."""

    def run(store: Path) -> int:
        from relay.store import maintenance

        for path, (before, after) in maintenance.compact(store).items():
            print(f"{path}: {before} bytes before, {after} after")
        return 0

    return _with_store(args, run)


def make_key(args: argparse.Namespace) -> int:
    """Exit 0, or 2 with a line on stderr. A file that is there is never overwritten."""
    import base64

    path: Path = args.out
    text = base64.b64encode(os.urandom(STORE_KEY_BYTES)) + b"\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(path, text)
    except FileExistsError:
        print(f"otp-relay: {path} exists; it is left as it is", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"otp-relay: {path}: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    print(f"store_key_file: {path}")
    return 0


def _with_store(args: argparse.Namespace, run: Callable[[Path], int]) -> int:
    """Run it on the configured store; what the store can't do is one line and exit 1."""
    from relay.store.base import StoreError

    try:
        return run(store_path(args))
    except (StoreError, PermissionError) as error:
        print(f"otp-relay: {told(error, args)}", file=sys.stderr)
        return EXIT_FAILED
