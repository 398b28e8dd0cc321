"""`otp-relay log erase ADDRESS`: forgets an address, in the running relay or in its files."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path

from relay.cli.common import EXIT_OK, EXIT_USAGE, CommandFailed
from relay.cli.mail_control import ask_relay, at_hand, check_not_in_use
from relay.cli.source import Server, reached
from relay.config.partial import Control
from relay.web.client import NotListening

WITHIN_S = 90.0
"""longer than the relay takes to answer: each file is read as a whole"""


def erase(args: argparse.Namespace) -> int:
    """Exit 0; 1 if the address isn't found. Raises CommandFailed, StoreError, BadQuery."""
    from relay.web.suppression_query import address as parse_address

    if args.filters or args.follow:
        raise CommandFailed("log erase: it takes an address only", EXIT_USAGE)
    counts = _erase(reached(args), parse_address(args.address))
    if args.json:
        print(json.dumps({"erased": dict(counts)}, indent=2))
    if not any(counts.values()):
        raise CommandFailed("not found in finished mail, events or suppressions")
    if not args.json:
        found = [(count, kind.removesuffix("s") if count == 1 else kind) for kind, count in counts.items() if count]
        print(", ".join(f"{count} {kind}" for count, kind in found))
    return EXIT_OK


def _erase(control: Control | Server, address: str) -> Mapping[str, int]:
    try:
        document = ask_relay(control, "POST", "/api/erase", {"address": address}, WITHIN_S)
    except NotListening:
        control = at_hand(control)
        check_not_in_use(control)
        return asyncio.run(_erase_in_files(control.store, address))
    return {str(kind): int(count) for kind, count in document.get("erased", {}).items()}


async def _erase_in_files(path: Path, address: str) -> Mapping[str, int]:
    """In every file of a store that no relay uses."""
    from relay.policy.suppression import hash_of
    from relay.store.merge import open_offline, shards
    from relay.store.sqlite.events_file import erase_in_events
    from relay.store.sqlite.store import open_store

    with open_offline(path):
        pass  # raises StoreError if there is no store; none is made
    counts = {"messages": 0, "suppressions": 0}
    for file in (path, *shards(path)):
        store = await open_store(file, now=time.time)
        try:
            counts["messages"] += await store.erase_address(address)
            if file == path:
                hashed = hash_of(address, await store.suppressions.hash_key())
                counts["suppressions"] += await store.suppressions.erase(hashed, address)
        finally:
            await store.close()
    counts["events"] = await erase_in_events(path, address)
    return counts
