"""`otp-relay demo`: everything on this machine, nothing to configure."""

from __future__ import annotations

import argparse
import contextlib


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="the relay at work between two stand-in upstreams",
        description="Runs the relay with a configuration of its own, two stand-in upstreams (one fast, one slow with "
        "hiccups), and two apps that send codes and bulk mail. Ctrl-C ends it.",
    )
    parser.add_argument("--seconds", type=_parsed, metavar="N", help="end after so long (default: Ctrl-C)")
    parser.set_defaults(run=run)


def _parsed(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) <= 86_400:
            return seconds
    raise argparse.ArgumentTypeError(f"expected seconds, more than 0 and at most 86400 (a day), got {text!r}")


def run(args: argparse.Namespace) -> int:
    """0, also for Ctrl-C; 1 when the relay could not be started or failed."""
    import signal

    # What is imported now may swallow a KeyboardInterrupt (Python 3.11 makes a RuntimeError of it in __set_name__): a
    # signal is noted until the loop hears it.
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    print("Starting the relay between two stand-in upstreams; Ctrl-C ends it.", flush=True)
    import asyncio

    from rich.console import Console

    from relay.demo.run import run as play

    return asyncio.run(play(args.seconds, Console(), asked))
