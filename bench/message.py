"""The mail that is measured with."""

from __future__ import annotations

DOMAIN = "bench.example"
OTP_SENDER = f"no-reply@{DOMAIN}"
BULK_SENDER = f"news@{DOMAIN}"
ID_HEADER = b"X-Bench-ID: "
"""spelled as nodemailer spells it, whatever it is given"""
_LINE = b"The quick brown fox jumps over the lazy dog while the five boxing wizards go.\r\n"


def otp(bench_id: int, body_bytes: int = 2048) -> bytes:
    """A code, marked for its lane and with an id that the sink finds; CRLF line ends, nothing to stuff."""
    return (
        b"From: Codes <%s>\r\nTo: user%d@example.net\r\nSubject: Your code: %06d\r\nX-Relay-Lane: otp\r\n"
        % (OTP_SENDER.encode(), bench_id, bench_id % 1_000_000)
        + ID_HEADER
        + b"%016x\r\n" % bench_id
        + _common(bench_id)
        + _body(body_bytes)
    )


def bulk(body_bytes: int, lane: str = "bulk") -> bytes:
    """A newsletter: the same bytes each time."""
    return (
        b"From: News <%s>\r\nTo: list@example.net\r\nSubject: News of the week\r\nX-Relay-Lane: %s\r\n"
        % (BULK_SENDER.encode(), lane.encode())
        + _common(0)
        + _body(body_bytes)
    )


def _common(number: int) -> bytes:
    return (
        b"Date: Mon, 02 Mar 2026 10:00:00 +0000\r\nMessage-ID: <%d@%s>\r\n"
        b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n" % (number, DOMAIN.encode())
    )


def _body(size_bytes: int) -> bytes:
    lines, rest = divmod(size_bytes, len(_LINE))
    return _LINE * lines + (b"x" * (rest - 2) + b"\r\n" if rest >= 2 else b"")
