"""The dialogue as values, without a socket: what each command is answered, and what the session does next."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.model import Limits
from relay.intake import replies
from relay.intake.answer import Answer, Credentials
from relay.intake.dialogue import Dialogue
from relay.intake.peer import Peer, peer_at
from relay.intake.types import Settings
from relay.mail.reply import Reply
from tests.intake.harness import listener

BUSY = Reply(452, "4.3.1 not now")
LOCAL, REMOTE = peer_at("127.0.0.1"), peer_at("192.0.2.1")


def dialogue(*lines: bytes, peer: Peer = LOCAL, busy: list[Reply | None] | None = None, **options: Any) -> Dialogue:
    """A dialogue in which these lines were answered 2yz. `busy`: admission's answers, in their order."""
    made = Dialogue(
        listener(**options), peer, Settings(Limits(recipients=2), "relay.test"), lambda: busy.pop(0) if busy else None
    )
    for line in lines:
        reply = made.answer(line).reply
        assert reply is not None
        assert reply.positive, line
    return made


MAIL = (b"EHLO me", b"MAIL FROM:<a@x.test>")
RCPT = (*MAIL, b"RCPT TO:<b@x.test>")


# Order.


@pytest.mark.parametrize(
    ("before", "line", "reply", "reason"),
    [
        ((), b"MAIL FROM:<a@x.test>", replies.HELLO_FIRST, "sequence"),
        ((), b"RCPT TO:<a@x.test>", replies.HELLO_FIRST, "sequence"),
        ((b"EHLO me",), b"RCPT TO:<a@x.test>", replies.MAIL_FIRST, "sequence"),
        (MAIL, b"MAIL FROM:<a@x.test>", replies.NESTED_MAIL, "sequence"),
        (MAIL, b"DATA", replies.RCPT_FIRST, "sequence"),
        (RCPT, b"DATA now", replies.NO_ARGUMENT, "syntax"),
        ((*RCPT, b"RSET"), b"DATA", replies.MAIL_FIRST, "sequence"),
        ((*RCPT, b"EHLO again"), b"DATA", replies.MAIL_FIRST, "sequence"),
        ((), b"XYZZY", replies.UNKNOWN, "syntax"),
        ((), b"STARTTLS", replies.NOT_OFFERED, "tls"),
        ((b"EHLO me",), b"AUTH PLAIN", replies.NOT_OFFERED, "sequence"),
    ],
)
def test_a_command_that_may_not_come_now_is_refused_with_its_reason(
    before: tuple[bytes, ...], line: bytes, reply: Reply, reason: str
) -> None:
    answer = dialogue(*before).answer(line)
    assert (answer.reply, answer.reason, answer.then) == (reply, reason, "read on")
    assert answer.is_error is (reason in ("syntax", "sequence"))


def test_data_with_a_recipient_asks_the_session_to_receive_the_content() -> None:
    talk = dialogue(*RCPT)
    assert not talk.idle
    assert talk.answer(b"DATA") == Answer(replies.START_DATA, then="receive content")
    envelope = talk.end_transaction()
    assert (envelope.sender, [each.address for each in envelope.recipients]) == ("a@x.test", ["b@x.test"])
    assert talk.idle


def test_quit_and_http_end_the_session() -> None:
    assert dialogue().answer(b"QUIT") == Answer(replies.BYE, then="close")
    answer = dialogue().answer(b"GET / HTTP/1.1")
    assert (answer.reply, answer.then) == (replies.NOT_SMTP, "close")


# Recipients.


def test_a_bad_recipient_is_refused_and_is_no_error_of_the_client() -> None:
    talk = dialogue(*MAIL)
    answer = talk.answer(b"RCPT TO:<no address>")
    assert (answer.reason, answer.is_error) == ("address", False)
    assert talk.answer(b"DATA").reply == replies.NO_VALID_RECIPIENTS


def test_recipients_past_the_limit_are_refused_and_known_ones_are_not() -> None:
    talk = dialogue(*RCPT, b"RCPT TO:<c@x.test>")
    assert talk.answer(b"RCPT TO:<d@x.test>").reply == replies.TOO_MANY_RECIPIENTS
    assert talk.answer(b"RCPT TO:<b@X.TEST>").reply == replies.RECIPIENT_OK


# Admission.


@pytest.mark.parametrize(("before", "line"), [((b"EHLO me",), b"MAIL FROM:<a@x.test>"), (RCPT, b"DATA")])
@pytest.mark.parametrize(("reply", "then"), [(BUSY, "read on"), (replies.SHUTTING_DOWN, "close")])
def test_admission_is_asked_at_mail_and_at_data(
    before: tuple[bytes, ...], line: bytes, reply: Reply, then: str
) -> None:
    talk = dialogue(*before)
    asked = dialogue(*before, busy=[None] * (len(before) > 1) + [reply])
    assert talk.answer(line).reason is None
    answer = asked.answer(line)
    assert (answer.reply, answer.reason, answer.then) == (reply, "busy", then)


# TLS and AUTH.


def test_inside_tls_the_client_begins_anew() -> None:
    talk = dialogue(*RCPT, tls="starttls")
    assert talk.answer(b"STARTTLS") == Answer(replies.READY_FOR_TLS, then="start TLS")
    talk.secured()
    assert (talk.helo, talk.tls) == ("", True)
    assert talk.answer(b"DATA").reply == replies.HELLO_FIRST
    assert talk.answer(b"EHLO me").reply == Reply(250, "relay.test")
    assert talk.answer(b"STARTTLS").reply == replies.ALREADY_TLS
    assert talk.protocol == "ESMTPS"


def test_a_required_login_comes_before_mail_and_inside_tls_for_a_remote_client() -> None:
    talk = dialogue(b"EHLO me", peer=REMOTE, auth="required", tls="starttls")
    assert talk.answer(b"MAIL FROM:<a@x.test>").reply == replies.TLS_FIRST
    assert talk.answer(b"AUTH PLAIN").reply == replies.AUTH_NEEDS_TLS
    talk.secured()
    talk.answer(b"EHLO me")
    assert talk.answer(b"MAIL FROM:<a@x.test>").reply == replies.AUTH_FIRST
    talk.login.succeeded("app")
    assert talk.answer(b"MAIL FROM:<a@x.test>").reply == replies.SENDER_OK
    assert talk.protocol == "ESMTPSA"


def b64(text: bytes) -> bytes:
    return b64encode(text)


@pytest.mark.parametrize(
    ("lines", "challenges"),
    [
        ([b"AUTH PLAIN " + b64(b"\0u\0p")], []),
        ([b"AUTH PLAIN", b64(b"as\0u\0p")], [b""]),
        ([b"AUTH LOGIN", b64(b"u"), b64(b"p")], [b"Username:", b"Password:"]),
        ([b"auth login " + b64(b"u"), b64(b"p")], [b"Password:"]),
    ],
)
def test_an_exchange_ends_in_credentials_to_verify(lines: list[bytes], challenges: list[bytes]) -> None:
    talk = dialogue(b"EHLO me", auth="any")
    *asked, last = (talk.answer(line) for line in lines)
    assert [answer.reply for answer in asked] == [Reply(334, b64(each).decode()) for each in challenges]
    assert last == Answer(None, then=Credentials("u", b"p"))
    assert talk.line_limit is None


@pytest.mark.parametrize("response", [b"*", b"!!", b64(b"no parts"), b"\xff"])
def test_an_exchange_that_fails_is_over(response: bytes) -> None:
    talk = dialogue(b"EHLO me", auth="any")
    talk.answer(b"AUTH PLAIN")
    assert talk.line_limit is not None
    answer = talk.answer(response)
    assert answer.reply is not None
    assert (answer.reply.code, answer.is_error) == (501, True)
    assert talk.answer(b"NOOP").reply == replies.OK


def test_a_line_that_can_not_be_read_ends_an_exchange() -> None:
    talk = dialogue(b"EHLO me", auth="any")
    talk.answer(b"AUTH PLAIN")
    assert talk.bad_line(replies.LINE_TOO_LONG).reply == replies.LINE_TOO_LONG
    assert talk.answer(b"NOOP").reply == replies.OK


# Any line.


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([*RCPT, b"DATA", b"AUTH LOGIN", b"RSET"]))))
def test_whatever_comes_is_answered_with_a_reply_and_at_most_one_action(lines: list[bytes]) -> None:
    talk = dialogue(auth="any")
    for line in lines:
        answer = talk.answer(line)
        assert answer.reply is not None or isinstance(answer.then, Credentials)
        assert answer.reply is None or not answer.reply.positive or answer.reason is None
        assert answer.then != "start TLS"
