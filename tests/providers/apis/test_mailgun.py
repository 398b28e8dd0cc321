"""Mailgun's API: the multipart form, and what its answers mean."""

from __future__ import annotations

import json
from base64 import b64decode
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.providers.api import ApiMail, ApiRequest, Found
from relay.providers.apis.mailgun import API
from tests.providers.apis.samples_2 import (
    ANN,
    BOB,
    CONTENT,
    KEY,
    answer,
    call,
    esp_id_in_reply,
    esp_ids_of_events,
    hold_key,
    judged,
    kinds,
    raw_mail,
)

Parts = list[tuple[str, str | None, bytes]]
ID = "<20260301.1@otp.example.com>"


def form(request: ApiRequest) -> Parts:
    """Name, file name and bytes of each part, split at the boundary alone: a mail parser would change line ends."""
    content_type = dict(request.headers)["Content-Type"]
    kind, _, boundary = content_type.partition("; boundary=")
    assert kind == "multipart/form-data"
    assert 1 <= len(boundary) <= 70
    first, *parts, last = (b"\r\n" + request.body).split(b"\r\n--" + boundary.encode())
    assert (first, last) == (b"", b"--\r\n")
    found: Parts = []
    for part in parts:
        head, gap, content = part.partition(b"\r\n\r\n")
        assert gap
        fields = BytesParser(policy=HTTP).parsebytes(head.removeprefix(b"\r\n") + b"\r\n\r\n")
        disposition = fields["Content-Disposition"]
        assert disposition.content_disposition == "form-data"
        found.append((disposition.params["name"], disposition.params.get("filename"), content))
    return found


def sent(mail: ApiMail, username: str = "mg.example.com", prefix: str = "") -> ApiRequest:
    assert API.why_not(mail) is None
    return API.request(mail, call(username, prefix))


def test_the_form_holds_the_envelope_and_the_message_as_it_is() -> None:
    request = sent(raw_mail(), prefix="/proxy")
    assert request.path == "/proxy/v3/mg.example.com/messages.mime"
    assert form(request) == [("to", None, f"{ANN},{BOB}".encode()), ("message", "message.mime", CONTENT)]
    assert b"Content-Type: message/rfc822\r\n\r\nFrom: Acme" in request.body
    scheme, _, key = dict(request.headers)["Authorization"].partition(" ")
    assert (scheme, b64decode(key)) == ("Basic", f"api:{KEY}".encode())
    hold_key(request, key)
    assert KEY.encode() not in request.body


@pytest.mark.parametrize(
    ("username", "domain"),
    [
        ("mg.example.com", "mg.example.com"),
        ("postmaster@mg.example.com", "mg.example.com"),
        ("", "mg.example.com"),
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("a/b?c", "a%2Fb%3Fc"),
        ("ä..b", "%C3%A4..b"),
    ],
)
def test_the_domain_is_the_user_names_or_else_froms(username: str, domain: str) -> None:
    assert sent(raw_mail(), username).path == f"/v3/{domain}/messages.mime"


STEERED: list[tuple[dict[str, tuple[str, ...]], list[tuple[str, str]]]] = [
    ({"x-mailgun-tag": ("otp", "eu")}, [("o:tag", "otp"), ("o:tag", "eu")]),
    ({"x-mailgun-track": ("no",)}, [("o:tracking", "no")]),
    ({"x-mailgun-track-clicks": ("htmlonly",)}, [("o:tracking-clicks", "htmlonly")]),
    ({"x-mailgun-track-opens": ("no",)}, [("o:tracking-opens", "no")]),
    ({"x-mailgun-dkim": ("yes",)}, [("o:dkim", "yes")]),
    ({"x-mailgun-drop-message": ("yes",)}, [("o:testmode", "yes")]),
    ({"x-mailgun-deliver-by": ("Fri, 14 Oct 2011 12:00:00 +0000",)},
     [("o:deliverytime", "Fri, 14 Oct 2011 12:00:00 +0000")]),
    ({"x-mailgun-require-tls": ("true",)}, [("o:require-tls", "true")]),
    ({"x-mailgun-template-name": ("welcome",)}, [("template", "welcome")]),
    ({"x-mailgun-recipient-variables": ('{"a": {}}',)}, [("recipient-variables", '{"a": {}}')]),
    ({"x-mailgun-variables": ('{"relay_id": "01JD", "n": 1, "o": {"a": "ä"}}',)},
     [("v:relay_id", "01JD"), ("v:n", "1"), ("v:o", '{"a": "\\u00e4"}')]),
    ({"x-mailgun-variables": ('{"a": "1"}', '{"b": "2"}')}, [("v:a", "1"), ("v:b", "2")]),
    ({"x-mailgun-variables": ('{"s": "ä\\r\\n\\"x\\""}',)}, [("v:s", 'ä\r\n"x"')]),
]  # fmt: skip


@pytest.mark.parametrize(("steering", "fields"), STEERED, ids=lambda value: str(value)[:40])
def test_what_smtp_reads_from_a_header_is_a_field(
    steering: dict[str, tuple[str, ...]], fields: list[tuple[str, str]]
) -> None:
    assert set(steering) <= API.steering
    own = form(sent(raw_mail(steering=steering)))[1:-1]
    assert [(name, value.decode()) for name, _, value in own] == fields


@pytest.mark.parametrize("value", ["", "a=b", "[]", '{"a": NaN}', '{"a": 1e999}', "[" * 100_000, '{"a": "\\ud800"}'])
def test_variables_that_cant_be_read_send_the_mail_another_way(value: str) -> None:
    assert API.why_not(raw_mail(steering={"x-mailgun-variables": (value,)})) is not None


def test_a_name_cant_end_its_part_early() -> None:
    steering = {"x-mailgun-variables": (json.dumps({'a"; filename="x\r\n\r\n--b': "1"}),)}
    own = form(sent(raw_mail(steering=steering)))[1]
    assert own == ("v:a%22; filename=%22x%0D%0A%0D%0A--b", None, b"1")


def test_the_boundary_is_the_same_for_the_same_request_and_never_in_the_message() -> None:
    request = sent(raw_mail())
    assert request == sent(raw_mail())
    boundary = dict(request.headers)["Content-Type"].partition("boundary=")[2]
    content = CONTENT + b"\r\n--" + boundary.encode() + b"--\r\n"
    other = sent(raw_mail(content=content))
    assert boundary not in dict(other.headers)["Content-Type"]
    assert form(other)[-1][2] == content


@given(content=st.binary(max_size=300), tag=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_bytes_come_through_the_form(content: bytes, tag: str) -> None:
    parts = form(sent(raw_mail(content=content, steering={"x-mailgun-tag": (tag,)})))
    assert parts[1] == ("o:tag", None, tag.strip().encode())
    assert parts[-1] == ("message", "message.mime", content)


def test_each_recipient_gets_the_message_id_that_events_carry() -> None:
    verdict = judged(API, raw_mail(), answer(200, {"id": ID, "message": "Queued. Thank you."}))
    assert verdict.found == (Found("sent", ID),) * 2
    assert esp_id_in_reply("mailgun", verdict.found[0].text) == ID
    body = {"event-data": {"event": "delivered", "message": {"headers": {"message-id": ID.strip("<>")}}}}
    assert esp_ids_of_events("mailgun", json.dumps(body).encode()) == [ID]


def test_an_id_without_brackets_gets_them() -> None:
    body = {"id": ID.strip("<>"), "message": "Queued."}
    assert judged(API, raw_mail([ANN]), answer(200, body)).found == (Found("sent", ID),)


@pytest.mark.parametrize(("esp_id", "text"), [("20260301", "20260301"), (7, "7"), (None, ""), ([], "")])
def test_a_mail_that_is_queued_is_sent_whatever_its_id(esp_id: Any, text: str) -> None:
    body = {"id": esp_id, "message": "Queued. Thank you."}
    assert judged(API, raw_mail([ANN]), answer(200, body)).found == (Found("sent", text),)


JUDGED: list[tuple[str, int, Any, str]] = [
    ("a bad path", 200, b"Mailgun Magnificent API", "account"),
    ("another 200", 200, {"message": "Thank you."}, "unknown"),
    ("an id alone", 200, {"id": ID}, "unknown"),
    ("no JSON", 200, b"<html>", "unknown"),
    ("empty", 200, b"", "unknown"),
    ("a key that is unknown", 401, b"Forbidden", "account"),
    ("plan", 402, {"message": "Payment required"}, "account"),
    ("address of this host", 403, {"message": "Forbidden"}, "account"),
    ("sandbox, 403", 403, {"message": "Domain sandbox1.mailgun.org is not allowed to send: Sandbox subdomains are ..."},
     "account"),
    ("sandbox, 400", 400, {"message": "Sandbox subdomains are for test purposes only. Please add your own domain"},
     "account"),
    ("unverified", 400, {"message": "The domain is unverified and requires DNS configuration"}, "account"),
    ("another region", 404, {"message": "Domain not found: mg.example.com"}, "account"),
    ("an option", 400, {"message": "o:deliverytime is not a valid date"}, "unfit"),
    ("too large", 413, {"message": "Request entity too large"}, "unfit"),
    ("trouble", 500, {"message": "Internal Server Error"}, "unavailable"),
    ("a gateway's patience", 504, b"", "unknown"),
    ("a redirect", 302, b"", "account"),
]  # fmt: skip


@pytest.mark.parametrize(("_", "status", "body", "kind"), JUDGED, ids=[one[0] for one in JUDGED])
def test_an_answer_means(_: str, status: int, body: Any, kind: str) -> None:
    verdict = judged(API, raw_mail(), answer(status, body))
    assert kinds(verdict) == [kind] * 2
    assert all(one.text.startswith(f"HTTP {status}") for one in verdict.found)


def test_plain_text_is_told_and_a_page_is_not() -> None:
    assert judged(API, raw_mail([ANN]), answer(401, b"Forbidden")).found[0].text == "HTTP 401: Forbidden"
    assert judged(API, raw_mail([ANN]), answer(502, b"<html>bad</html>")).found[0].text == "HTTP 502"


def test_an_invalid_address_ends_a_mail_to_one_recipient_only() -> None:
    refusal = answer(400, {"message": "'to' parameter is not a valid address. please check documentation"})
    assert judged(API, raw_mail([ANN]), refusal).found[0]._replace(text="") == Found("rejected", "", "5.1.3")
    assert kinds(judged(API, raw_mail(), refusal)) == ["unfit", "unfit"]
    sender = answer(400, {"message": "'from' parameter is not a valid address. please check documentation"})
    assert kinds(judged(API, raw_mail([ANN]), sender)) == ["unfit"]


@pytest.mark.parametrize(
    ("headers", "text", "wait_s"),
    [
        ({}, "request limit exceeded, try again after Sun, 01 Mar 2026 12:01:05 UTC", 60.0),
        ({}, "recipient limit exceeded, try again after Mon, 02 Mar 2026 12:01:05 +0000", 3600.0),
        ({}, "bytes limit exceeded, try again after Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ({}, "try again after a while, please", None),
        ({"retry-after": "7"}, "try again after Sun, 01 Mar 2026 12:01:05 UTC", 7.0),
    ],
)
def test_429_names_the_date_until_which_it_asks_for_silence(
    headers: dict[str, str], text: str, wait_s: float | None
) -> None:
    verdict = judged(API, raw_mail(), answer(429, {"message": text}, headers))
    assert kinds(verdict) == ["throttled", "throttled"]
    assert verdict.retry_after_s == wait_s


DOCUMENTED = (
    "tag dkim drop-message track track-clicks track-opens sending-ip sending-ip-pool require-tls skip-verification"
    " secondary-dkim secondary-dkim-public deliver-by delivery-time-optimize-period deliver-within time-zone-localize"
    " recipient-variables template-name template-version template-variables variables track-pixel-location-top"
    " archive-to suppress-headers"
)


def test_every_field_that_mailguns_manual_lists_leaves_the_message() -> None:
    assert API.steering == {f"x-mailgun-{name}" for name in DOCUMENTED.split()}
