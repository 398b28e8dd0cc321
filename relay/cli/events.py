"""`otp-relay events`: what happened to mail."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from relay.cli.common import EXIT_OK, add_config, fail, printable, set_command, store_path

if TYPE_CHECKING:
    from relay.store.events import EventSelection

LOOK_EVERY_S = 0.2
Json = Mapping[str, object]


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "events",
        help="what happened to mail",
        description="Lists what happened to mail, oldest first: the last ones, or the first ones since a time.",
    )
    parser.add_argument("--follow", action="store_true", help="then go on with what happens")
    parser.add_argument("--kind", metavar="KIND", help="sent, delivered, bounced, expired, ...")
    parser.add_argument("--lane", metavar="LANE")
    parser.add_argument("--to", metavar="ADDRESS", help="a recipient")
    parser.add_argument("--since", metavar="TIME", help="a duration (1h) or a time (RFC 3339)")
    parser.add_argument("--limit", metavar="N", help="at most N (default: 100); 0 with --follow: only what is new")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_config(parser)
    set_command(parser, show)


def show(args: argparse.Namespace) -> int:
    """Exit 0."""
    from relay.store.merge import open_offline
    from relay.web.query import EVENT_FILTERS, event_selection

    given = {name: getattr(args, name) for name in EVENT_FILTERS}
    only_new = args.follow and given["limit"] == "0"
    if only_new:
        given["limit"] = None
    selection = event_selection({name: value for name, value in given.items() if value is not None}, time.time())
    path = store_path(args)
    with open_offline(path) as store:
        news = store.news() if args.follow else None
        if not only_new:
            _print_found(args, store.events(selection._replace(limit=selection.limit + 1)), selection)
        with contextlib.suppress(KeyboardInterrupt):
            while news is not None:
                time.sleep(LOOK_EVERY_S)
                store.add_new_files(path)
                _print(args, [event for event in news.take() if _is_wanted(event, selection)])
    return EXIT_OK


def _print_found(args: argparse.Namespace, found: Sequence[Json], selection: EventSelection) -> None:
    """`found`: up to one more than the limit."""
    limit, is_first = selection.limit, selection.since is not None
    _print(args, found[:limit] if is_first else found[-limit:])
    if len(found) > limit:
        fail(f"these are the {'first' if is_first else 'last'} {limit}, there are more: --limit N")


def _is_wanted(event: Json, selection: EventSelection) -> bool:
    to = str(event["recipient"]).casefold()
    return (
        selection.kind in (None, event["kind"])
        and selection.lane in (None, event["lane"])
        and (selection.to is None or selection.to.casefold() == to)
    )


def _print(args: argparse.Namespace, events: Iterable[Json]) -> None:
    for event in events:
        print(json.dumps(event) if args.json else _line(event), flush=args.follow)


def _line(event: Json) -> str:
    from relay.observe.durations import duration

    after_ms = event["after_ms"]
    columns = (
        str(event["at"]),
        f"{event['kind']:<12}",
        f"{duration(after_ms if isinstance(after_ms, float) else None):>7}",
        str(event["lane"]),
        str(event["upstream"] or "-"),
        str(event["message"]),
        printable(str(event["recipient"])),
        printable(str(event["reason"] or "")),
    )
    return "  ".join(columns).rstrip()
