"""The transaction as a state machine, against a server that is a second, independent reading of the RFCs.

The server parses the bytes that the transaction writes, answers each command as the test says, and knows which
recipients it really accepted. Whatever it answers, the transaction must have the same results.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.mail.envelope import DeliverBy, Envelope, Recipient
from relay.mail.reply import Reply
from relay.upstream.results import LOST
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.commands import Commands, Mail, commands, unfit
from relay.upstream.smtp.transaction import EnvelopeMode, Transaction

CONTENT = b"Subject: x\r\n\r\n.one\r\n..two\r\nend\r\n"
MODES = {
    "pipelined": EnvelopeMode(pipelined=True, chunked=False),
    "chunked": EnvelopeMode(pipelined=True, chunked=True),
    "one by one": EnvelopeMode(pipelined=False, chunked=False),
}


def load(*addresses: str) -> Mail:
    recipients = tuple(Recipient(address) for address in addresses)
    return Mail(Envelope("a@example.com", recipients), list(enumerate(recipients)), len(CONTENT))


def transaction(mode: EnvelopeMode, *addresses: str) -> Transaction:
    written = commands(load(*addresses), Capabilities())
    return Transaction(written.mail, written.rcpts, mode)


@dataclass
class Server:
    """Answers as the test says, and keeps what it really accepted."""

    mail: int
    rcpts: list[int]
    data: int
    dot: int
    taken: bytes | None = None
    accepted: list[int] = field(default_factory=list)
    _buffer: bytes = b""
    _asked: int = 0
    _mail_ok: bool = False
    _in_data: bool = False

    def feed(self, data: bytes) -> list[Reply]:
        self._buffer += data
        replies = []
        while (reply := self._next()) is not None:
            replies.append(reply)
        return replies

    def _next(self) -> Reply | None:
        if self._in_data:
            return self._dot()
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found:
            return None
        if line.startswith(b"BDAT "):
            return self._bdat(int(line.split()[1]), rest)
        self._buffer = rest
        match line.split(b" ")[0]:
            case b"MAIL":
                self._mail_ok = 200 <= self.mail < 300
                return Reply(self.mail, "mail")
            case b"RCPT":
                code = self.rcpts[self._asked] if self._mail_ok else 503
                if 200 <= code < 300:
                    self.accepted.append(self._asked)
                self._asked += 1
                return Reply(code, "rcpt")
            case b"DATA":
                self._in_data = self.data == 354
                return Reply(self.data, "data")
            case _:
                raise AssertionError(line)

    def _dot(self) -> Reply | None:
        if self._buffer.startswith(b".\r\n"):
            body, rest = b"", self._buffer[3:]
        else:
            body, found, rest = self._buffer.partition(b"\r\n.\r\n")
            if not found:
                return None
            body += b"\r\n"
        self._buffer, self._in_data = rest, False
        unstuffed = body[1:] if body.startswith(b".") else body
        return self._content(unstuffed.replace(b"\r\n..", b"\r\n."))

    def _bdat(self, size: int, rest: bytes) -> Reply | None:
        if len(rest) < size:
            return None
        self._buffer = rest[size:]
        return self._content(rest[:size])

    def _content(self, content: bytes) -> Reply:
        if not self.accepted:
            return Reply(554, "no valid recipients")
        if 200 <= self.dot < 300:
            self.taken = content
        return Reply(self.dot, "dot")


def play(mode: EnvelopeMode, server: Server, sizes: list[int], stop_after: int | None = None) -> Transaction:
    """Run the dialogue, bytes reaching the server in pieces of `sizes`; `stop_after` replies the connection breaks."""
    running = transaction(mode, *(f"r{at}@example.net" for at in range(len(server.rcpts))))
    outgoing, turn, answered = bytearray(running.begin()), 0, 0
    while True:
        if running.wants_content:
            outgoing += b"".join(running.send_content([CONTENT[:14], CONTENT[14:]]))
        if running.done:
            return running
        if answered == stop_after:
            running.connection_lost(LOST)
            return running
        assert outgoing, "a standstill"
        size = sizes[turn % len(sizes)]
        piece, outgoing, turn = bytes(outgoing[:size]), outgoing[size:], turn + 1
        for reply in server.feed(piece):
            if running.wants_content:
                outgoing += b"".join(running.send_content([CONTENT[:14], CONTENT[14:]]))
            if answered == stop_after:
                break
            outgoing += running.receive(reply)
            answered += 1


CODES = st.sampled_from([250, 251, 252, 450, 451, 452, 550, 552, 554])
SERVERS = st.builds(
    Server,
    mail=st.sampled_from([250, 250, 250, 451, 550]),
    rcpts=st.lists(CODES, min_size=1, max_size=5),
    data=st.sampled_from([354, 354, 354, 451, 554]),
    dot=st.sampled_from([250, 250, 251, 299, 451, 452, 550, 554]),
)


def outcome(code: int) -> str:
    return "sent" if code < 300 else "deferred" if code < 500 else "refused"


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@given(server=SERVERS, sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_each_recipients_result_is_the_servers_reply_to_it(
    mode: EnvelopeMode, server: Server, sizes: list[int]
) -> None:
    running = play(mode, server, sizes)
    results = {result.position: result.outcome for result in running.results}
    for position, code in enumerate(server.rcpts):
        if server.mail >= 300:
            assert results[position] == outcome(server.mail)
        elif code >= 300:
            assert results[position] == outcome(code)
        elif not mode.chunked and server.data != 354:
            assert results[position] == outcome(server.data)
        else:
            assert results[position] == outcome(server.dot)
    assert (server.taken == CONTENT) == ("sent" in results.values())


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@given(server=SERVERS, stop_after=st.integers(0, 8))
@settings(max_examples=150, deadline=None)
def test_a_loss_is_ambiguous_only_behind_the_content(mode: EnvelopeMode, server: Server, stop_after: int) -> None:
    running = play(mode, server, [1000], stop_after)
    results = {result.position: result.outcome for result in running.results}
    assert set(results) == set(range(len(server.rcpts)))
    if server.taken is not None:
        # It has the message: whoever was accepted is sent to, or may be; never free to be sent to again.
        assert all(results[position] in ("sent", "ambiguous") for position in server.accepted)
    if not running.content_sent:
        assert "ambiguous" not in results.values()


@pytest.mark.parametrize("mode", [MODES["pipelined"], MODES["one by one"]])
def test_a_refusal_in_the_middle_is_never_taken_for_anothers(mode: EnvelopeMode) -> None:
    running = play(mode, Server(250, [250, 550, 451, 250], 354, 250), [1000])
    assert [result.outcome for result in running.results] == ["sent", "refused", "deferred", "sent"]


def test_the_envelope_is_one_flight() -> None:
    flight = transaction(MODES["pipelined"], "a@example.net", "b@example.net").begin()
    assert flight == (b"MAIL FROM:<a@example.com>\r\nRCPT TO:<a@example.net>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")


def test_with_chunking_the_content_waits_for_nothing() -> None:
    running = transaction(MODES["chunked"], "a@example.net")
    running.begin()
    assert running.wants_content
    assert list(running.send_content([CONTENT])) == [b"BDAT %d LAST\r\n" % len(CONTENT), CONTENT]


def test_data_accepted_without_a_recipient_ends_with_an_empty_content() -> None:
    running = transaction(MODES["pipelined"], "a@example.net")
    running.begin()
    running.receive(Reply(250))
    running.receive(Reply(550))
    assert running.receive(Reply(354)) == b".\r\n"
    running.receive(Reply(554))
    assert running.done
    assert not running.content_sent


@pytest.mark.parametrize("code", [354, 220 + 100])
def test_a_3yz_to_mail_or_the_dot_is_no_success(code: int) -> None:
    running = transaction(MODES["pipelined"], "a@example.net")
    running.begin()
    for reply in (Reply(250), Reply(250), Reply(354)):
        running.receive(reply)
    running.send_content([CONTENT])
    running.receive(Reply(code))
    assert [result.outcome for result in running.results] == ["ambiguous"]


def test_250_to_data_breaks_the_session_before_anything_left() -> None:
    running = transaction(MODES["pipelined"], "a@example.net")
    running.begin()
    for reply in (Reply(250), Reply(250), Reply(250)):
        running.receive(reply)
    assert running.broken
    assert [result.outcome for result in running.results] == ["abandoned"]


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_421_ends_the_session_at_every_step(at: int) -> None:
    running = transaction(MODES["pipelined"], "a@example.net")
    running.begin()
    for reply in [Reply(250), Reply(250), Reply(354)][:at]:
        running.receive(reply)
    if running.wants_content:
        running.send_content([CONTENT])
    running.receive(Reply(421, "4.3.2 closing"))
    assert running.done
    assert running.broken
    assert [result.outcome for result in running.results] == ["deferred"]


def test_parameters_go_only_where_they_are_understood() -> None:
    recipient = Recipient("u@example.net", frozenset({"FAILURE", "DELAY"}), "rfc822;u@example.net")
    envelope = Envelope(
        "a@example.com",
        (recipient,),
        body="8BITMIME",
        smtputf8=True,
        ret="HDRS",
        envid="QQ+3D1",
        priority=4,
        deliver_by=DeliverBy(60, "R", trace=True),
    )
    one = Mail(envelope, [(0, recipient)], 812, deliver_by_s=58)
    assert commands(one, Capabilities()) == Commands(
        b"MAIL FROM:<a@example.com>\r\n",
        [(0, b"RCPT TO:<u@example.net>\r\n")],
        (),
    )
    everything = Capabilities.parse(
        ["PIPELINING", "SIZE 1000", "8bitmime", "SMTPUTF8", "DSN", "DELIVERBY 10", "MT-PRIORITY MIXER"]
    )
    assert commands(one, everything) == Commands(
        b"MAIL FROM:<a@example.com> SIZE=812 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+3D1 MT-PRIORITY=4 BY=58;RT\r\n",
        [(0, b"RCPT TO:<u@example.net> NOTIFY=DELAY,FAILURE ORCPT=rfc822;u@example.net\r\n")],
        (),
    )


@pytest.mark.parametrize("address", ["a\r\nRCPT TO:<b@c>", "a\nb@c", "a>b@c", "a\0@c"])
def test_an_address_cant_break_out_of_its_command(address: str) -> None:
    written = commands(load("good@c", address), Capabilities())
    assert written.rcpts == [(0, b"RCPT TO:<good@c>\r\n")]
    assert [(result.position, result.outcome, result.reply.code) for result in written.refused] == [(1, "refused", 553)]


def test_a_sender_cant_break_out_of_its_command() -> None:
    one = load("good@c")
    written = commands(one._replace(envelope=one.envelope._replace(sender="a\r\nDATA")), Capabilities())
    assert (written.mail, written.rcpts) == (b"", [])
    assert [result.reply.code for result in written.refused] == [553]


@pytest.mark.parametrize(
    ("one", "capabilities", "enhanced"),
    [
        (load("u@example.net"), Capabilities(size=True, size_bytes=10), "5.3.4"),
        (load("ü@example.net"), Capabilities(), "5.6.7"),
        (load("ü@example.net"), Capabilities(smtputf8=True), None),
        (load("u@example.net"), Capabilities(size=True), None),
        (load("u@example.net")._replace(eightbit=True), Capabilities(), "5.6.3"),
        (load("u@example.net")._replace(eightbit=True), Capabilities(eightbitmime=True), None),
        (load("u@example.net")._replace(utf8_head=True), Capabilities(eightbitmime=True), "5.6.7"),
        (load("u@example.net")._replace(utf8_head=True), Capabilities(smtputf8=True), None),
    ],
)
def test_a_load_that_doesnt_fit_is_not_offered(one: Mail, capabilities: Capabilities, enhanced: str | None) -> None:
    misfit = unfit(one, capabilities)
    assert (misfit.enhanced if misfit is not None else None) == enhanced
