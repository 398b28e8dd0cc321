"""`otp-relay demo`: the relay with stand-in upstreams and apps, without a configuration."""

from __future__ import annotations

import argparse
import contextlib

from relay.cli.common import NOT_READ, add_config


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="run the relay between two stand-in upstreams",
        description="Runs the relay with a configuration of its own, two stand-in upstreams (one fast, one slow with "
        "failures), and two apps that send codes and bulk mail. Prints the console's link; then shows how long both "
        "take. "
        "In a terminal: k kills the fast upstream or revives it, b sends 50 codes at once, q or Ctrl-C ends the demo.",
    )
    parser.add_argument("--seconds", type=_seconds, metavar="N", help="end after N seconds (default: run until Ctrl-C)")
    add_config(parser, NOT_READ)
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) <= 86_400:
            return seconds
    raise argparse.ArgumentTypeError(f"expected seconds, more than 0 and at most 86400 (a day), got {text!r}")


def run(args: argparse.Namespace) -> int:
    """Exit 0, also after Ctrl-C; 1 if the relay failed or didn't start."""
    import signal
    import sys

    # An import may swallow a KeyboardInterrupt (Python 3.11 makes a RuntimeError of it in __set_name__). So signals are
    # collected until the event loop handles them.
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    if sys.stdout.isatty():  # elsewhere the console's link is the first line
        print("Starting the relay between two stand-in upstreams; Ctrl-C ends it.", end="", flush=True)
    import asyncio

    from relay.demo.run import run as run_demo

    return asyncio.run(run_demo(args.seconds, signals))
