"""The measuring programs as they run: the load, the sink, the floor."""

from __future__ import annotations

import base64
import json
import smtplib
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import message, records
from bench.process import Child, module, wait_until

WITHIN_S = 30.0
ENVELOPE = (b"MAIL FROM:<%s>\r\n" % message.OTP_SENDER.encode(), b"RCPT TO:<user@example.net>\r\n")


def started(folder: Path, name: str, *arguments: object) -> Child:
    return Child(module(name, *arguments), folder / f"{name}.log", talks=True)


def port_of(child: Child) -> int:
    return int(child.line(WITHIN_S).removeprefix("ready "))


@pytest.mark.parametrize("how", [("--burst", 10), ("--seed", 1)])
def test_the_load_sends_each_code_once_however_codes_come(tmp_path: Path, how: Sequence[object]) -> None:
    out, arrived = tmp_path / "sent", tmp_path / "arrived"
    with started(tmp_path, "sink", "--out", arrived) as sink:
        arguments = ("--port", port_of(sink), "--out", out, "--count", 30, "--rate", 50, "--first-id", 7, *how)
        with started(tmp_path, "load", "codes", *arguments) as load:
            load.wait(WITHIN_S)
        wait_until("codes", lambda: records.arrived(arrived) == 30, WITHIN_S)
    sent = records.sent(out)
    assert [one.bench_id for one in sent] == list(range(7, 37))
    assert all(0 < one.dot_ns < one.acknowledged_ns for one in sent)
    assert sorted(one.bench_id for one in records.arrivals(arrived)) == list(range(7, 37))


FLIGHTS = [
    ("PIPELINING", [(*ENVELOPE, b"DATA\r\n")]),
    ("8BITMIME", [ENVELOPE[:1], ENVELOPE[1:], (b"DATA\r\n",)]),
]


@pytest.mark.parametrize(("offer", "flights"), FLIGHTS)
def test_the_floor_waits_for_each_reply_of_an_upstream_without_pipelining(
    tmp_path: Path, offer: str, flights: Sequence[Sequence[bytes]]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WITHIN_S)
        arguments = ("--to", listener.getsockname()[1], "--spool", tmp_path / "spool", "--sessions", 1)
        with started(tmp_path, "floor", *arguments) as floor, listener.accept()[0] as upstream:
            upstream.settimeout(WITHIN_S)
            upstream.sendall(b"220 up.example\r\n")
            assert upstream.recv(4096).startswith(b"EHLO ")
            upstream.sendall(f"250-up.example\r\n250 {offer}\r\n".encode())
            with smtplib.SMTP("127.0.0.1", port_of(floor), timeout=WITHIN_S) as app:
                app.sendmail(message.OTP_SENDER, "user@example.net", message.otp(1))
            for flight in flights:
                # More behind the first command, were there any, would be in the same segment.
                assert upstream.recv(4096) == b"".join(flight)
                upstream.sendall(b"250 2.0.0 ok\r\n" * len(flight))
            assert upstream.recv(65_536) == message.otp(1) + b".\r\n"


@pytest.mark.parametrize("kind", ["ses", "resend"])
def test_the_api_notes_each_request_once_it_is_whole(tmp_path: Path, kind: str) -> None:
    mail = message.otp(7)
    body = json.dumps(
        {"Content": {"Raw": {"Data": base64.b64encode(mail).decode()}}}
        if kind == "ses"
        else {"headers": {"X-Bench-ID": f"{7:016x}"}, "text": "x"}
    ).encode()
    arrived = tmp_path / "arrived"
    with started(tmp_path, "api_sink", "--kind", kind, "--out", arrived) as sink:
        request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        with socket.create_connection(("127.0.0.1", port_of(sink)), timeout=WITHIN_S) as client:
            client.sendall(request + request[:40])
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
            client.sendall(request[40:])
            wait_until("requests", lambda: records.arrived(arrived) == 2, WITHIN_S)
    assert [one.bench_id for one in records.arrivals(arrived)] == [7, 7]
