"""The ESPs' mocks take what their vendors document, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.api import Reply, Request
from tests.support.esps import (
    VENDORS,
    Answer,
    Esp,
    Fault,
    Mail,
    brevo,
    graph,
    leadpush,
    mailgun,
    mailjet,
    mandrill,
    postmark,
    resend,
    sendgrid,
    ses,
    sparkpost,
)
from tests.support.esps.samples import BODY, RAW, SUBJECT, Body, form, good, put


def answer(esp: Esp, request: Request) -> Reply:
    reply = esp(request)
    assert isinstance(reply, Reply)
    return reply


@pytest.mark.parametrize("name", VENDORS)
def test_a_documented_request_is_read_and_answered(name: str) -> None:
    esp = Esp(name)
    reply = answer(esp, good(name))
    assert (esp.faults, reply.status // 100) == ([], 2)
    (mail,) = esp.mails
    assert mail.recipients == ("ann@example.net", "bob@example.net")
    assert (mail.sender, mail.subject) == ("shop@example.com", SUBJECT)
    assert (mail.text or "").replace("\r\n", "\n") == BODY
    if mail.raw is None:
        assert mail.header("x-ref") == "1"
        assert name == "leadpush" or (mail.sender_name, mail.attachments[0].data) == ("Shop, Inc.", b"%PDF")
    shown = json.dumps([reply.body if reply.body != b"" else None, *reply.headers])
    assert all(one in shown for one in mail.ids.values())
    assert set(mail.ids) == (set() if name == "graph" else set(mail.recipients))


@pytest.mark.parametrize("name", VENDORS)
def test_another_key_method_path_or_field_is_a_fault(name: str) -> None:
    esp = Esp(name, key=f"{VENDORS[name].KEY}x")
    reply = answer(esp, good(name))
    assert reply.status == {"resend": 403, "ses": 403, "mandrill": 500}.get(name, 401)
    right = good(name)
    esp = Esp(name)
    for wrong in (
        Request("PUT", right.path, right.headers, right.body, 0, 0.0, 0.0),
        Request("POST", f"{right.path}?x=1", right.headers, right.body, 0, 0.0, 0.0),
        Request("POST", "/x", right.headers, right.body, 0, 0.0, 0.0),
    ):
        esp(wrong)
    assert len(esp.faults) == 3
    if name not in ("mailgun", "graph"):
        answer(esp, good(name, lambda body: body.update(unknown=1)))
        assert "unknown" in esp.faults[3]
        answer(esp, good(name, lambda body: body.update({next(iter(body)): None})))
        assert "is null" in esp.faults[4]
    assert esp.mails == []


LONG = [{"email": f"a{at}@example.net"} for at in range(1001)]
FAULTS: list[tuple[str, Callable[[Body], None], str]] = [
    ("postmark", put("To", to=", ".join(f"a{at}@example.net" for at in range(50))), "51 recipients"),
    ("postmark", put("From", to="Shop, Inc. <shop@example.com>"), "no address"),
    ("postmark", put("From", to="=?utf-8?q?Shop?= <shop@example.com>"), "encoded word"),
    ("postmark", put("Headers", 0, "Name", to="X-PM-Tag"), "may not be set"),
    ("postmark", put("Headers", 0, "Value", to="a\nBcc: c@example.net"), "control"),
    ("postmark", put("Metadata", "a" * 21, to="1"), "Metadata"),
    ("sendgrid", put("personalizations", 0, "to", to=LONG), "1002 recipients"),
    ("sendgrid", put("personalizations", 0, "bcc", 0, "email", to="Ann@example.net"), "twice"),
    ("sendgrid", put("headers", "DKIM-Signature", to="v=1"), "may not be set"),
    ("sendgrid", put("headers", "X-Ref", to=1), "strings"),
    ("sendgrid", put("content", 0, "type", to="text/enriched"), "text/plain"),
    ("sendgrid", put("personalizations", 0, "cc", to=[]), "empty"),
    ("resend", put("to", to=[f"a{at}@example.net" for at in range(51)]), "1 to 50"),
    ("resend", put("tags", 0, "value", to="a b"), "tag"),
    ("resend", put("subject", to="a\r\nb"), "control"),
    ("resend", put("text", to="\ud800"), "surrogate"),
    ("brevo", put("headers", "idempotencyKey", to="one"), "UUID"),
    ("brevo", put("headers", "X-Name", to="Zoë"), "ASCII"),
    ("brevo", put("headers", "Message-ID", to="<1@example.com>"), "may not be set"),
    ("brevo", put("sender", "name", to="Zoë, Inc."), "drop"),
    ("mailjet", put("Messages", 0, "Headers", "Message-Id", to="<1@example.com>"), "may not be set"),
    ("mailjet", put("Messages", 0, "TrackOpens", to="no"), "TrackOpens"),
    ("mailjet", put("Messages", 0, "To", to=[{"Email": "ann@example.net", "Name": ""}]), "empty"),
    ("scaleway", put("subject", to="Your code"), "fewer"),
    ("scaleway", put("to", to=LONG[:11]), "12 recipients"),
    ("leadpush", put("from", to="Shop <shop@example.com>"), "no address"),
    ("leadpush", put("headers", "X_Ref", to="1"), "letters"),
    ("leadpush", put("cc", to=["c@example.net"]), "cc"),
    ("sparkpost", put("content", "email_rfc822", to=RAW.decode().replace("123456", "{{code}}")), "substituted"),
    ("mandrill", put("to", to=["Ann <ann@example.net>"]), "no address"),
    ("ses", put("FromEmailAddress", to="shop@example.com"), "replace"),
    ("ses", put("EmailTags", 0, "Value", to="a b"), "tag"),
    ("ses", put("Content", "Raw", "Data", to="a"), "base64"),
    ("ses", put("Destination", "ToAddresses", to=[f"a{at}@example.net" for at in range(51)]), "51 recipients"),
]


@pytest.mark.parametrize(("name", "change", "fault"), FAULTS)
def test_what_the_vendor_forbids_is_a_fault(name: str, change: Callable[[Body], None], fault: str) -> None:
    esp = Esp(name)
    assert answer(esp, good(name, change)).status >= 400
    assert fault in esp.faults[0]
    assert esp.mails == []


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ([("to", "ann@example.net"), ("message", RAW.decode())], "file"),
        ([("to", "ann@example.net")], "no message"),
        ([("message", RAW)], "0 recipients"),
        ([("to", "ann@example.net"), ("message", RAW), ("from", "a@example.com")], "from"),
        ([("to", "ann@example.net"), ("message", RAW), ("o:dkim", "maybe")], "o:dkim"),
        ([("to", "ann@example.net"), ("message", RAW), ("v:a", "x" * 16_384)], "16 kB"),
    ],
)
def test_mailgun_is_strict_about_its_form(parts: list[tuple[str, str | bytes]], fault: str) -> None:
    esp = Esp("mailgun")
    assert answer(esp, form(*parts)).status == 400
    assert fault in esp.faults[0]


def test_mailgun_reads_the_message_byte_for_byte() -> None:
    raw = RAW + b"--b-\r\n--b\n\x00\xff\r\n\r\n"
    esp = Esp("mailgun")
    answer(esp, form(("message", raw), ("to", "ann@example.net")))
    assert (esp.faults, esp.mails[0].raw) == ([], raw)


def test_ses_checks_the_signature_over_body_host_and_date() -> None:
    right = good("ses")
    wrong_host = [("host", "localhost:2") if name == "host" else (name, value) for name, value in right.headers]
    old = [(name, "20200101T000000Z" if name == "x-amz-date" else value) for name, value in right.headers]
    more = [*right.headers, ("x-amz-more", "1")]
    esp = Esp("ses")
    for headers, body in ((right.headers, right.body + b" "), (wrong_host, right.body), (old, right.body), (more, b"")):
        reply = answer(esp, Request("POST", right.path, headers, body, 0, 0.0, 0.0))
        assert (reply.status, dict(reply.headers)["x-amzn-ErrorType"]) == (403, "InvalidSignatureException")
    assert len(esp.faults) == 4


def test_ses_refuses_a_date_that_is_long_ago() -> None:
    right = good("ses")
    at = ses.signed_at(right)
    assert ses.read(right, now=at + 300).recipients
    with pytest.raises(Fault, match="signed 301 s ago"):
        ses.read(right, now=at + 301)


def test_resend_answers_a_repeat_as_before_and_refuses_another_body() -> None:
    esp = Esp("resend")
    first = answer(esp, good("resend"))
    assert answer(esp, good("resend")) == first
    assert (len(esp.mails), len(esp.repeats), esp.faults) == (1, 1, [])
    other = answer(esp, good("resend", put("text", to="another")))
    assert (other.status, other.body["name"]) == (409, "invalid_idempotent_request")
    assert len(esp.faults) == 1


def test_brevo_refuses_a_repeat() -> None:
    esp = Esp("brevo")
    assert answer(esp, good("brevo")).status == 201
    repeat = answer(esp, good("brevo"))
    assert (repeat.status, repeat.body["code"]) == (400, "duplicate_parameter")
    assert (len(esp.mails), len(esp.repeats)) == (1, 1)


def test_a_key_of_a_mail_that_was_not_taken_is_not_remembered() -> None:
    esp = Esp("resend", answer=resend.limited)
    assert answer(esp, good("resend")).status == 429
    esp.answer = resend.accept
    assert answer(esp, good("resend")).status == 200
    assert (len(esp.refused), len(esp.mails)) == (1, 1)


TRAPS: list[tuple[str, Answer, int, str]] = [
    ("postmark", lambda mail: postmark.inactive(mail, "bob@example.net"), 200, "inactive addresses: bob@example.net"),
    ("postmark", lambda mail: postmark.inactive(mail, *mail.recipients), 422, '"ErrorCode": 406'),
    ("postmark", postmark.delayed, 200, "delivery may be delayed"),
    ("mandrill", mandrill.queued, 200, '"status": "queued"'),
    ("mandrill", lambda mail: mandrill.rejected(mail, {"bob@example.net": "hard-bounce"}), 200, '"hard-bounce"'),
    ("mandrill", lambda mail: mandrill.rejected(mail, {"bob@example.net": "invalid"}), 200, '"status": "invalid"'),
    ("mandrill", lambda _: mandrill.refuse("PaymentRequired", "pay"), 500, "PaymentRequired"),
    ("sparkpost", lambda mail: sparkpost.rejected(mail, 1), 200, '"total_rejected_recipients": 1'),
    ("sparkpost", lambda _: sparkpost.error(400, "try later", "1502"), 400, '"1502"'),
    ("mailgun", mailgun.magnificent, 200, "Magnificent"),
    ("mailgun", mailgun.limited, 429, "try again after"),
    ("mailjet", mailjet.refused, 400, '"ErrorCode": "mj-0013"'),
    ("mailjet", mailjet.failed_inside_of_200, 200, '"Status": "error"'),
    ("resend", resend.in_flight, 409, "concurrent_idempotent_requests"),
    ("brevo", brevo.limited, 429, "x-sib-ratelimit-reset"),
    ("ses", lambda _: ses.refuse("TooManyRequestsException"), 429, "TooManyRequestsException"),
    ("graph", graph.limited, 429, "Retry-After"),
    ("leadpush", leadpush.accept_as_before, 202, "send_group_id"),
    ("sendgrid", sendgrid.without_id, 202, "null"),
]


@pytest.mark.parametrize(("name", "trap", "status", "text"), TRAPS)
def test_a_trap_is_answered_as_documented(name: str, trap: Callable[[Mail], Reply], status: int, text: str) -> None:
    esp = Esp(name, answer=trap)
    reply = answer(esp, good(name))
    body = reply.body.decode() if isinstance(reply.body, bytes) else json.dumps(reply.body)
    assert reply.status == status
    assert text in body + json.dumps([*reply.headers] or None)
    assert esp.faults == []
