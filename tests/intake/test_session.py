"""Sessions beside the dialogue: what is offered, storing, lost clients, limits and timeouts."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time

import pytest

from relay.intake.types import Refused, Submission
from relay.mail.envelope import DeliverBy, Recipient
from relay.mail.reply import Reply
from tests.intake.harness import PATIENCE_S, Client, listener, service, whole

ENVELOPE = ("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>")
SECRET = "secret code 123456"


async def up_to_data(client: Client) -> None:
    replies = await client.run(*ENVELOPE, "DATA")
    assert [reply[:3] for reply in replies] == ["250", "250", "354"]


def reset(client: Client) -> None:
    """Leave with RST, as a killed process or a dropped NAT entry does."""
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


# What is offered and handed on.


async def test_ehlo_offers_what_the_contract_names_and_nothing_that_isn_t_configured() -> None:
    async with service(limits={"message_size_bytes": 12345}) as relay, relay.connect() as client:
        await client.reply()
        lines = (await client.ask("EHLO me")).split("\n")
    offered = {line[4:] for line in lines[1:]}
    assert offered == {
        "SIZE 12345", "8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES", "DSN", "DELIVERBY", "MT-PRIORITY"
    }  # fmt: skip


async def test_a_submission_carries_all_that_the_client_said() -> None:
    async with service(listener(lane="otp")) as relay, relay.session() as client:
        await client.run(
            "MAIL FROM:<A@x.test> RET=HDRS ENVID=Id+2B1 BODY=8BITMIME MT-PRIORITY=6 BY=60;R SMTPUTF8 SIZE=5",
            "RCPT TO:<B@x.test> NOTIFY=FAILURE,DELAY ORCPT=rfc822;B@x.test",
            "DATA",
        )
        await client.ask("body\r\n.")
        (taken,) = relay.recorder.taken
    envelope = taken.envelope
    assert envelope.sender == "A@x.test"
    assert envelope.recipients == (Recipient("B@x.test", frozenset({"FAILURE", "DELAY"}), "rfc822;B@x.test"),)
    assert (envelope.body, envelope.smtputf8, envelope.ret, envelope.envid) == ("8BITMIME", True, "HDRS", "Id+2B1")
    assert (envelope.priority, envelope.deliver_by) == (6, DeliverBy(60, "R"))
    assert (taken.content, taken.client, taken.helo) == (b"body\r\n", "127.0.0.1", "client.test")
    assert (taken.protocol, taken.listener.lane, taken.user) == ("ESMTP", "otp", None)
    assert 0 <= taken.receive_s < PATIENCE_S
    assert 0 <= time.monotonic() - taken.final_dot < PATIENCE_S


async def test_helo_is_plain_smtp_and_its_name_is_made_printable() -> None:
    async with service() as relay, relay.connect() as client:
        await client.reply()
        assert await client.ask(b"HELO \x1b[2Jm\xff\xe4") == "250 relay.test"
        await up_to_data(client)
        await client.ask(".")
        (taken,) = relay.recorder.taken
    assert (taken.protocol, taken.helo) == ("SMTP", "?[2Jm??")


async def test_the_null_sender_is_no_sender() -> None:
    async with service() as relay, relay.session() as client:
        await client.run("MAIL FROM:<>", "RCPT TO:<b@x.test>", "DATA", "bounce\r\n.")
        assert relay.recorder.taken[0].envelope.sender == ""


async def test_a_recipient_named_twice_gets_one_mail() -> None:
    async with service() as relay, relay.session() as client:
        replies = await client.run(
            "MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "RCPT TO:<b@X.TEST>", "RCPT TO:<B@x.test>"
        )
        assert [reply[:3] for reply in replies] == ["250"] * 4
        await client.run("DATA", ".")
        assert [each.address for each in relay.recorder.taken[0].envelope.recipients] == ["b@x.test", "B@x.test"]


async def test_postmaster_without_a_domain_is_this_host_s() -> None:
    async with service() as relay, relay.session() as client:
        await client.run("MAIL FROM:<a@x.test>", "RCPT TO:<Postmaster>", "DATA", ".")
        assert relay.recorder.taken[0].envelope.recipients[0].address == "Postmaster@relay.test"


# Storing.


async def test_whatever_goes_wrong_while_storing_is_451_and_the_session_goes_on() -> None:
    async def fail_once(submission: Submission) -> None:
        if relay.recorder.begun == 1:
            raise OSError(28, f"No space left on device: {submission.content!r}")

    async with service(before=fail_once) as relay, relay.session() as client:
        await up_to_data(client)
        assert await client.ask(".") == "451 4.3.0 Trouble on this side, try again later"
        await up_to_data(client)
        assert (await client.ask(".")).startswith("250 2.0.0")
        assert relay.heard.reasons == ["store"]


async def test_trouble_in_the_session_itself_is_421() -> None:
    def fail() -> Reply | None:
        raise RuntimeError(SECRET)

    async with service(admit=fail) as relay, relay.session() as client:
        assert (await client.ask("MAIL FROM:<a@x.test>")).startswith("421 4.3.0 Trouble")
        assert await client.everything() == b""


async def test_a_refusal_is_passed_on_as_one_clean_line() -> None:
    async def refuse(_: Submission) -> None:
        raise Refused(Reply(554, "5.6.0 no\r\n250 2.0.0 queued ä " + "x" * 600))

    async with service(before=refuse) as relay, relay.session() as client:
        await up_to_data(client)
        answer = await client.ask(".")
        assert answer.startswith("554 5.6.0 no??250 2.0.0 queued ? x")
        assert len(answer) <= 510
        assert await client.ask("NOOP") == "250 2.0.0 Ok"
        assert relay.heard.reasons == ["policy"]


async def test_the_log_names_the_failure_but_nothing_of_the_mail(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def fail(submission: Submission) -> None:
        raise ValueError(whole(submission.content).decode())

    async with service(before=fail) as relay, relay.session() as client:
        await up_to_data(client)
        await client.ask(f"Subject: {SECRET}\r\n.")
    assert "event=accept_failed error=ValueError where=" in caplog.text
    assert SECRET not in caplog.text
    assert "x.test" not in caplog.text


@pytest.mark.parametrize("leave", ["fin", "rst", "quit"])
async def test_a_client_that_leaves_while_its_mail_is_stored_has_its_mail_stored(leave: str) -> None:
    storing, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(_: Submission) -> None:
        storing.set()
        await go_on.wait()

    async with service(before=slowly) as relay, relay.session() as client:
        await up_to_data(client)
        await client.send(b"kept\r\n.\r\n" + (b"QUIT\r\n" if leave == "quit" else b""))
        await asyncio.wait_for(storing.wait(), PATIENCE_S)
        if leave == "rst":
            reset(client)
        elif leave == "fin":
            client.writer.write_eof()
        async with relay.session():
            pass  # by now the relay knows that the first client has gone
        go_on.set()
        await relay.recorder.wait_for(1)
        if leave != "rst":
            received = await client.everything()
            assert received.startswith(b"250 2.0.0 queued as id-1\r\n")
            assert received.endswith(b"221 2.0.0 Bye\r\n") == (leave == "quit")
        await relay.quiet()
    assert relay.recorder.taken[0].content == b"kept\r\n"


async def test_all_of_it_and_a_fin_in_one_go_is_stored_and_answered() -> None:
    async with service() as relay, relay.connect() as client:
        await client.send(b"EHLO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\nx\r\n.\r\n")
        client.writer.write_eof()
        assert (await client.everything()).endswith(b"\r\n250 2.0.0 queued as id-1\r\n")
    assert len(relay.recorder.taken) == 1


@pytest.mark.parametrize("leave", ["fin", "rst"])
@pytest.mark.parametrize("sent", [b"", b"half a mess", b"all but the end\r\n.", b"all but the end\r\n.\r"])
async def test_a_client_that_hangs_up_inside_data_leaves_nothing(
    leave: str, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with service() as relay, relay.session() as client:
        await up_to_data(client)
        await client.send(sent)
        if leave == "rst":
            reset(client)
        else:
            client.writer.write_eof()
            assert await client.everything() == b""
        await relay.quiet()
    assert relay.recorder.begun == 0
    assert caplog.records == []


@pytest.mark.parametrize("sent", [b"", b"EHLO m", b"EHLO me\r\nMAIL FROM:<a@x.test>\r\n", b"AUTH PLAIN\r\n"])
async def test_a_client_that_just_goes_away_leaves_nothing(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with service(listener(auth="any")) as relay:
        async with relay.connect() as client:
            await client.reply()
            await client.send(b"EHLO me\r\n" + sent)
            reset(client)
        await relay.quiet()
    assert caplog.records == []


# Patience.


@pytest.mark.parametrize(
    ("limits", "before"),
    [
        ({"command_timeout_s": 0.2}, []),
        ({"command_timeout_s": 0.2}, [b"EHLO me\r\n"]),
        ({"command_timeout_s": 0.2}, [b"EHLO me\r\n", b"AUTH LOGIN\r\n"]),
        ({"data_timeout_s": 0.2}, [b"EHLO me\r\n", b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n"]),
    ],
)
async def test_byte_after_byte_doesn_t_buy_time(limits: dict[str, float], before: list[bytes]) -> None:
    async with service(listener(auth="any"), limits=limits) as relay, relay.connect() as client:
        for each in before:
            await client.send(each)
        dribble = asyncio.create_task(forever(client, b"N"))
        received = await client.everything()
        dribble.cancel()
        await relay.quiet()
    assert received.endswith(b"421 4.4.2 Timed out waiting for the client\r\n")
    assert relay.heard.reasons == ["timeout"]
    assert relay.recorder.begun == 0


async def test_noop_for_ever_doesn_t_buy_time_either() -> None:
    async with service(limits={"command_timeout_s": 0.1}) as relay, relay.session() as client:
        pings = asyncio.create_task(forever(client, b"NOOP\r\n"))
        received = await client.everything()
        pings.cancel()
    assert b"250 2.0.0 Ok\r\n" in received
    assert received.endswith(b"421 4.4.2 Timed out waiting for the client\r\n")


async def forever(client: Client, data: bytes) -> None:
    while True:
        client.writer.write(data)
        await asyncio.sleep(0.03)


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"XYZZY\r\n", b"421 4.7.0 Too many errors\r\n"),
        (b"DATA\r\n", b"421 4.7.0 Too many errors\r\n"),
        (b"NOOP\r\n", b"421 4.7.0 Too many commands without a message\r\n"),
        (b"MAIL FROM:<a@x.test>\r\nRCPT TO:<x>\r\nRCPT TO:<>\r\n", b"421 4.7.0 Too many errors\r\n"),
    ],
)
async def test_a_session_of_errors_or_idle_talk_ends(line: bytes, reply: bytes) -> None:
    async with service() as relay, relay.session() as client:
        talk = asyncio.create_task(client.send(line * 1500))
        received = bytearray()
        while not received.endswith(reply):
            piece = await asyncio.wait_for(client.reader.read(65536), PATIENCE_S)
            assert piece
            received += piece
        await talk


async def test_mail_keeps_a_session_alive() -> None:
    async with service() as relay, relay.session() as client:
        for _ in range(5):
            await client.send(b"NOOP\r\n" * 400 + b"XYZZY\r\n" * 30)
            for _ in range(430):
                await client.reply()
            await up_to_data(client)
            assert (await client.ask(".")).startswith("250 2.0.0")
    assert len(relay.recorder.taken) == 5


async def test_idle_clients_delay_no_other() -> None:
    async with service() as relay, relay.session(), relay.connect() as half, relay.session() as client:
        await half.send(b"EHL")
        await up_to_data(client)
        assert (await client.ask(".")).startswith("250 2.0.0")


# Limits and admission.


async def test_one_connection_too_many_is_refused() -> None:
    async with service(limits={"connections": 2}) as relay, relay.session() as first, relay.session():
        async with relay.connect() as third:
            assert await third.everything() == b"421 4.7.0 Too many connections\r\n"
        assert relay.heard.reasons == ["connections"]
        await first.ask("QUIT")
        await first.everything()
        async with relay.session() as again:
            assert (await again.ask("NOOP")).startswith("250")


async def test_each_client_has_its_own_number_of_connections() -> None:
    async with service(limits={"connections_per_client": 1}) as relay, relay.session() as first:
        async with relay.connect() as second:
            assert await second.everything() == b"421 4.7.0 Too many connections\r\n"
        assert (await first.ask("QUIT")).startswith("221")
        await relay.quiet()
        async with relay.session() as again:
            assert (await again.ask("NOOP")).startswith("250")


@pytest.mark.parametrize("answer", [Reply(452, "4.3.1 The queue is full"), Reply(421, "4.3.2 Not now")])
async def test_admission_is_asked_before_mail_and_before_data(answer: Reply) -> None:
    admitted: list[Reply | None] = [None, answer, answer]
    async with service(admit=lambda: admitted.pop(0)) as relay, relay.session() as client:
        assert [each[:3] for each in await client.run(*ENVELOPE)] == ["250", "250"]
        assert await client.ask("DATA") == str(answer)
        if answer.code == 421:
            assert await client.everything() == b""
        else:
            await client.ask("RSET")
            assert await client.ask("MAIL FROM:<a@x.test>") == str(answer)
        assert set(relay.heard.reasons) == {"busy"}


@pytest.mark.parametrize("recipient", ["<b@x.test>", "<b@>", "<{}@x.test>"], ids=["repeated", "bad", "too many"])
async def test_a_message_has_only_so_many_rcpts_whatever_comes_of_them(recipient: str) -> None:
    async with service(limits={"recipients": 10}) as relay, relay.session() as client:
        await client.ask("MAIL FROM:<a@x.test>")
        rcpts = "".join(f"RCPT TO:{recipient.format(at)}\r\n" for at in range(2_000))
        await client.send(rcpts.encode())
        received = (await client.everything()).decode().splitlines()
        assert 1_000 <= len(received) <= 1_011
        assert received[-1].startswith("421 4.")


async def test_thousands_of_pipelined_commands_are_answered_each() -> None:
    async with service() as relay, relay.session() as client:
        await client.send(b"NOOP\r\n" * 900)
        for _ in range(900):
            assert (await client.reply()).startswith("250")
        assert relay.server.load().held_back_s["turn"] > 0
