"""`otp-relay receivers`: where events are posted to, what waits, and what was given up."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from relay.cli.common import EXIT_FAILED, EXIT_OK, add_config, set_command, store_path

if TYPE_CHECKING:
    from relay.store.sqlite.outbox_reader import DeadPost, ReceiverRow

DEAD_SHOWN = 1000
REMOVED = "(removed)"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "receivers",
        help="where events are posted to, and what waits",
        description="Lists the receivers of events with what waits and what was given up (dead). Exit 0; 1 if "
        "--retry-dead changed nothing.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dead", action="store_true", help="list the events that were given up, the latest first")
    what.add_argument("--retry-dead", action="store_true", help="post all of them again")
    parser.add_argument("--json", action="store_true", help="JSON, one object a line")
    add_config(parser)
    set_command(parser, receivers)


def receivers(args: argparse.Namespace) -> int:
    """Exit 0; 1 if `--retry-dead` changed nothing."""
    from relay.store.sqlite import outbox_reader
    from relay.store.sqlite.events_schema import events_path

    events = events_path(store_path(args))
    if args.retry_dead:
        return _retry(events, as_json=args.json)
    if args.dead:
        dead = outbox_reader.dead_posts(events, DEAD_SHOWN)
        text = _objects(map(_dead_as_json, dead)) if args.json else _dead_as_text(dead)
    else:
        rows = outbox_reader.receivers(events)
        text = _objects(map(_as_json, rows)) if args.json else _as_text(rows)
    if text or not args.json:
        print(text or ("nothing was given up" if args.dead else "no receiver was configured so far"))
    return EXIT_OK


def _retry(events: Path, *, as_json: bool) -> int:
    from relay.store.sqlite.outbox_reader import retry_dead

    changed = retry_dead(events)
    print(json.dumps({"changed": changed}) if as_json else f"{changed} events are posted again")
    return EXIT_OK if changed else EXIT_FAILED


def _as_json(row: ReceiverRow) -> dict[str, object]:
    return {
        "receiver": _place(row.position),
        "host": row.host,
        "removed": row.position is None,
        "waiting": row.waiting,
        "failing": row.failing,
        "oldest_at": _time(row.oldest_at),
        "dead": row.dead,
    }


def _as_text(rows: Sequence[ReceiverRow]) -> str:
    from relay.cli.text import table
    from relay.observe.durations import NOTHING, duration

    if not rows:
        return ""
    now = time.time()
    return table(
        ("RECEIVER", "HOST", "WAITING", "FAILING", "OLDEST", "DEAD"),
        [
            (
                _place(row.position) or REMOVED,
                row.host or NOTHING,
                str(row.waiting),
                str(row.failing),
                duration(None if row.oldest_at is None else max(0.0, now - row.oldest_at) * 1000),
                str(row.dead),
            )
            for row in rows
        ],
        frozenset({"WAITING", "FAILING", "OLDEST", "DEAD"}),
    )


def _dead_as_json(post: DeadPost) -> dict[str, object]:
    return {
        "id": post.event_id,
        "kind": _kind(post.body),
        "message": post.message_id,
        "receiver": _place(post.position),
        "host": post.host,
        "attempts": post.attempts,
        "result": post.result,
        "created_at": _time(post.created_at),
        "dead_at": _time(post.dead_at),
    }


def _dead_as_text(dead: Sequence[DeadPost]) -> str:
    from relay.cli.text import table
    from relay.observe.durations import NOTHING

    if not dead:
        return ""
    return table(
        ("GIVEN UP", "EVENT", "KIND", "MESSAGE", "RECEIVER", "HOST", "ATTEMPTS", "RESULT"),
        [
            (
                _time(post.dead_at) or "",
                post.event_id,
                _kind(post.body) or "",
                post.message_id,
                _place(post.position) or REMOVED,
                post.host or NOTHING,
                str(post.attempts),
                post.result or "",
            )
            for post in dead
        ],
        frozenset({"ATTEMPTS"}),
    )


def _place(position: int | None) -> str | None:
    return None if position is None else f"events[{position}]"


def _kind(body: bytes) -> str | None:
    try:
        return str(json.loads(body)["type"])
    except (ValueError, KeyError, TypeError):
        return None


def _time(at: float | None) -> str | None:
    from relay.web.query import rfc3339

    return None if at is None else rfc3339(at)


def _objects(rows: Iterable[Mapping[str, object]]) -> str:
    return "\n".join(json.dumps(row) for row in rows)
