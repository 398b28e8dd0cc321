"""`otp-relay detect` and `otp-relay lint`: what the detector sees in mail, and what would hurt a code."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from relay.cli.common import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    NOT_READ,
    STDIN,
    CommandFailed,
    add_config,
    content_of,
    fail,
    load_or_exit,
    printable,
    set_command,
)

if TYPE_CHECKING:
    from relay.mail.codes.detector import Verdict

# The line before each message of an mbox file (RFC 4155): `From MAILBOX DATE`.
_SEPARATOR = re.compile(rb"From \S+ .*\d\d:\d\d.*\d{4}")
_MOST_LINTED_BYTES = 50_000_000


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    detect_parser = subparsers.add_parser(
        "detect",
        help="say which mail holds a one-time code",
        description="Shows what `match: {content: otp}` sees in messages, mbox files and folders of messages. "
        "Of several messages it shows the numbers, and those that are doubtful. It sends and stores nothing.",
    )
    detect_parser.add_argument(
        "files", metavar="FILE", nargs="+", help="a message, an mbox file, or a folder; - is stdin"
    )
    detect_parser.add_argument("--json", action="store_true", help="one JSON object a line for each message")
    add_config(detect_parser, NOT_READ)
    set_command(detect_parser, detect)

    lint_parser = subparsers.add_parser(
        "lint",
        help="find what would hurt a one-time code",
        description="Reads a message and reports what can keep it from the mailbox or its code from the reader. "
        "It also looks at the configuration, if one is named. Exit 0: nothing, or hints only; 1: errors or warnings.",
    )
    lint_parser.add_argument("file", metavar="FILE.eml", help="a message; - is stdin")
    lint_parser.add_argument("--json", action="store_true", help="one JSON object a line for each finding")
    add_config(lint_parser, "look at this configuration, too (default: at none)")
    set_command(lint_parser, lint)


class _Found(NamedTuple):
    """A message: its file, its number in an mbox file, and at least its beginning."""

    file: str
    number: int | None
    content: bytes

    @property
    def name(self) -> str:
        return self.file if self.number is None else f"{self.file} message {self.number}"


def detect(args: argparse.Namespace) -> int:
    """Exit 0, or 2 where a file can't be read."""
    from relay.mail.codes.detector import DOUBTFUL
    from relay.mail.codes.detector import detect as verdict_on
    from relay.mail.message import parse, subject
    from relay.mail.redact import redact

    counts = Counter[str]()
    doubtful: list[str] = []
    first, code = "", EXIT_OK
    for found in _messages(args.files):
        if isinstance(found, str):
            code = fail(found, EXIT_USAGE)
            continue
        message = parse(found.content)
        verdict = verdict_on(message)
        is_doubtful = abs(verdict.score) < DOUBTFUL
        shown = redact(subject(message))
        if args.json:
            print(json.dumps(_as_json(found, verdict, shown, doubtful=is_doubtful), ensure_ascii=False))
            continue
        # The reasons take longer than the verdict: of many messages only the doubtful ones are explained.
        text = _as_text(found, verdict, shown) if is_doubtful or not counts else ""
        first = first or text
        counts.update([verdict.content])
        if is_doubtful:
            doubtful.append(text)
    if args.json:
        return code
    if counts.total() == 1:
        print(first)
        return code
    print(f"{counts.total()} messages: {counts['otp']} otp, {counts['other']} other; {len(doubtful)} doubtful")
    for line in doubtful:
        print(line)
    return code


def _as_json(found: _Found, verdict: Verdict, subject: str, *, doubtful: bool) -> dict[str, object]:
    return {
        "file": found.file,
        "number": found.number,
        "content": verdict.content,
        "score": round(verdict.score, 2),
        "doubtful": doubtful,
        "subject": subject,
        "reasons": list(verdict.explain()),
    }


def _as_text(found: _Found, verdict: Verdict, subject: str) -> str:
    reasons = "; ".join(verdict.explain())
    return printable(f"{found.name}: {verdict.content} ({verdict.score:+.1f}) {subject!r}: {reasons}")


def _messages(names: list[str]) -> Iterator[_Found | str]:
    """Each message, or why a file can't be read."""
    for name in names:
        try:
            if name == STDIN:
                yield from _in_file(name, sys.stdin.buffer)
                continue
            path = Path(name)
            files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        except OSError as error:
            yield f"{name}: {error.strerror}"
            continue
        for file in files:
            try:
                with file.open("rb") as opened:
                    yield from _in_file(str(file), opened)
            except OSError as error:
                yield f"{file}: {error.strerror}"


def _in_file(name: str, file: BinaryIO) -> Iterator[_Found]:
    """The message of a file, or each of an mbox file. Raises OSError."""
    from relay.mail.codes.reading import READ_BYTES

    first = file.readline(READ_BYTES)
    if _SEPARATOR.match(first) is None:
        yield _Found(name, None, first + file.read(READ_BYTES - len(first)))
        return
    number, size, is_blank = 1, 0, False
    lines: list[bytes] = []
    while line := file.readline(READ_BYTES):
        if is_blank and _SEPARATOR.match(line):
            yield _Found(name, number, b"".join(lines))
            number, lines, size = number + 1, [], 0
        elif size < READ_BYTES:
            lines.append(line)
            size += len(line)
        is_blank = line in (b"\n", b"\r\n")
    yield _Found(name, number, b"".join(lines))


def lint(args: argparse.Namespace) -> int:
    """Exit 0 without findings or with hints only, 1 with errors or warnings, 2 if the file or the configuration can't
    be read."""
    from relay.mail.lint import lint as findings_in
    from relay.mail.message import Unacceptable

    signed = _signed(args)
    try:
        content = _lintable(args.file)
        findings = findings_in(content, now=time.time(), signed=signed)
    except OSError as error:
        raise CommandFailed(f"{args.file}: {error.strerror}", EXIT_USAGE) from None
    except Unacceptable as error:
        raise CommandFailed(f"{args.file}: {error}", EXIT_USAGE) from None
    for finding in findings:
        if args.json:
            document = {"rule": finding.rule, "level": finding.level, "text": finding.text}
            print(json.dumps(document, ensure_ascii=False))
        else:
            print(printable(f"{args.file}: {finding.level}: {finding.rule}: {finding.text}"))
    return EXIT_FAILED if any(finding.level != "hint" for finding in findings) else EXIT_OK


def _signed(args: argparse.Namespace) -> set[str] | None:
    """The domains that have a key in the configuration; None where none is named."""
    from relay.mail.dkim import ascii_domain

    if args.config is None:
        return None
    return {ascii_domain(one.domain) for one in load_or_exit(args.config).config.dkim}


def _lintable(file: str) -> bytes:
    """Raises OSError, CommandFailed."""
    content = content_of(file, _MOST_LINTED_BYTES + 1)
    if len(content) > _MOST_LINTED_BYTES:
        raise CommandFailed(f"{file}: larger than {_MOST_LINTED_BYTES // 1_000_000} MB", EXIT_USAGE)
    if _SEPARATOR.match(content):
        raise CommandFailed(f"{file}: an mbox file; lint takes one message", EXIT_USAGE)
    return content
