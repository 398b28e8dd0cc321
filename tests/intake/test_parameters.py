"""What MAIL and RCPT may say."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.intake.parameters import BadCommand, Mail, parse_mail, parse_rcpt
from relay.mail.envelope import DeliverBy, Recipient

A = "a@example.com"
GOOD_MAIL: list[tuple[str, dict[str, Any]]] = [
    ("FROM:<a@example.com>", {}),
    ("from:<a@example.com>", {}),
    ("FROM: <a@example.com>", {}),
    ("FROM:a@example.com", {}),
    ("FROM:a@example.com SIZE=7", {"size_bytes": 7}),
    ("FROM:<@x.test,@y.test:a@example.com>", {}),
    ("FROM:<>", {"sender": ""}),
    ("FROM:<a@example.com> size=100", {"size_bytes": 100}),
    ("FROM:<a@example.com>  SIZE=0   BODY=7BIT ", {"size_bytes": 0, "body": "7BIT"}),
    ("FROM:<a@example.com> BODY=8bitmime", {"body": "8BITMIME"}),
    ("FROM:<a@example.com> SMTPUTF8", {"smtputf8": True}),
    ("FROM:<jürgen@exämple.com> SMTPUTF8", {"sender": "jürgen@exämple.com", "smtputf8": True}),
    ("FROM:<a@example.com> RET=hdrs ENVID=QQ+2B314", {"ret": "HDRS", "envid": "QQ+2B314"}),
    ("FROM:<a@example.com> ENVID=" + "+2B" * 100, {"envid": "+2B" * 100}),
    ("FROM:<a@example.com> AUTH=<>", {}),
    ("FROM:<a@example.com> AUTH=b+40example.com", {}),
    ("FROM:<a@example.com> MT-PRIORITY=4", {"priority": 4}),
    ("FROM:<a@example.com> mt-priority=-9", {"priority": -9}),
    ("FROM:<a@example.com> BY=60;R", {"deliver_by": DeliverBy(60, "R")}),
    ("FROM:<a@example.com> BY=-5;nt", {"deliver_by": DeliverBy(-5, "N", trace=True)}),
]


@pytest.mark.parametrize(("argument", "said"), GOOD_MAIL)
def test_mail_has_a_sender_and_parameters(argument: str, said: dict[str, Any]) -> None:
    assert parse_mail(argument) == Mail(**{"sender": A, **said})


BAD_MAIL = [
    ("", 501, "5.5.4"),
    ("<a@example.com>", 501, "5.5.4"),
    ("TO:<a@example.com>", 501, "5.5.4"),
    ("FROM:", 501, "5.1.7"),
    ("FROM:<a@example.com", 501, "5.1.7"),
    ("FROM:<a@>", 501, "5.1.7"),
    ("FROM:<@example.com>", 501, "5.1.7"),
    ("FROM:<a>", 501, "5.1.7"),
    ("FROM:<a b@example.com>", 501, "5.1.7"),
    ("FROM:<a>b@example.com>", 501, "5.1.7"),
    ("FROM:<a@example.com>SIZE=3", 501, "5.1.7"),
    ("FROM:<a\rb@example.com>", 501, "5.1.7"),
    ("FROM:<a\0b@example.com>", 501, "5.1.7"),
    ("FROM:<<a@example.com>>", 501, "5.1.7"),
    ("FROM:<jürgen@example.com>", 553, "5.6.7"),
    ("FROM:<j\udcfcrgen@example.com> SMTPUTF8", 553, "5.6.7"),
    ("FROM:<" + "a" * 1001 + "@example.com>", 500, "5.5.6"),
    ("FROM:<a@example.com> SIZE", 501, "5.5.4"),
    ("FROM:<a@example.com> SIZE=", 501, "5.5.4"),
    ("FROM:<a@example.com> SIZE=x", 501, "5.5.4"),
    ("FROM:<a@example.com> SIZE=-1", 501, "5.5.4"),
    ("FROM:<a@example.com> SIZE=1 SIZE=2", 501, "5.5.4"),
    ("FROM:<a@example.com> SIZE=1 size=1", 501, "5.5.4"),
    ("FROM:<a@example.com> AUTH=<> AUTH=<>", 501, "5.5.4"),
    ("FROM:<a@example.com> BODY=BINARYMIME", 501, "5.5.4"),
    ("FROM:<a@example.com> SMTPUTF8=yes", 501, "5.5.4"),
    ("FROM:<a@example.com> RET=SOME", 501, "5.5.4"),
    ("FROM:<a@example.com> ENVID=a+0Ab", 501, "5.5.4"),
    ("FROM:<a@example.com> ENVID=a+b", 501, "5.5.4"),
    ("FROM:<a@example.com> ENVID=ä", 501, "5.5.4"),
    ("FROM:<a@example.com> ENVID=" + "e" * 101, 501, "5.5.4"),
    ("FROM:<a@example.com> ENVID=" + "+2B" * 101, 501, "5.5.4"),
    ("FROM:<a@example.com> MT-PRIORITY=10", 501, "5.5.4"),
    ("FROM:<a@example.com> MT-PRIORITY=+4", 501, "5.5.4"),
    ("FROM:<a@example.com> MT-PRIORITY", 501, "5.5.4"),
    ("FROM:<a@example.com> BY=0;R", 501, "5.5.4"),
    ("FROM:<a@example.com> BY=-1;R", 501, "5.5.4"),
    ("FROM:<a@example.com> BY=60", 501, "5.5.4"),
    ("FROM:<a@example.com> BY=60;X", 501, "5.5.4"),
    ("FROM:<a@example.com> BY=1234567890;R", 501, "5.5.4"),
    ("FROM:<a@example.com> =1", 501, "5.5.4"),
    ("FROM:<a@example.com> XSHADOW=1", 555, "5.5.4"),
    ("FROM:<a@example.com> NOTIFY=NEVER", 555, "5.5.4"),
    ("FROM:<a@example.com> b@example.com", 501, "5.5.4"),
]


@pytest.mark.parametrize(("argument", "code", "enhanced"), BAD_MAIL)
def test_a_mail_that_can_t_be_meant_is_refused_without_being_quoted(argument: str, code: int, enhanced: str) -> None:
    with pytest.raises(BadCommand) as refused:
        parse_mail(argument)
    reply = refused.value.reply
    assert (reply.code, reply.enhanced) == (code, enhanced)
    assert "example" not in reply.text


GOOD_RCPT: list[tuple[str, Recipient]] = [
    ("TO:<a@example.com>", Recipient(A)),
    ("to: <a@example.com>", Recipient(A)),
    ("TO:a@example.com NOTIFY=NEVER", Recipient(A, frozenset({"NEVER"}))),
    ("TO:<a@example.com> notify=success,Delay", Recipient(A, frozenset({"SUCCESS", "DELAY"}))),
    ("TO:<a@example.com> ORCPT=rfc822;Bob+40Example.com", Recipient(A, orcpt="rfc822;Bob+40Example.com")),
    ("TO:<a@example.com> ORCPT=rfc822;" + "b" * 500, Recipient(A, orcpt="rfc822;" + "b" * 500)),
    ("TO:<a@example.com> ORCPT=utf-8;j\\x{FC}rgen@example.com", Recipient(A, orcpt="utf-8;j\\x{FC}rgen@example.com")),
    ("TO:<a@[192.0.2.1]>", Recipient("a@[192.0.2.1]")),
    ("TO:<Postmaster>", Recipient("Postmaster")),
]


@pytest.mark.parametrize(("argument", "recipient"), GOOD_RCPT)
def test_rcpt_has_a_recipient_and_what_to_report(argument: str, recipient: Recipient) -> None:
    assert parse_rcpt(argument, smtputf8=False) == recipient


BAD_RCPT = [
    ("", 501, "5.5.4"),
    ("FROM:<a@example.com>", 501, "5.5.4"),
    ("TO:<>", 553, "5.1.3"),
    ("TO:<a@example.com> <b@example.com>", 501, "5.5.4"),
    ("TO:<jürgen@example.com>", 553, "5.6.7"),
    ("TO:<a@example.com> NOTIFY", 501, "5.5.4"),
    ("TO:<a@example.com> NOTIFY=NEVER,DELAY", 501, "5.5.4"),
    ("TO:<a@example.com> NOTIFY=SUCCESS,,DELAY", 501, "5.5.4"),
    ("TO:<a@example.com> NOTIFY=ALWAYS", 501, "5.5.4"),
    ("TO:<a@example.com> ORCPT=bob", 501, "5.5.4"),
    ("TO:<a@example.com> ORCPT=rfc822;", 501, "5.5.4"),
    ("TO:<a@example.com> ORCPT=rfc822;a+0D+0ABcc:x", 501, "5.5.4"),
    ("TO:<a@example.com> ORCPT=utf-8;a\tb", 501, "5.5.4"),
    ("TO:<a@example.com> ORCPT=rfc822;" + "b" * 501, 501, "5.5.4"),
    ("TO:<a@example.com> ORCPT=utf-8;" + "ü" * 501, 501, "5.5.4"),
    ("TO:<a@example.com> ORCPT=rfc822;a ORCPT=rfc822;b", 501, "5.5.4"),
    ("TO:<a@example.com> SIZE=3", 555, "5.5.4"),
]


@pytest.mark.parametrize(("argument", "code", "enhanced"), BAD_RCPT)
def test_a_rcpt_that_can_t_be_meant_is_refused(argument: str, code: int, enhanced: str) -> None:
    with pytest.raises(BadCommand) as refused:
        parse_rcpt(argument, smtputf8=False)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (code, enhanced)


def test_utf8_recipients_pass_once_mail_said_smtputf8() -> None:
    assert parse_rcpt("TO:<jürgen@example.com>", smtputf8=True).address == "jürgen@example.com"


@given(st.text(st.sampled_from(string.printable + "ä<>@=;+\r\n\0"), max_size=60), st.booleans())
def test_any_argument_is_parsed_or_refused_with_a_5xx(text: str, smtputf8: bool) -> None:
    for parse in (lambda: parse_mail("FROM:" + text), lambda: parse_rcpt("TO:" + text, smtputf8=smtputf8)):
        outcome = attempt(parse)
        if isinstance(outcome, BadCommand):
            assert outcome.reply.permanent
            assert outcome.reply.enhanced
        else:
            address = outcome.sender if isinstance(outcome, Mail) else outcome.address
            assert not set("\r\n\0") & set(address)
            assert '"' in address or not set(" <>") & set(address)


def attempt(parse: Callable[[], Mail | Recipient]) -> Mail | Recipient | BadCommand:
    try:
        return parse()
    except BadCommand as bad:
        return bad
