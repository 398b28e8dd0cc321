"""`otp-relay log`, `queue` and `report`: finished and waiting mail, actions on it, delivery times."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from relay.cli.common import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    CommandFailed,
    add_config,
    control,
    fail,
    set_command,
    unknown_lane,
)
from relay.cli.source import add_url, open_source, reached, server

if TYPE_CHECKING:
    from relay.cli.source import Filters, Json, Source
    from relay.store.search_text import Found

ANSWER_WITHIN_S = 2.0
ACTIONS = ("retry", "hold", "release", "drop")
_FILTERS = (
    ("to", "ADDRESS", "a recipient's address, a part of one, or a glob such as '*@gmail.com'"),
    ("from", "ADDRESS", "the same of the envelope sender"),
    ("subject", "TEXT", "a part of the subject, or a glob"),
    ("message-id", "TEXT", "a part of the Message-ID, or a glob"),
    ("lane", "LANE", None),
    ("state", "STATE", "of a recipient: queued, sent, deferred, bounced, ..."),
    ("since", "TIME", "accepted since: a duration (1h) or a time (RFC 3339)"),
    ("until", "TIME", "accepted before that"),
    ("limit", "N", "at most N (default: 100)"),
)
"""of `log` and `queue`: option, its value, help"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    log = subparsers.add_parser(
        "log",
        help="list messages, show one, or erase an address",
        description="Lists messages, newest first; or shows one message; or (`log erase ADDRESS`) forgets an address in"
        " finished mail, events and suppressions.",
    )
    log.add_argument("id", nargs="?", metavar="ID", help="show this message, whose id begins so, with all attempts")
    log.add_argument("address", nargs="?", metavar="ADDRESS", help="`log erase ADDRESS`: forget it in finished mail")
    log.set_defaults(usage_error=log.error)
    _add_filters(log)
    log.add_argument("--failed", action="store_true", help="only what bounced, expired, is suppressed or ambiguous")
    log.add_argument("--follow", action="store_true", help="oldest first, then go on with what happens")
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
        add_url(parser)
        parser.add_argument("--json", action="store_true", help="JSON; for lists, one object a line")
        set_command(parser, command)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    for name, value, text in _FILTERS:
        parser.add_argument(f"--{name}", dest=name.replace("-", "_"), metavar=value, help=text)


def show_log(args: argparse.Namespace) -> int:
    """Exit 0; 1 if no message is found."""
    if args.address is not None:
        if args.id != "erase":
            args.usage_error(f"unrecognized arguments: {args.address}")
        from relay.cli.erase import erase

        args.filters = _given(args)
        return erase(args)
    if args.id == "erase":
        raise CommandFailed("log erase: the address is missing", EXIT_USAGE)
    with open_source(args) as source:
        return _show_message(args, source) if args.id is not None else _show_messages(args, source)


def _show_message(args: argparse.Namespace, source: Source) -> int:
    from relay.cli import mail_text
    from relay.observe import verdict

    if args.follow or _given(args):
        raise CommandFailed("log ID: it takes no filters and no --follow", EXIT_USAGE)
    found = source.message(args.id)
    if found is None:
        hint = f"; mail to an address: log --to {args.id}" if "@" in args.id else ""
        raise CommandFailed(f"no message {args.id}{hint}")
    _print(_document(verdict.added(found)) if args.json else mail_text.message(found))
    return EXIT_OK


def _show_messages(args: argparse.Namespace, source: Source) -> int:
    if not args.follow:
        found = source.find(_given(args))
        if not found.messages:  # a lane that is no longer configured still has its messages
            raise CommandFailed(_unknown_lane(args) or f"no message found{_searched(found)}")
        _print_messages(args, found.messages)
        if searched := _searched(found):
            fail(f"these are all that were found{searched}")
        return EXIT_OK
    _warn_if_none_runs(args)
    news = source.news()
    _print_messages(args, list(reversed(source.find(_given(args)).messages)))
    with contextlib.suppress(KeyboardInterrupt):
        for events in news:
            if ids := list(dict.fromkeys(str(event["message"]) for event in events)):
                _print_messages(args, _changed(source, _given(args), ids))
    return EXIT_OK


def _changed(source: Source, filters: Filters, ids: Iterable[str]) -> list[Json]:
    """Those of the messages with these ids that the filters select, oldest first."""
    found = (one for each in ids for one in source.find({**filters, "id": each}).messages)
    return sorted(found, key=lambda one: (str(one["accepted_at"]), str(one["id"])))


def _searched(found: Found) -> str:
    if found.searched_since is None:
        return ""
    return f" back to {datetime.fromtimestamp(found.searched_since, UTC):%Y-%m-%dT%H:%M:%SZ}: name a time, or more"


def _print_messages(args: argparse.Namespace, found: Iterable[Json]) -> None:
    from relay.cli import mail_text

    _print(_objects(found) if args.json else mail_text.messages(found))


def show_or_change_queue(args: argparse.Namespace) -> int:
    """Exit 0; 1 if there is no such lane, or the action changed nothing."""
    if args.action is not None:
        return _change_queue(args)
    from relay.cli import mail_text

    if args.all or args.ambiguous:
        raise CommandFailed("--all and --ambiguous go with an action", EXIT_USAGE)
    with open_source(args) as source:
        rows, counts = source.waiting(_given(args))
    if not rows and (reason := _unknown_lane(args)) is not None:
        raise CommandFailed(reason)
    if args.json:
        _print(_objects(rows))
        return EXIT_OK
    _print(mail_text.counts((row.lane, row.state, row.recipients) for row in counts) or "nothing waits")
    if rows:
        _print(f"\n{mail_text.queue(rows, time.time())}")
        _warn_if_none_runs(args)
    return EXIT_OK


def _change_queue(args: argparse.Namespace) -> int:
    from relay.cli.mail_control import act
    from relay.web.query import action_selection

    given: dict[str, object] = {"ids": args.ids, "lane": args.lane, "all": args.all or None}
    chosen = {key: value for key, value in given.items() if value}
    if len(chosen) != 1 or set(_given(args)) - {"lane"}:
        raise CommandFailed(f"queue {args.action}: give either IDs, --lane LANE or --all", EXIT_USAGE)
    selection = action_selection({**chosen, "ambiguous": args.ambiguous}, args.action)
    result = act(reached(args), args.action, selection)
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
    return EXIT_OK if result.changed else fail(_unknown_lane(args) or "nothing changed")


def show_report(args: argparse.Namespace) -> int:
    """Exit 0, also for an empty report."""
    from relay.cli import report_text

    with open_source(args) as source:
        document = source.report(args.since)
    _print(_document(document) if args.json else report_text.report(document))
    return EXIT_OK


def _warn_if_none_runs(args: argparse.Namespace) -> None:
    """Where the store's files are read: say on stderr that no relay sends what waits."""
    if server(args) is not None or (address := control(args).http) is None:
        return
    from relay.web.client import NoResponse, NotListening, request

    with contextlib.suppress(NoResponse, ValueError):  # it is there, or can't be asked
        try:
            request(address, "GET", "/healthz", within_s=ANSWER_WITHIN_S)
        except NotListening:
            fail(f"no relay answers at {address}: what waits isn't sent until one runs")


def _unknown_lane(args: argparse.Namespace) -> str | None:
    """As `unknown_lane`. Of a relay elsewhere the configuration isn't known."""
    return None if server(args) is not None else unknown_lane(args)


def _given(args: argparse.Namespace) -> dict[str, str]:
    """The filters that were given, by their names in a request."""
    values = {name.replace("-", "_"): getattr(args, name.replace("-", "_"), None) for name, _, _ in _FILTERS}
    given = {name: value for name, value in values.items() if value is not None}
    return {**given, "failed": "1"} if getattr(args, "failed", False) else given


def _document(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=2)


def _objects(rows: Iterable[Mapping[str, object]]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def _print(text: str) -> None:
    """Print a text, unless it is empty. Characters that stdout's encoding lacks are replaced."""
    encoding = sys.stdout.encoding or "utf-8"
    if text:
        print(text.encode(encoding, "replace").decode(encoding), flush=True)
