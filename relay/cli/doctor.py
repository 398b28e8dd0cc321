"""`otp-relay doctor`: check the configuration and everything around it, with a hint for each problem."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from relay.cli.common import add_config, config_path, printable

if TYPE_CHECKING:
    from relay.doctor.finding import Finding

_LABELS = {"ok": "ok", "warn": "warn", "fail": "FAIL", "unknown": "unknown"}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="check configuration, keys, DNS, upstreams, disk and clock",
        description="Checks the configuration and everything around it: permissions, keys against DNS, SPF and DMARC "
        "of each domain that signs, each upstream's ports, greeting, TLS, AUTH, capabilities and HTTP API, the time "
        "that a code takes there, certificates, second upstreams, rules and objectives by the log, disk and clock. "
        "Sends no mail. Exit 0: all well; 1: a warning, or something could not be checked; 2: a failure.",
    )
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--dns", type=_server, metavar="HOST:PORT", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def _server(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"expected an address such as 127.0.0.1:53, got {text}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def run(args: argparse.Namespace) -> int:
    """Exit 0 all well, 1 a warning, 2 a failure."""
    import asyncio
    import os
    from dataclasses import asdict

    from relay.doctor.examine import examine
    from relay.doctor.finding import exit_code

    findings = asyncio.run(examine(config_path(args), os.environ, args.dns))
    code = exit_code(findings)
    if args.json:
        print(json.dumps({"ok": code == 0, "findings": [asdict(one) for one in findings]}, ensure_ascii=False))
    else:
        print(_as_text(findings))
    return code


WIDTH = 80
_RECORD = re.compile(r"v=DKIM1;.*", re.DOTALL)
"""a record to publish: to be copied, so it stands on one line"""


def _as_text(findings: Sequence[Finding]) -> str:
    width = max(len(label) for label in _LABELS.values()) + 2
    lines: list[str] = []
    for one in findings:
        text = ": ".join(part for part in (one.area, one.subject, one.text) if part)
        lines += _wrapped(f"{_LABELS[one.status]:<{width}}", " " * width, text)
        if one.status != "ok" and one.hint:
            record = _RECORD.search(one.hint)
            hint = one.hint if record is None else one.hint[: record.start()]
            indent = " " * (width + 2)
            lines += _wrapped(indent, indent, hint)
            lines += [indent + printable(record[0])] if record is not None else ()
    counts = [(status, sum(one.status == status for one in findings)) for status in ("fail", "warn", "unknown")]
    summary = [f"{count} {_LABELS[status]}" for status, count in counts if count]
    return "\n".join([*lines, ", ".join(summary) or "all well"])


def _wrapped(first: str, indent: str, text: str) -> list[str]:
    """Lines of at most WIDTH characters, where no word is longer."""
    from textwrap import wrap

    return wrap(
        printable(text),
        WIDTH,
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
