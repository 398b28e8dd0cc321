"""An app's messages are read off the wire: when DATA left, when the reply came, of which message."""

from __future__ import annotations

import smtplib
from pathlib import Path

import pytest

from bench import message, records
from bench.clients.apps import APPS, App
from bench.clients.capture import Capture, Exchange, Segment, exchanges, permitted
from bench.process import Child, module, wait_until

WITHIN_S = 30.0
CONTENT = message.otp(0x2A).partition(b"\r\n\r\n")[0] + b"\r\n\r\ntext\r\n"


def wire(*steps: tuple[str, bytes], port: int = 5000, first: int = 100) -> list[Segment]:
    """Segments of one connection, a nanosecond apart: `>` from the client, `<` from the server."""
    found = [Segment(0, port, True, True, first - 1, b""), Segment(1, port, False, True, first - 1, b"")]
    following = {True: first, False: first}
    for side, data in steps:
        from_client = side == ">"
        found.append(Segment(len(found), port, from_client, False, following[from_client] % (1 << 32), data))
        following[from_client] += len(data)
    return found


OPENING = ((">", b"MAIL FROM:<a@b.example>\r\n"), ("<", b"250 ok\r\n"))
ASKED = (*OPENING, (">", b"DATA\r\n"), ("<", b"354 go on\r\n"))
TAKEN = ("<", b"250 2.0.0 ok\r\n")


def test_the_times_are_those_of_data_of_the_final_dot_and_of_the_reply() -> None:
    found = exchanges(wire(*ASKED, (">", CONTENT), (">", b".\r\n"), TAKEN))
    assert found == [Exchange(0x2A, data_ns=4, dot_ns=7, reply_ns=8, reply=b"250 2.0.0 ok\r\n")]


def test_a_refusal_is_handed_on() -> None:
    (found,) = exchanges(wire(*ASKED, (">", CONTENT + b".\r\n"), ("<", b"451 4.3.0 later\r\n")))
    assert found.reply == b"451 4.3.0 later\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_content_may_come_in_pieces(size: int) -> None:
    whole = CONTENT + b".\r\n"
    pieces = [(">", whole[start : start + size]) for start in range(0, len(whole), size)]
    (found,) = exchanges(wire(*ASKED, *pieces, TAKEN))
    assert (found.bench_id, found.data_ns, found.dot_ns) == (0x2A, 4, 5 + len(pieces))


def test_data_behind_other_commands_in_one_segment_is_found() -> None:
    (found,) = exchanges(wire((">", b"MAIL FROM:<a@b.example>\r\nDATA\r\n"), (">", CONTENT + b".\r\n"), TAKEN))
    assert (found.data_ns, found.bench_id) == (2, 0x2A)


def test_a_segment_that_is_sent_again_counts_once() -> None:
    segments = wire(*ASKED, (">", CONTENT), (">", b".\r\n"), TAKEN)
    again = [one for one in segments for _ in range(2)]
    assert exchanges(again) == exchanges(segments)


def test_sequence_numbers_may_begin_anew() -> None:
    steps = (*ASKED, (">", CONTENT + b".\r\n"), TAKEN)
    assert exchanges(wire(*steps, first=(1 << 32) - 30)) == exchanges(wire(*steps))


def test_connections_beside_each_other_and_a_port_that_is_used_again_are_told_apart() -> None:
    one = wire(*ASKED, (">", CONTENT + b".\r\n"), TAKEN)
    other = wire(*ASKED, (">", CONTENT.replace(b"2a\r\n", b"2b\r\n") + b".\r\n"), TAKEN, port=5001)
    mixed = [segment for pair in zip(one, other, strict=True) for segment in pair]
    again = wire(*ASKED, (">", CONTENT.replace(b"2a\r\n", b"2c\r\n") + b".\r\n"), TAKEN, first=9000)
    assert [found.bench_id for found in exchanges([*mixed, *again])] == [0x2A, 0x2B, 0x2C]


@pytest.mark.skipif(not permitted(), reason="no CAP_NET_RAW")
def test_what_the_kernel_saw_agrees_with_what_the_upstream_wrote_down(tmp_path: Path) -> None:
    arrived = tmp_path / "arrived"
    with Child(module("sink", "--out", arrived), tmp_path / "log", talks=True) as sink:
        port = int(sink.line(WITHIN_S).removeprefix("ready "))
        with Capture(port) as capture:
            with smtplib.SMTP("127.0.0.1", port, timeout=WITHIN_S) as client:
                client.sendmail(message.OTP_SENDER, "user@example.net", message.otp(9))
            (found,) = exchanges(capture.drain())
        wait_until("the message", lambda: records.arrived(arrived) == 1, WITHIN_S)
    (there,) = records.arrivals(arrived)
    assert there.bench_id == found.bench_id == 9
    # Read by a process that runs a moment later than the segment came, on the same clock.
    assert found.data_ns < found.dot_ns < there.at_ns < found.reply_ns


@pytest.mark.real
@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
def test_each_app_sends_a_message_for_each_id(tmp_path: Path, app: App) -> None:
    if not app.installed:
        pytest.skip(f"no {app.title} ({app.comes_from})")
    arrived, template = tmp_path / "arrived", tmp_path / "template.eml"
    template.write_bytes(message.otp(0, app.body_bytes))
    with Child(module("sink", "--out", arrived), tmp_path / "log", talks=True) as sink:
        port = sink.line(WITHIN_S).removeprefix("ready ")
        with Child([*app.argv, "127.0.0.1", port, str(template)], tmp_path / "app.log", talks=True) as running:
            for bench_id in (1, 0xBEEF):
                running.tell(f"{bench_id:016x}")
                assert running.line(WITHIN_S) == "sent"
        wait_until("both", lambda: records.arrived(arrived) == 2, WITHIN_S)
    assert [one.bench_id for one in records.arrivals(arrived)] == [1, 0xBEEF]


@pytest.mark.parametrize(("argv", "installed"), [(("no-such-program",), False), (("false",), False), (("true",), True)])
def test_an_app_is_installed_when_its_program_says_so(argv: tuple[str, ...], installed: bool) -> None:
    assert App("app", "App", "nowhere", argv).installed is installed
