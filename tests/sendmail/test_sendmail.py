"""sendmail(8): what it makes of arguments and stdin, where it goes, and how it ends."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.cli.sendmail import parse_arguments
from relay.config.model import Listener
from relay.config.network import UnixAddress
from relay.intake.types import Refused, Submission
from relay.mail.envelope import Notify, Recipient
from relay.mail.reply import Reply
from relay.sendmail.compose import Failed, Outgoing, compose
from relay.sendmail.submit import find_places
from tests.intake.harness import PATIENCE_S, listener, service

MESSAGE = b"From: f@x.test\nTo: b@x.test\n\nhi\n"
SUCCESS, USAGE, DATAERR, NOUSER, NOHOST, UNAVAILABLE, TEMPFAIL, NOPERM, CONFIG = 0, 64, 65, 67, 68, 69, 75, 77, 78


def composed(arguments: str, given: bytes = MESSAGE) -> Outgoing:
    return compose(parse_arguments(arguments.split()), given, user="me", hostname="host.test")


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "sender", "recipients", "dots"),
    [
        ("b@x.test", "me@host.test", ["b@x.test"], False),
        ("-f a@x.test b@x.test", "a@x.test", ["b@x.test"], False),
        ("-fa@x.test b@x.test", "a@x.test", ["b@x.test"], False),
        ("-r a@x.test b@x.test", "a@x.test", ["b@x.test"], False),
        ("-f <> b@x.test", "", ["b@x.test"], False),
        ("-i -f <a@x.test> -- b@x.test", "a@x.test", ["b@x.test"], True),
        ("-oi b@x.test", "me@host.test", ["b@x.test"], True),
        ("-o i b@x.test", "me@host.test", ["b@x.test"], True),
        ("-oem -om -odb -oQ/tmp b@x.test", "me@host.test", ["b@x.test"], False),
        ("-ti", "me@host.test", ["b@x.test"], True),
        ("-t -i -fa@x.test", "a@x.test", ["b@x.test"], True),
        ("-tifa@x.test", "a@x.test", ["b@x.test"], True),
        ("-FCronDaemon -i -B8BITMIME -oem root", "me@host.test", ["root@host.test"], True),
        ("-bm -G -U -n -m -em -h3 -d0.1 -O Timeout=1 -X log -p smtp:x b@x.test", "me@host.test", ["b@x.test"], False),
        ("b@x.test c@x.test -i", "me@host.test", ["b@x.test", "c@x.test"], True),
        ("-t b@x.test c@x.test", "me@host.test", ["b@x.test", "c@x.test"], False),
        ("-i -- -odd@x.test", "me@host.test", ["-odd@x.test"], True),
    ],
)
def test_arguments_are_read_as_sendmail_reads_them(
    arguments: str, sender: str, recipients: list[str], dots: bool
) -> None:
    outgoing = composed(arguments)
    assert (outgoing.sender, list(outgoing.recipients)) == (sender, recipients)
    assert parse_arguments(arguments.split()).dots_are_content is dots


@pytest.mark.parametrize(
    "arguments",
    [
        "-bs", "-bp", "-bi", "-bd", "-bt", "-q", "-q15m", "-f", "--frobnicate", "", "-t", "-N sometimes b@x.test",
        "-R part b@x.test", "a<b@x.test", "b@x.test\tDATA",
    ],
)  # fmt: skip
def test_what_can_t_be_done_is_a_usage_error(arguments: str) -> None:
    with pytest.raises(Failed) as failed:
        compose(parse_arguments(arguments.split(" ") if arguments else []), b"\nhi\n", user="me", hostname="host.test")
    assert failed.value.status == USAGE


def test_an_address_smuggles_no_command() -> None:
    for hostile in ("b@x.test>\r\nRCPT TO:<c@x.test", "b@x.test\nDATA", "b c@x.test", "b\0@x.test"):
        with pytest.raises(Failed):
            compose(parse_arguments([hostile]), MESSAGE, user="me", hostname="host.test")
        with pytest.raises(Failed):
            compose(parse_arguments(["-f" + hostile, "b@x.test"]), MESSAGE, user="me", hostname="host.test")


# Stdin.


@pytest.mark.parametrize(
    ("given", "content"),
    [
        (b"From: a\n\nhi\n", b"From: a\r\n\r\nhi\r\n"),
        (b"From: a\r\nTo: b\r\n\r\nbody\nin LF\n", b"From: a\r\nTo: b\r\n\r\nbody\r\nin LF\r\n"),
        (b"From: a\n\nno end", b"From: a\r\n\r\nno end\r\n"),
        (b"From: a\n\n1\n.\n2\n", b"From: a\r\n\r\n1\r\n"),
        (b"From: a\r\n\r\n1\r\n.\r\n2\r\n", b"From: a\r\n\r\n1\r\n"),
        (b"From: a\n\n1\n.", b"From: a\r\n\r\n1\r\n"),
        (b"From: a\n\n..\n.x\n", b"From: a\r\n\r\n..\r\n.x\r\n"),
        (b"From a@x Mon Jan 1\nFrom: a\n\nhi\n", b"From: a\r\n\r\nhi\r\n"),
        (b"from : a\n folded\n\nhi\n", b"from : a\r\n folded\r\n\r\nhi\r\n"),
        (b"Subject: s\n\nFrom: body\n", b"From: me@host.test\r\nSubject: s\r\n\r\nFrom: body\r\n"),
        (b"no header at all\n", b"From: me@host.test\r\n\r\nno header at all\r\n"),
        (b"Subject: s\nno blank line\n", b"From: me@host.test\r\nSubject: s\r\n\r\nno blank line\r\n"),
        (b"\nonly a body\n", b"From: me@host.test\r\n\r\nonly a body\r\n"),
        (b"Subject: only a header\n", b"From: me@host.test\r\nSubject: only a header\r\n"),
        (b"", b"From: me@host.test\r\n"),
    ],
)
def test_stdin_becomes_a_message_with_crlf(given: bytes, content: bytes) -> None:
    assert composed("b@x.test", given).content == content


def test_with_i_a_dot_is_just_a_dot() -> None:
    assert composed("-i b@x.test", b"From: a\n\n1\n.\n2\n").content == b"From: a\r\n\r\n1\r\n.\r\n2\r\n"


@given(st.lists(st.sampled_from([b"a", b"\r\n", b"\n", b".", b"From: x", b" "])).map(b"".join))
def test_however_lines_end_on_stdin_they_end_in_crlf(given: bytes) -> None:
    content = composed("-i b@x.test", given).content
    assert content.replace(b"\r\n", b"").count(b"\n") == 0
    assert content.endswith(b"\r\n")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("Cron Daemon", b"From: Cron Daemon <me@host.test>"),
        ('A "B", C.', b'From: "A \\"B\\", C." <me@host.test>'),
        ("Jürgen", b"From: =?utf-8?b?SsO8cmdlbg==?= <me@host.test>"),
        ("a\r\nBcc: evil@x.test", b'From: "a Bcc: evil@x.test" <me@host.test>'),
        ("\x1b[2J", b"From: me@host.test"),
    ],
)
def test_a_missing_from_is_made_of_the_name_and_the_sender(name: str, field: bytes) -> None:
    request = parse_arguments(["-F", name, "b@x.test"])
    assert compose(request, b"\nhi\n", user="me", hostname="host.test").content.startswith(field + b"\r\n")


def test_t_takes_every_recipient_of_the_header_once() -> None:
    header = b"""To: "Doe, J." <j@x.test>,
 root, k@x.test
cc: Group: l@x.test, m@x.test;
BCC: j@x.test
X-To: nobody@x.test
Subject: To: nobody@x.test

To: nobody@x.test
"""
    found = composed("-t", header).recipients
    assert sorted(found) == ["j@x.test", "k@x.test", "l@x.test", "m@x.test", "root@host.test"]


# Where to.


@pytest.mark.parametrize(
    ("config", "environ", "places"),
    [
        ("listen:\n  - address: 127.0.0.1:26\n", {}, [("127.0.0.1", 26)]),
        ("listen:\n  - address: 127.0.0.1:26\n", {"OTP_RELAY_SUBMIT": "[::1]:27"}, [("::1", 27)]),
        ("listen:\n  - address: 127.0.0.1:26\n", {"OTP_RELAY_SUBMIT": "unix:/run/x"}, ["/run/x"]),
        ("listen:\n  - address: 0.0.0.0:26\n  - address: '[::]:26'\n", {}, [("127.0.0.1", 26), ("::1", 26)]),
        ("listen:\n  - address: ${HOST:-localhost}:${PORT}\n", {"PORT": "28"}, [("localhost", 28)]),
        (
            "listen:\n  - {address: 'h:1', tls: implicit}\n  - {address: 'h:2', auth: required}\n"
            "  - {address: 'h:3', proxy_protocol: [10.0.0.0/8]}\n  - address: systemd:x\n"
            "  - {address: 'h:4', lane: otp}\n  - {address: 'h:5', auth: any, tls: starttls}\n",
            {},
            [("h", 5), ("h", 4)],
        ),
        ("listen: {address: 127.0.0.1:26}\n", {}, [("127.0.0.1", 26)]),
        ("hostname: x\n", {}, [("127.0.0.1", 2525)]),
        ("", {}, [("127.0.0.1", 2525)]),
    ],
)
def test_the_first_usable_listener_is_found(
    config: str, environ: dict[str, str], places: list[object], tmp_path: Path
) -> None:
    path = tmp_path / "relay.yaml"
    path.write_text(config)
    assert list(find_places({"OTP_RELAY_CONFIG": str(path), **environ}, None)[0]) == places


@pytest.mark.parametrize("option", ["-c", "-C"])
@pytest.mark.parametrize("arguments", ["{} FILE b@x.test", "b@x.test {}FILE", "-t {} FILE"])
def test_the_configuration_is_named_as_for_other_commands_and_as_for_other_sendmails(
    option: str, arguments: str
) -> None:
    request = parse_arguments(arguments.format(option).split())
    assert request.config == "FILE"
    assert "FILE" not in request.recipients


def test_a_relative_socket_is_beside_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "relay.yaml"
    path.write_text("listen:\n  - address: unix:smtp.sock\nhostname: mail.x.test\n")
    found, hostname = find_places({}, str(path))
    assert found == (str(tmp_path / "smtp.sock"),)
    assert hostname == "mail.x.test"


@pytest.mark.parametrize("text", ["listen: [", "listen: []", "listen:\n  - {address: 'h:1', tls: implicit}\n"])
def test_a_configuration_without_a_usable_listener_is_an_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "relay.yaml"
    path.write_text(text)
    with pytest.raises(Failed) as failed:
        find_places({"OTP_RELAY_CONFIG": str(path)}, None)
    assert failed.value.status == CONFIG


def test_without_a_configuration_it_is_the_default_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_places({}, None)[0] == (("127.0.0.1", 2525),)
    with pytest.raises(Failed):
        find_places({}, "missing.yaml")


# The whole program.


async def sendmail(
    *arguments: str, to: str, given: bytes = MESSAGE, environ: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from relay.cli.sendmail import main; main()", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OTP_RELAY_SUBMIT": to, "PYTHONPATH": os.getcwd(), **(environ or {})},
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate(given)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_message_arrives_with_all_that_was_asked_for() -> None:
    async with service() as relay:
        status, out, err = await sendmail(
            *("-v", "-fa@x.test", "-N", "success,delay", "-R", "hdrs", "-V", "id=1", "-i", "b@x.test", "c@x.test"),
            to=f"127.0.0.1:{relay.port}",
            given="From: ä\r\n\n.dot\n.\nend".encode(),
        )
    assert (status, out, err) == (SUCCESS, "250 2.0.0 queued as id-1\n", "")
    (taken,) = relay.recorder.taken
    envelope = taken.envelope
    notify: frozenset[Notify] = frozenset({"SUCCESS", "DELAY"})
    assert taken.content == "From: ä\r\n\r\n.dot\r\n.\r\nend\r\n".encode()
    assert envelope.recipients == (Recipient("b@x.test", notify), Recipient("c@x.test", notify))
    assert (envelope.sender, envelope.ret, envelope.envid, envelope.body) == ("a@x.test", "HDRS", "id+3D1", "8BITMIME")


async def test_it_goes_through_a_unix_socket_too(tmp_path: Path) -> None:
    async with service(Listener(address=UnixAddress(str(tmp_path / "s")))) as relay:
        assert await sendmail("jürgen@x.test", to=f"unix:{tmp_path / 's'}") == (SUCCESS, "", "")
    assert relay.recorder.taken[0].envelope.recipients[0].address == "jürgen@x.test"


async def test_its_help_is_on_stdout() -> None:
    status, out, _ = await sendmail("--help", to="")
    assert status == SUCCESS
    assert "OTP_RELAY_SUBMIT" in out


@pytest.mark.parametrize(
    ("reply", "status"),
    [(Reply(451, "4.3.0 no"), TEMPFAIL), (Reply(554, "5.6.0 no"), DATAERR), (Reply(552, "5.3.4 no"), UNAVAILABLE)],
)
async def test_a_refusal_of_the_message_is_its_exit_status(reply: Reply, status: int) -> None:
    async def refuse(_: Submission) -> None:
        raise Refused(reply)

    async with service(before=refuse) as relay:
        got = await sendmail("b@x.test", to=f"127.0.0.1:{relay.port}")
    assert got == (status, "", f"otp-relay sendmail: the relay answered {reply}\n")


async def test_one_bad_recipient_and_nothing_is_sent() -> None:
    async with service() as relay:
        status, _, err = await sendmail("b@x.test", "c@-", to=f"127.0.0.1:{relay.port}")
        await relay.quiet()
    assert status == NOUSER
    assert "501 5.1.3" in err
    assert relay.recorder.taken == []


async def test_a_client_that_may_not_send_gets_the_refusal() -> None:
    async with service(listener(allow=("192.0.2.0/24",))) as relay:
        status, _, err = await sendmail("b@x.test", to=f"127.0.0.1:{relay.port}")
    assert status == NOPERM
    assert "554 5.7.1" in err


async def test_a_port_that_nothing_listens_on_is_a_temporary_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    status, _, err = await sendmail("b@x.test", to=f"127.0.0.1:{port}")
    assert status == TEMPFAIL
    assert err == f"otp-relay sendmail: cannot connect to 127.0.0.1:{port}: Connection refused\n"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 no\r\n", b"x" * 10_000, b"220 hi\r\n"])
async def test_what_is_no_smtp_server_is_a_temporary_failure(said: bytes) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        status, _, err = await sendmail("b@x.test", to=f"127.0.0.1:{port}")
    assert status == TEMPFAIL
    assert "Traceback" not in err


@pytest.mark.parametrize(("to", "status"), [("nowhere.invalid:25", NOHOST), ("rubbish", CONFIG), ("h:99999", CONFIG)])
async def test_a_bad_address_has_an_exit_status_of_its_own(to: str, status: int) -> None:
    assert (await sendmail("b@x.test", to=to))[0] == status


async def test_a_second_listener_is_tried_when_the_first_doesn_t_answer(tmp_path: Path) -> None:
    async with service() as relay:
        (tmp_path / "relay.yaml").write_text(
            f"listen:\n  - address: unix:gone.sock\n  - address: 127.0.0.1:{relay.port}\nhostname: mail.x.test\n"
        )
        status, _, err = await sendmail("root", to="", environ={"OTP_RELAY_CONFIG": str(tmp_path / "relay.yaml")})
    assert (status, err) == (SUCCESS, "")
    assert relay.recorder.taken[0].envelope.recipients[0].address == "root@mail.x.test"
