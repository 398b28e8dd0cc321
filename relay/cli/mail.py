"""`otp-relay log`, `queue` and `report`: finished and waiting mail, actions on it, delivery times."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from relay.cli.common import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    CommandFailed,
    add_config,
    config_path,
    control,
    fail,
    set_command,
    store_path,
    unknown_lane,
)

if TYPE_CHECKING:
    from relay.store.merge import MergedReader

ACTIONS = ("retry", "hold", "release", "drop")
T = TypeVar("T")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    log = subparsers.add_parser(
        "log",
        help="list messages, show one, or erase an address",
        description="Lists messages, newest first; or shows one message; or (`log erase ADDRESS`) forgets an address in"
        " finished mail, events and suppressions.",
    )
    log.add_argument("id", nargs="?", metavar="ID", help="show this message with all attempts")
    log.add_argument("address", nargs="?", metavar="ADDRESS", help="`log erase ADDRESS`: forget it in finished mail")
    log.set_defaults(usage_error=log.error)
    _add_filters(log)
    queue = subparsers.add_parser(
        "queue",
        help="list or change waiting mail",
        description="Lists waiting mail, earliest due first; or changes it.",
    )
    queue.add_argument(
        "action", nargs="?", choices=ACTIONS, metavar="retry|hold|release|drop",
        help="retry: due now, ladder from its first step; hold: don't send; release: send held mail; drop: end it",
    )  # fmt: skip
    queue.add_argument("ids", nargs="*", metavar="ID", help="the messages to change")
    queue.add_argument("--all", action="store_true", help="change all waiting mail")
    queue.add_argument(
        "--ambiguous",
        action="store_true",
        help="retry --all or --lane: also mail that an upstream may have accepted already",
    )
    _add_filters(queue)
    report = subparsers.add_parser(
        "report",
        help="counts, p50/p95/p99 and bands",
        description="Counts, delivery times and bands by lane, upstream and recipient provider.",
    )
    report.add_argument("--since", default="24h", metavar="TIME", help="a duration (24h) or a time (RFC 3339)")
    for parser, command in ((log, show_log), (queue, show_or_change_queue), (report, show_report)):
        add_config(parser)
        parser.add_argument("--json", action="store_true", help="JSON; for lists, one object a line")
        set_command(parser, command)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", metavar="ADDRESS", help="a recipient")
    parser.add_argument("--lane", metavar="LANE")
    parser.add_argument("--state", metavar="STATE", help="of a recipient: queued, sent, deferred, bounced, ...")
    parser.add_argument("--since", metavar="TIME", help="a duration (1h) or a time (RFC 3339)")
    parser.add_argument("--limit", metavar="N", help="at most N (default: 100)")


def show_log(args: argparse.Namespace) -> int:
    """Exit 0; 1 if no message is found."""
    from relay.cli import mail_text

    if args.address is not None:
        if args.id != "erase":
            args.usage_error(f"unrecognized arguments: {args.address}")
        from relay.cli.erase import erase

        return erase(args)
    if args.id == "erase":
        raise CommandFailed("log erase: the address is missing", EXIT_USAGE)
    if args.id is not None:
        found = _read(args, lambda store: store.get(args.id))
        if found is None:
            raise CommandFailed(f"no message {args.id}")
        _print(_document(found) if args.json else mail_text.message(found))
        return EXIT_OK
    selection = _listing(args)
    rows = _read(args, lambda store: store.search(selection))
    if not rows:  # a lane that is no longer configured still has its messages
        raise CommandFailed(unknown_lane(args) or "no message found")
    _print(_objects(rows) if args.json else mail_text.messages(rows))
    return EXIT_OK


def show_or_change_queue(args: argparse.Namespace) -> int:
    """Exit 0; 1 if there is no such lane, or the action changed nothing."""
    if args.action is not None:
        return _change_queue(args)
    from relay.cli import mail_text

    if args.all or args.ambiguous:
        raise CommandFailed("--all and --ambiguous go with an action", EXIT_USAGE)
    selection = _listing(args)
    rows, counts = _read(args, lambda store: (store.waiting(selection), store.counts()))
    if not rows and (reason := unknown_lane(args)) is not None:
        raise CommandFailed(reason)
    if args.json:
        _print(_objects(rows))
        return EXIT_OK
    _print(mail_text.counts((row.lane, row.state, row.recipients) for row in counts) or "nothing waits")
    if rows:
        _print(f"\n{mail_text.queue(rows, time.time())}")
    return EXIT_OK


def _change_queue(args: argparse.Namespace) -> int:
    from relay.cli.mail_control import act
    from relay.web.query import action_selection

    given: dict[str, object] = {"ids": args.ids, "lane": args.lane, "all": args.all or None}
    chosen = {key: value for key, value in given.items() if value}
    if len(chosen) != 1 or args.to or args.state or args.since or args.limit:
        raise CommandFailed(f"queue {args.action}: give either IDs, --lane LANE or --all", EXIT_USAGE)
    selection = action_selection({**chosen, "ambiguous": args.ambiguous}, args.action)
    result = act(control(args), args.action, selection)
    if args.json:
        more: dict[str, object] = {"unknown": list(result.unknown), "left": result.left}
        _print(_document({"changed": list(result.changed), **{key: value for key, value in more.items() if value}}))
    else:
        _print("\n".join(result.changed))
    if result.left:
        fail(
            f"{result.left} ambiguous left as they are: an upstream may have accepted them. "
            "Retry them by ID, or with --ambiguous"
        )
    for one in result.unknown:
        fail(f"no message {one}")
    if result.unknown:
        return EXIT_FAILED
    return EXIT_OK if result.changed else fail(unknown_lane(args) or "nothing changed")


def show_report(args: argparse.Namespace) -> int:
    """Exit 0, also for an empty report."""
    from relay.cli import mail_text
    from relay.config.partial import find_objectives
    from relay.observe.report import build
    from relay.web import query

    begin = query.parse_since(args.since, time.time())
    objectives = find_objectives(config_path(args), os.environ)
    within_s = {lane: one.within_s for lane, one in objectives.items()}
    built = _read(args, lambda store: build(store.deliveries(begin, within_s), store.reported(begin), objectives))
    _print(_document({"since": query.rfc3339(begin), **built.as_json()}) if args.json else mail_text.report(built))
    return EXIT_OK


def _listing(args: argparse.Namespace) -> Listing:
    from relay.web.query import FILTERS, listing

    given = {name: getattr(args, name, None) for name in FILTERS}
    return listing({name: value for name, value in given.items() if value is not None}, time.time())


def _read(args: argparse.Namespace, ask: Callable[[MergedReader], T]) -> T:
    """Ask the store once, whether a relay runs or not. Raises StoreError."""
    from relay.store.merge import open_offline

    with open_offline(store_path(args)) as store:
        return ask(store)


def _document(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=2)


def _objects(rows: Iterable[Mapping[str, object]]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def _print(text: str) -> None:
    """Print a text, unless it is empty. Characters that stdout's encoding lacks are replaced."""
    encoding = sys.stdout.encoding or "utf-8"
    if text:
        print(text.encode(encoding, "replace").decode(encoding))
