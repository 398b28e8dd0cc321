"""`otp-relay demo`: everything on this machine, nothing to configure."""

from __future__ import annotations

import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="the relay at work between two stand-in upstreams",
        description="Runs the relay with a configuration of its own, two stand-in upstreams (one fast, one slow with "
        "hiccups), and two apps that send codes and bulk mail. Ctrl-C ends it.",
    )
    parser.add_argument("--seconds", type=_seconds, metavar="N", help="end after so long (default: Ctrl-C)")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0 and at most a day, got {text}")
    return seconds


def run(args: argparse.Namespace) -> int:
    """0; 1 when the relay could not be started or failed; 130 for Ctrl-C before there was one."""
    import signal

    # What is imported now may swallow a KeyboardInterrupt (Python 3.11 makes a RuntimeError of it in __set_name__): a
    # signal is noted until the loop hears it.
    asked: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    import asyncio

    from rich.console import Console

    from relay.demo.run import run as play

    return asyncio.run(play(args.seconds, Console(), asked))
