"""`otp-relay suppress`: list, add, remove, import and export addresses that must not be mailed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from relay.cli.common import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    CommandFailed,
    add_config,
    fail,
    printable,
    set_command,
    store_path,
)
from relay.cli.source import Server, add_url, reached, server
from relay.cli.text import wrapped

if TYPE_CHECKING:
    from relay.cli.suppressed_entries import Entries, Json
    from relay.config.partial import Control
    from relay.store.sqlite.store import SqliteStore
    from relay.store.suppressions import WantedSuppression

PATH = "/api/suppressions"
AT_ONCE = 500
"""addresses in one request or transaction"""
T = TypeVar("T")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    top = subparsers.add_parser(
        "suppress",
        help="addresses that must not be mailed",
        description="Lists and changes the addresses that must not be mailed.",
    )
    actions = top.add_subparsers(title="actions", metavar="list|add|remove|import|export", required=True)
    listing = actions.add_parser("list", help="show them, newest first")
    listing.add_argument("address", nargs="?", metavar="ADDRESS", help="this one only")
    listing.add_argument("--cause", metavar="CAUSE", help="bounce, complaint, manual or unsubscribe")
    listing.add_argument("--limit", metavar="N", help="at most N (default: 100)")
    adding = actions.add_parser("add", help="suppress an address")
    adding.add_argument("address", metavar="ADDRESS")
    removing = actions.add_parser("remove", help="let an address be mailed again")
    removing.add_argument("address", metavar="ADDRESS")
    importing = actions.add_parser("import", help="add those of a file: one a line, optionally `,reason,until,cause`")
    importing.add_argument("file", metavar="FILE", help="- is stdin")
    importing.add_argument("--cause", metavar="CAUSE", help="of lines that name none (default: manual)")
    for parser in (adding, importing):
        parser.add_argument("--reason", metavar="TEXT", help="why, as the app gets it in the reply")
        parser.add_argument("--for", dest="life", metavar="TIME", help="how long, such as 30d (default: until removed)")
    exporting = actions.add_parser("export", help="print all as `import` reads them")
    for parser, command in (
        (listing, show),
        (adding, add),
        (removing, remove),
        (importing, import_file),
        (exporting, export),
    ):
        add_config(parser)
        add_url(parser)
        parser.add_argument("--json", action="store_true", help="JSON; for lists, one object a line")
        set_command(parser, command)


def show(args: argparse.Namespace) -> int:
    """Exit 0; 1 if the address that was asked for isn't there."""
    from relay.web.suppression_query import listing_query

    given = {"address": args.address, "cause": args.cause, "limit": args.limit}
    given = {name: value for name, value in given.items() if value is not None}
    limit = listing_query(given, lambda _: 0).limit
    with _opened(args) as source:
        rows = source.listing({**given, "limit": str(limit)})
    if not rows.shown and args.address is not None:
        raise CommandFailed("this address is not suppressed")
    _print_rows(rows.shown, as_json=args.json)
    if rows.has_more:
        fail(f"these are the last {limit}, there are more: --limit N")
    return EXIT_OK


def add(args: argparse.Namespace) -> int:
    """Exit 0; 1 if it is suppressed already, for the same reason and as long."""
    from relay.store.suppressions import WantedSuppression
    from relay.web.suppression_query import life, one_address, reason

    wanted = WantedSuppression(one_address(args.address), reason(args.reason), life(args.life, None, time.time()))
    changed = _add(reached(args), [wanted])
    _print_changed(changed, as_json=args.json)
    return EXIT_OK if changed else fail("it is suppressed already")


def remove(args: argparse.Namespace) -> int:
    """Exit 0; 1 if it isn't suppressed."""
    from relay.cli.mail_control import ask_relay
    from relay.web.client import NotListening
    from relay.web.suppression_query import address_or_hash

    address, where = address_or_hash(args.address), reached(args)
    try:
        ask_relay(where, "DELETE", f"{PATH}?address={quote(address, safe='')}")
        changed = [address]
    except NotListening:
        changed = _on_store(where, lambda store: _remove_from(store, address))
        if not changed:
            raise CommandFailed("this address is not suppressed") from None
    _print_changed(changed, as_json=args.json)
    return EXIT_OK


def import_file(args: argparse.Namespace) -> int:
    """Exit 0; 1 if a line can't be read, or if nothing changed. What can be read and isn't past is added."""
    from relay.store.suppressions import WantedSuppression
    from relay.web.suppression_query import cause_or_manual, import_lines, life, reason

    where, bad, past, changed = reached(args), 0, 0, 0
    until, cause = life(args.life, None, time.time()), cause_or_manual(args.cause)
    defaults = WantedSuppression("", reason(args.reason), until, cause)
    with ExitStack() as stack:
        try:
            file = sys.stdin if args.file == "-" else stack.enter_context(open(args.file, encoding="utf-8"))
            lines = import_lines(file, defaults)
            while some := list(islice(lines, AT_ONCE)):
                for line in some:
                    if line.wanted is None:
                        bad += 1
                        fail(f"{args.file}:{line.number}: {printable(line.error)}")
                read = [line.wanted for line in some if line.wanted is not None]
                now = time.time()
                wanted = [one for one in read if one.until is None or one.until > now]
                past += len(read) - len(wanted)
                changed += len(_add(where, wanted)) if wanted else 0
        except OSError as error:
            raise CommandFailed(f"{args.file}: {error.strerror}", EXIT_USAGE) from None
        except UnicodeDecodeError:
            raise CommandFailed(f"{args.file}: not UTF-8; {changed} added before that") from None
    _print_imported(changed, bad, past, as_json=args.json)
    return EXIT_FAILED if bad or not changed else EXIT_OK


def export(args: argparse.Namespace) -> int:
    """Exit 0. What has no address any more is left out, and counted on stderr."""
    from relay.web.suppression_query import export_lines

    with _opened(args) as source:
        rows = source.all()
        if args.json:
            for row in rows:
                print(json.dumps(row))
            return EXIT_OK
        _, left_out = export_lines(rows, sys.stdout)
    if left_out:
        fail(f"{left_out} left out, whose addresses are not kept")
    return EXIT_OK


def _opened(args: argparse.Namespace) -> AbstractContextManager[Entries]:
    """The entries of a relay that is named by a URL, else the store's, whether a relay runs or not."""
    from relay.cli.suppressed_entries import AtHand, Elsewhere

    return nullcontext(Elsewhere(there)) if (there := server(args)) is not None else closing(AtHand(store_path(args)))


def _add(where: Control | Server, wanted: Sequence[WantedSuppression]) -> Sequence[str]:
    """The addresses of which something changed. Raises CommandFailed, StoreError."""
    from relay.cli.mail_control import ask_relay
    from relay.store.view import time_text
    from relay.web.client import NotListening

    body = [{**one._asdict(), "until": time_text(one.until)} for one in wanted]
    try:
        document = ask_relay(where, "POST", PATH, body)
    except NotListening:
        return _on_store(where, lambda store: _add_to(store, wanted))
    return [str(one) for one in document.get("changed", ())]


def _on_store(there: Control | Server, change: Callable[[SqliteStore], Coroutine[Any, Any, T]]) -> T:
    """Change the main store file while no relay runs. Raises CommandFailed, StoreError."""
    import asyncio

    from relay.cli.mail_control import at_hand, check_not_in_use
    from relay.store.merge import open_offline
    from relay.store.sqlite.store import open_store

    async def run() -> T:
        store = await open_store(where.store, now=time.time)
        try:
            return await change(store)
        finally:
            await store.close()

    where = at_hand(there)
    check_not_in_use(where)
    with open_offline(where.store):
        pass  # raises StoreError if there is no store; none is made
    return asyncio.run(run())


async def _add_to(store: SqliteStore, wanted: Sequence[WantedSuppression]) -> list[str]:
    key, now = await store.suppressions.hash_key(), time.time()
    rows = [one.row(key, now) for one in wanted]
    return [row.address or "" for row in await store.suppressions.add(rows)]


async def _remove_from(store: SqliteStore, address: str) -> list[str]:
    from relay.policy.suppression import hash_of

    hashed = hash_of(address, await store.suppressions.hash_key())
    return [address] if await store.suppressions.remove([hashed]) else []


def _print_rows(shown: Sequence[Json], *, as_json: bool) -> None:
    if as_json:
        for one in shown:
            print(json.dumps(one))
    for one in () if as_json else shown:
        until = f", until {one['until']}" if one["until"] else ""
        by = f" by {one['upstream']}" if one["upstream"] else ""
        print(wrapped(f"{one['address'] or '-'}  {one['cause']}{by} at {one['at']}{until}"))
        if one["reason"]:
            print(wrapped(one["reason"], "  ", ""))


def _print_imported(changed: int, bad: int, past: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"changed": changed, "bad_lines": bad, "past": past}))
        return
    text = f"{changed} added or changed"
    if past:
        text += f", {past} left out, whose end is past"
    print(text + (f", {bad} bad line{'' if bad == 1 else 's'}" if bad else ""))


def _print_changed(changed: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"changed": list(changed)}))
    elif changed:
        print(printable("\n".join(changed)))
