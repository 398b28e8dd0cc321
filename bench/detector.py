"""How long the content detector takes for a mail: `python -m bench.detector [FOLDER] [--rounds N]`.

FOLDER holds mails (`*.eml`); without it, the examples of tools/mails are used. Beside it stands a floor: Python's own
`email` parses the mail and decodes its text parts, and does no more. On each mail they take turns: `email`, the
detector, and the detector once more, whose code and words then lie in the processor's cache. A mail's time is the least
of its rounds. Below stand mails of 64 KB that are as bad as HTML can be, one of a kind.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from email import message_from_bytes, policy
from pathlib import Path

from bench.options import say, table
from bench.records import quantiles
from relay.mail.codes.detector import detect, the_model
from relay.mail.codes.reading import READ_BYTES
from relay.mail.message import parse
from tools.example_mails import main as render

ROUNDS = 7
SMALL_BYTES = 20_480
_HEAD = b"Subject: Hello\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><body><p>Your code is below</p>"
WORST = {
    "nested elements": b"<div>",
    "unclosed tags": b"<a href=",
    "signs of tags": b"<",
    "cells with digits": b"<tr><td>1234</td><td>56</td></tr>",
    "characters by number": b"&amp;&#49;&eacute;",
    "comments": b"<!-- x -->",
    "styles": b"<style>a{}</style>",
    "hidden elements": b'<p style="display:none">123456</p>',
    "a digit an element": b"<span>1</span>",
    "links": b'<a href="https://x.example/1234">https://x.example/1234</a> ',
    "words of the lexicon": b"order code 10 minutes <b>valid</b> ",
    "Cyrillic": "<p>заказ код 1234</p>".encode(),
    "Chinese": "<p>验证码1234订单</p>".encode(),
    "Thai": "<p>รหัส 1234 คำสั่งซื้อ</p>".encode(),
    "circled digits": "<p>① ② code</p>".encode(),
    "one long word": b"a",
    "an image in the text": b'<img src="data:image/png;base64,' + b"iVBORw0KGgo1234567" * 200 + b'">',
}


def worst(unit: bytes) -> bytes:
    """A mail of READ_BYTES."""
    return (_HEAD + unit * (READ_BYTES // len(unit)))[:READ_BYTES]


def floor(content: bytes) -> None:
    for part in message_from_bytes(content, policy=policy.default).walk():
        if part.get_content_maintype() == "text":
            try:
                part.get_content()
            except (LookupError, ValueError):  # a charset that `email` doesn't know
                part.get_payload(decode=True)


def examined(content: bytes) -> None:
    detect(parse(content))


def least_us(rounds: int, content: bytes, *calls: Callable[[bytes], None]) -> list[float]:
    """Of each call, in turns."""
    least = [float("inf")] * len(calls)
    for _ in range(rounds):
        for n, call in enumerate(calls):
            began = time.perf_counter()
            call(content)
            least[n] = min(least[n], (time.perf_counter() - began) * 1e6)
    return least


def mails(folder: Path | None) -> list[bytes]:
    if folder is not None:
        return [path.read_bytes() for path in sorted(folder.rglob("*.eml"))]
    with tempfile.TemporaryDirectory() as made:
        render(Path(made))
        return [path.read_bytes() for path in sorted(Path(made).glob("*.eml"))]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.detector", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"default: {ROUNDS}")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    the_model()
    say(f"the model was read in {(time.perf_counter() - began) * 1000:.0f} ms")
    contents = [one for one in mails(args.folder) if len(one) <= SMALL_BYTES]
    times = [least_us(args.rounds, content, floor, examined, examined) for content in contents]
    rows = []
    for n, name in enumerate(("email alone", "detector behind it", "detector again")):
        of_one = [each[n] for each in times]
        found = quantiles(of_one)
        rows.append([name, *(f"{value:.0f}" for value in (found.p50, found.p95, found.p99, max(of_one)))])
    print(f"{len(contents)} mails of at most {SMALL_BYTES // 1024} KB, µs a mail")
    print(table(("", "p50", "p95", "p99", "most"), rows), end="\n\n")
    bad = {name: least_us(3 * args.rounds, worst(unit), floor, examined, examined) for name, unit in WORST.items()}
    print(f"{READ_BYTES // 1024} KB of bad HTML, ms")
    ordered = sorted(bad.items(), key=lambda each: -each[1][2])
    print(
        table(
            ("", "email alone", "detector behind it", "detector again"),
            [[name, *(f"{us / 1000:.2f}" for us in both)] for name, both in ordered],
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
