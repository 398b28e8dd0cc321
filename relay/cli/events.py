"""`otp-relay events`: what happened to mail."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from relay.cli.common import EXIT_OK, add_config, fail, set_command
from relay.cli.source import add_url, open_source

if TYPE_CHECKING:
    from relay.store.events import EventSelection

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
    add_url(parser)
    set_command(parser, show)


def show(args: argparse.Namespace) -> int:
    """Exit 0."""
    from relay.web.query import EVENT_FILTERS, MAX_LIMIT, event_selection

    given = {name: str(getattr(args, name)) for name in EVENT_FILTERS if getattr(args, name) is not None}
    only_new = args.follow and given.get("limit") == "0"
    if only_new:
        del given["limit"]
    selection = event_selection(given, time.time())
    with open_source(args) as source:
        news = source.news() if args.follow else iter(())
        if not only_new:
            _print_found(args, source.events({**given, "limit": str(min(selection.limit + 1, MAX_LIMIT))}), selection)
        with contextlib.suppress(KeyboardInterrupt):
            for events in news:
                _print(args, [event for event in events if _is_wanted(event, selection)])
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
    from relay.cli.text import columns, cut
    from relay.observe.durations import duration

    after_ms = event["after_ms"]
    after = duration(after_ms if isinstance(after_ms, float | int) else None)
    head = f"{event['at']}  {event['kind']:<12}  {after:>7}  {event['recipient']}"
    by = (str(event["message"]), str(event["lane"]), str(event["upstream"] or ""), str(event["reason"] or ""))
    return "\n".join(cut(line, columns()).rstrip() for line in (head, "  " + "  ".join(filter(None, by))))
