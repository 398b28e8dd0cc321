"""What the benchmarks share on the command line, and what they print."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import postfix
from bench.process import steady

REPEAT = 3


@dataclass(frozen=True, slots=True)
class Options:
    quick: bool
    """few messages: shows that a row works, says nothing about speed"""
    rows: tuple[str, ...]
    repeat: int
    peers: bool
    """measure Postfix too"""
    directory: Path | None
    keep: bool
    json_file: Path | None
    realtime: bool


def parse(program: str, description: str, rows: Sequence[str], argv: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(prog=f"python -m bench.{program}", description=description)
    parser.add_argument("--quick", action="store_true", help="few messages, once: does everything work?")
    parser.add_argument("--rows", nargs="+", choices=rows, default=list(rows), help="default: all")
    parser.add_argument("--repeat", type=int, metavar="N", help=f"default: {REPEAT}, with --quick 1")
    parser.add_argument("--no-postfix", action="store_true")
    parser.add_argument(
        "--directory", type=Path, help="where stores and queues lie (default: the system's for temporary files)"
    )
    parser.add_argument("--keep", action="store_true", help="leave stores, queues and logs behind")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every repetition's figures")
    parser.add_argument("--no-realtime", action="store_true", help="give the measuring processes no priority")
    args = parser.parse_args(argv)
    absent = None if args.no_postfix else postfix.missing()
    if absent:
        print(f"without Postfix: {absent}", file=sys.stderr)
    return Options(
        quick=args.quick,
        rows=tuple(args.rows),
        repeat=args.repeat or (1 if args.quick else REPEAT),
        peers=not args.no_postfix and absent is None,
        directory=args.directory,
        keep=args.keep,
        json_file=args.json,
        realtime=not args.no_realtime and may_be_realtime(),
    )


def may_be_realtime() -> bool:
    """Try it in a child: this process stays as it is."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if steady(realtime=True) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def preamble(options: Options) -> str:
    """What the figures were measured on and how."""
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    kind = "QUICK RUN, the figures mean nothing; " if options.quick else ""
    ahead = "measuring processes ahead of all others" if options.realtime else "measuring processes without priority"
    return (
        f"{kind}{cores} cores, Linux {platform.release()}, Python {platform.python_version()}, load {load:.2f} "
        f"at the start, {options.repeat} repetition(s), {ahead}"
    )


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown, aligned to be read as it is; the first column is left out where it says the same as above."""
    rows = [list(head)]
    above = ""
    for cells in lines:
        rows.append(["" if cells[0] == above else cells[0], *cells[1:]])
        above = cells[0]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(rows[0]), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows[1:])])


def say(text: str) -> None:
    """Progress, apart from the results."""
    print(text, file=sys.stderr, flush=True)


def save(options: Options, results: Sequence[dict[str, Any]]) -> None:
    if options.json_file is not None:
        options.json_file.write_text(json.dumps({"about": preamble(options), "results": results}, indent=1))
