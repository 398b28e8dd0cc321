"""What a hostile or clumsy client does, as a process of its own.

`python -m bench.attacks NAME --smtp PORT --http PORT` does it again and again until its standard input ends, then
prints how often it did it. NAME is one of `ATTACKS`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.message import BULK_SENDER, OTP_SENDER
from bench.process import end_with_stdin

_TIMEOUT_S = 30.0
_PAUSE_S = 0.01
_HEADER_BYTES = 250_000
_OTP = b"X-Relay-Lane: otp\r\n"
_HALF_REQUESTS = 300
_ROUND_COMMANDS = 900
"""below the relay's limit for a session that brings no message"""


@dataclass(frozen=True, slots=True)
class Ports:
    smtp: int
    http: int


Attack = Callable[[Ports], None]


def _session(ports: Ports) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", ports.smtp), timeout=_TIMEOUT_S)
    client.recv(4096)
    client.sendall(b"EHLO attacker.example\r\n")
    client.recv(65_536)
    return client


def _submit(ports: Ports, content: bytes, *, sender: str = BULK_SENDER, parameters: bytes = b"") -> None:
    """One message; whatever the relay answers is right."""
    with _session(ports) as client:
        client.sendall(b"MAIL FROM:<%s>%s\r\nRCPT TO:<u@example.net>\r\nDATA\r\n" % (sender.encode(), parameters))
        seen = b""
        while b"354 " not in seen:
            piece = client.recv(4096)
            if not piece:
                return
            seen += piece
        client.sendall(content)
        client.sendall(b"\r\n.\r\n")
        client.recv(4096)


def _mail(head: bytes, *, lane: bytes = b"", body: bytes = b"x\r\n") -> bytes:
    return b"From: News <%s>\r\nTo: u@example.net\r\n" % BULK_SENDER.encode() + lane + head + b"\r\n" + body


def labels(ports: Ports) -> None:
    """A From domain of very many labels, in the lane of codes."""
    domain = b"a." * ((_HEADER_BYTES - 300) // 2) + b"example"
    _submit(ports, b"From: <a@%s>\r\n" % domain + _OTP + b"\r\nx\r\n", sender=OTP_SENDER)


def fields(ports: Ports) -> None:
    """62,000 header fields."""
    _submit(ports, _mail(b"a:b\r\n" * 50_000))


def addresses(ports: Ports) -> None:
    """62,000 addresses in From."""
    folded = b",\r\n ".join([b"a@b," * 200 + b"a@b"] * 300)[: _HEADER_BYTES - 500]
    _submit(ports, b"From: " + folded + b" <z@example.com>\r\n\r\nx\r\n")


def subject(ports: Ports) -> None:
    """A Subject of 220 kB that looks like codes."""
    _submit(ports, _mail(b"Subject: " + b"\r\n ".join([b"code 12-34-56 " * 50] * 300) + b"\r\n"))


def encode(ports: Ports) -> None:
    """An unclosed address field that an upstream without 8BITMIME wants re-encoded."""
    _submit(ports, _mail("Cc: é".encode() + b'\\"' * 15_000 + b"<" * 1_000 + b"\r\n"), parameters=b" SMTPUTF8")


def bounces(ports: Ports) -> None:
    """Mail of many words and fields, which its upstream refuses with many numbers."""
    words = b" ".join(b"word%d" % n for n in range(3_000))
    many = b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(900))
    _submit(ports, _mail(b"Subject: " + words + b"\r\n" + many))


def lines(ports: Ports) -> None:
    """25 MB of long lines in the lane of codes."""
    _submit(ports, _long_lines(), sender=OTP_SENDER)


@functools.cache
def _long_lines() -> bytes:
    return _mail(b"", lane=_OTP, body=(b"x" * 990 + b"\r\n") * 25_000)


def multipart(ports: Ports) -> None:
    """Twenty parts within each other, each with 8-bit text."""
    head, body = b"", b""
    for depth in range(20):
        head += b"" if depth else b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b0"\r\n'
        body += b'--b%d\r\nContent-Type: multipart/mixed; boundary="b%d"\r\n\r\n' % (depth, depth + 1)
    _submit(ports, _mail(head, body=body + "é".encode() * 100 + b"\r\n" + (b"y" * 70 + b"\r\n") * 65_000))


def envid(ports: Ports) -> None:
    """A lawful ENVID that holds an angle bracket."""
    _submit(ports, _mail(b"", lane=_OTP), sender=OTP_SENDER, parameters=b" ENVID=<20261128.1@app>")


def recipients(ports: Ports) -> None:
    """One connection with pipelined RCPTs, the same recipient over and over."""
    with _session(ports) as client:
        client.sendall(b"MAIL FROM:<a@example.com>\r\n")
        _pour(client, b"RCPT TO:<u@example.net>\r\n" * 500)


def noops(ports: Ports) -> None:
    """Four connections with pipelined commands, within every limit."""
    clients = [threading.Thread(target=_noops, args=(ports,)) for _ in range(4)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()


def _noops(ports: Ports) -> None:
    with contextlib.suppress(OSError), _session(ports) as client:
        client.sendall(b"NOOP\r\n" * _ROUND_COMMANDS + b"QUIT\r\n")
        while client.recv(65_536):
            pass


def _pour(client: socket.socket, flight: bytes) -> None:
    """Send it again and again, and read what comes, until the other side has enough."""
    reader = threading.Thread(target=_drain, args=(client,))
    reader.start()
    with contextlib.suppress(OSError):
        while reader.is_alive():
            client.sendall(flight)
    reader.join()


def _drain(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while client.recv(65_536):
            pass


def listings(ports: Ports) -> None:
    """The longest listing that the HTTP service gives."""
    _get(ports, "/api/messages?limit=10000")
    _get(ports, "/api/report?since=24h")


def _get(ports: Ports, path: str) -> None:
    with socket.create_connection(("127.0.0.1", ports.http), timeout=_TIMEOUT_S) as client:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{ports.http}\r\nConnection: close\r\n\r\n"
        client.sendall(request.encode())
        while client.recv(1 << 20):
            pass


def half_requests(ports: Ports) -> None:
    """300 HTTP connections that never end their request."""
    held = []
    with contextlib.suppress(OSError):
        for _ in range(_HALF_REQUESTS):
            client = socket.create_connection(("127.0.0.1", ports.http), timeout=_TIMEOUT_S)
            held.append(client)
            client.sendall(b"GET / HTTP/1.1\r\nHost: ")
    time.sleep(1.0)
    for client in held:
        client.close()


ATTACKS: dict[str, Attack] = {
    each.__name__.replace("_", "-"): each
    for each in (
        labels, fields, addresses, subject, encode, bounces, lines, multipart, envid, recipients, noops, listings,
        half_requests,
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.attacks", description=__doc__)
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("--smtp", type=int, required=True)
    parser.add_argument("--http", type=int, required=True)
    parser.add_argument("--pause", type=float, default=_PAUSE_S, metavar="S", help="between two")
    args = parser.parse_args()
    stop = threading.Event()
    end_with_stdin(stop.set)
    print("ready 0", flush=True)
    done, ports = 0, Ports(args.smtp, args.http)
    while not stop.is_set():
        with contextlib.suppress(OSError):  # a refusal may come by a closed connection
            ATTACKS[args.name](ports)
            done += 1
        time.sleep(args.pause)
    print(done, flush=True)


if __name__ == "__main__":
    main()
