"""`otp-relay log`, `queue` and `report`: what became of mail, what waits, how fast it was."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from relay.store.merge import MergedReader
    from relay.store.model import Selection

EXIT_OK, EXIT_NOTHING, EXIT_USAGE = 0, 1, 2
ACTIONS = ("retry", "hold", "release", "drop")
LEFT = "Retry them by ID, or with --ambiguous"
T = TypeVar("T")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from relay.cli.common import add_config

    log = subparsers.add_parser(
        "log", help="messages, newest first; one message's time line", description="Messages, newest first."
    )
    log.add_argument("id", nargs="?", metavar="ID", help="one message, with its whole time line")
    _add_filters(log)
    queue = subparsers.add_parser(
        "queue", help="what waits, and acts on it", description="What waits, earliest due first; or an action on it."
    )
    queue.add_argument(
        "action", nargs="?", choices=ACTIONS, metavar="retry|hold|release|drop",
        help="retry: due now, the ladder anew; hold: take out; release: a held one is due now; drop: end it",
    )  # fmt: skip
    queue.add_argument("ids", nargs="*", metavar="ID", help="the messages to act on")
    queue.add_argument("--all", action="store_true", help="act on everything that waits")
    queue.add_argument(
        "--ambiguous", action="store_true", help="retry --all or --lane: also what an upstream may have taken already"
    )
    _add_filters(queue)
    report = subparsers.add_parser(
        "report", help="counts, p50/p95/p99 and bands", description="Per lane, upstream and recipient provider."
    )
    report.add_argument("--since", default="24h", metavar="TIME", help="a duration (24h) or a time (RFC 3339)")
    for parser, command in ((log, show_log), (queue, show_or_change_queue), (report, show_report)):
        add_config(parser)
        parser.add_argument("--json", action="store_true", help="JSON; of a list, one object a line")
        parser.set_defaults(run=run, command=command)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", metavar="ADDRESS", help="a recipient")
    parser.add_argument("--lane", metavar="LANE")
    parser.add_argument("--state", metavar="STATE", help="of a recipient: queued, sent, deferred, bounced, ...")
    parser.add_argument("--since", metavar="TIME", help="a duration (1h) or a time (RFC 3339)")
    parser.add_argument("--limit", metavar="N", help="at most so many (default: 100)")


def run(args: argparse.Namespace) -> int:
    """Runs the command's own function: its exit code, or 1 (store, relay) and 2 (usage, configuration) with a line."""
    from relay.cli.common import Refused, told
    from relay.store.base import StoreError
    from relay.web.query import BadQuery

    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except BadQuery as error:
        return _complain(str(error), EXIT_USAGE)
    except Refused as error:
        return _complain(str(error), EXIT_NOTHING)
    except (StoreError, PermissionError) as error:
        return _complain(told(error, args), EXIT_NOTHING)


def show_log(args: argparse.Namespace) -> int:
    """0; 1 none found."""
    from relay.cli import mail_text

    if args.id is not None:
        found = _read(args, lambda store: store.get(args.id))
        if found is None:
            return _complain(f"no message {args.id}", EXIT_NOTHING)
        _say(_document(found) if args.json else mail_text.message(found))
        return EXIT_OK
    selection = _listing(args)
    rows = _read(args, lambda store: store.search(selection))
    if not rows:
        return _complain(_nothing_of(args) or "no message found", EXIT_NOTHING)
    _say(_objects(rows) if args.json else mail_text.messages(rows))
    return EXIT_OK


def show_or_change_queue(args: argparse.Namespace) -> int:
    """0; 1 when the action changed nothing, or there is no such lane."""
    if args.action is not None:
        return _change_queue(args)
    from relay.cli import mail_text

    if args.all or args.ambiguous:
        return _complain("--all and --ambiguous go with an action", EXIT_USAGE)
    selection = _listing(args)

    rows, counts = _read(args, lambda store: (store.waiting(selection), store.counts()))
    if not rows and (why := _nothing_of(args)) is not None:
        return _complain(why, EXIT_NOTHING)
    if args.json:
        _say(_objects(rows))
        return EXIT_OK
    summary = mail_text.counts((row.lane, row.state, row.recipients) for row in counts)
    _say(summary or "nothing waits")
    if rows:
        _say(f"\n{mail_text.queue(rows, time.time())}")
    return EXIT_OK


def _change_queue(args: argparse.Namespace) -> int:
    from relay.cli.common import control
    from relay.cli.mail_control import act
    from relay.web.query import BadQuery, target

    given: dict[str, object] = {"ids": args.ids, "lane": args.lane, "all": args.all or None}
    chosen = {key: value for key, value in given.items() if value}
    if len(chosen) != 1 or args.to or args.state or args.since or args.limit:
        raise BadQuery(f"queue {args.action}: give either IDs, --lane LANE or --all")
    selection = target({**chosen, "ambiguous": args.ambiguous}, args.action)
    done = act(control(args), args.action, selection)
    if args.json:
        more: dict[str, object] = {"unknown": list(done.unknown), "left": done.left}
        _say(_document({"changed": list(done.changed), **{key: value for key, value in more.items() if value}}))
    else:
        _say("\n".join(done.changed))
    if done.left:
        _complain(f"{done.left} ambiguous left as they are: an upstream may have taken them. {LEFT}", EXIT_OK)
    for one in done.unknown:
        _complain(f"no message {one}", EXIT_NOTHING)
    if done.unknown:
        return EXIT_NOTHING
    return EXIT_OK if done.changed else _complain(_nothing_of(args) or "nothing changed", EXIT_NOTHING)


def show_report(args: argparse.Namespace) -> int:
    """0, also for an empty one."""
    from relay.cli import mail_text
    from relay.observe.report import build
    from relay.web import query

    begin = query.since(args.since, time.time())
    built = build(_read(args, lambda store: store.deliveries(begin)))
    _say(_document({"since": query.rfc3339(begin), **built.as_json()}) if args.json else mail_text.report(built))
    return EXIT_OK


def _nothing_of(args: argparse.Namespace) -> str | None:
    """Why there is nothing of the lane that was asked for. A lane that has gone still has its messages."""
    from relay.cli.common import no_such_lane

    return None if args.lane is None else no_such_lane(args.lane, args)


def _listing(args: argparse.Namespace) -> Selection:
    from relay.web.query import FILTERS, listing

    given = {name: getattr(args, name) for name in FILTERS}
    return listing({name: value for name, value in given.items() if value is not None}, time.time())


def _read(args: argparse.Namespace, ask: Callable[[MergedReader], T]) -> T:
    """One question to the store, beside a running relay or without one. Raises StoreError."""
    from relay.cli.common import store_path
    from relay.store.merge import open_offline

    with open_offline(store_path(args)) as store:
        return ask(store)


def _document(value: Mapping[str, object]) -> str:
    import json

    return json.dumps(value, indent=2)


def _objects(rows: Iterable[Mapping[str, object]]) -> str:
    import json

    return "\n".join(json.dumps(row) for row in rows)


def _say(text: str) -> None:
    """To stdout, line by line as it is; nothing for ''. What its encoding can't show is replaced."""
    encoding = sys.stdout.encoding or "utf-8"
    if text:
        print(text.encode(encoding, "replace").decode(encoding))


def _complain(text: str, code: int) -> int:
    print(f"otp-relay: {text}", file=sys.stderr)
    return code
