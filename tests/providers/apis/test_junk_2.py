"""Whatever an answer holds, each of six APIs judges it, and calls nothing sent that no ESP confirmed."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.providers.api import Answer, Api, ApiMail, Verdict
from relay.providers.apis import graph, leadpush, mailgun, mandrill, scaleway, sparkpost
from relay.providers.apis.message_fields import decoded, fields_of
from tests.providers.apis.samples_2 import ANN, BOB, CEM, NOW, call, json_mail, raw_mail

APIS: dict[str, Api] = {
    "mailgun": mailgun.API,
    "sparkpost": sparkpost.API,
    "mandrill": mandrill.API,
    "scaleway": scaleway.API,
    "leadpush": leadpush.API,
    "graph": graph.API,
}
EACH = pytest.mark.parametrize("name", APIS)
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
SOME = settings(max_examples=EXAMPLES or 60, deadline=None, suppress_health_check=list(HealthCheck))
WORDS = st.sampled_from(
    [
        "", "sent", "queued", "rejected", "new", "failed", "pending", "hard-bounce", "Queued", ANN, "\ud800", "\x00",
        "ErrorInvalidRecipients", "ValidationError", "1902", "5002", "to.0", "to[0]", "bcc.9999", "from",
        "try again after Sun, 01 Mar 2026 12:01:05 UTC", "9" * 40, "<a@b>", "x" * 400 + "@b",
    ]
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=20), WORDS,
    st.sampled_from([0, 1, 2, 3]),
)  # fmt: skip
NAMES = st.one_of(
    st.text(max_size=5),
    st.sampled_from(
        [
            "id", "message", "results", "errors", "code", "description", "total_accepted_recipients", "status", "name",
            "total_rejected_recipients", "rcpt_to_errors", "email", "_id", "reject_reason", "queued_reason", "emails",
            "mail_rcpt", "flags", "type", "details", "argument_name", "help_message", "data", "accepted", "messages",
            "uuid", "recipient", "send_group_id", "total_recipient_count", "to.0", "from", "bcc.0", "error",
        ]
    ),
)  # fmt: skip
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=10,
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "x-ratelimit-reset", "request-id", "content-type"]),
    st.one_of(st.text(max_size=20), st.sampled_from(["-1", "9" * 30, "Sun, 01 Mar 2026 12:01:05 GMT", "Thu, 99 X"])),
)
STATUSES = st.one_of(st.integers(100, 599), st.sampled_from([200, 202, 400, 401, 403, 420, 422, 429, 500, 503, 504]))


def mail_for(name: str) -> ApiMail:
    recipients = [ANN, BOB, CEM]
    return json_mail(recipients) if APIS[name].form == "json" else raw_mail(recipients)


def hold(name: str, answer: Answer) -> Verdict:
    """What the caller relies on, whatever the answer."""
    mail = mail_for(name)
    verdict = APIS[name].judge(answer, mail, NOW)
    assert len(verdict.found) == len(mail.recipients)
    assert verdict.retry_after_s is None or 0 <= verdict.retry_after_s <= 3600
    for found in verdict.found:
        assert len(found.text) <= 400
        assert found.text.encode().decode().splitlines() in ([], [found.text])
        assert (found.status != "") is (found.kind == "rejected")
        assert found.status == "" or found.status.startswith("5.")
    if not 200 <= answer.status < 300:
        assert all(found.kind != "sent" for found in verdict.found)
    return verdict


@EACH
def test_any_json_is_judged(name: str) -> None:
    @SOME
    @given(status=STATUSES, body=JUNK, headers=HEADERS)
    def try_one(status: int, body: Any, headers: dict[str, str]) -> None:
        hold(name, Answer(status, headers, json.dumps(body).encode()))

    try_one()


@EACH
def test_garbage_is_never_called_sent(name: str) -> None:
    @SOME
    @given(status=STATUSES, body=st.one_of(st.none(), st.binary(max_size=100)), headers=HEADERS)
    def try_one(status: int, body: bytes | None, headers: dict[str, str]) -> None:
        verdict = hold(name, Answer(status, headers, body))
        if (name, status) != ("graph", 202):
            assert all(found.kind != "sent" for found in verdict.found)

    try_one()


@EACH
@pytest.mark.parametrize("status", [200, 202, 400, 422, 429, 500])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"message":"' + b"a@" * 200_000 + b'"}',
        b'{"errors":[{"description":"' + b"<" * 200_000 + b'"}]}',
        b'{"errors":{"' + b"to." * 100_000 + b'0":["x"]}}',
        b'{"message":"try again after ' + b"Sun " * 50_000 + b'"}',
        b'{"results":{"total_accepted_recipients":NaN,"total_rejected_recipients":1e999}}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_deep_long_and_odd_values_are_judged(name: str, status: int, body: bytes) -> None:
    verdict = hold(name, Answer(status, {}, body))
    if (name, status) != ("graph", 202):
        assert all(found.kind != "sent" for found in verdict.found)


REASONS = (
    "the message isn't UTF-8",
    "a header field has {{, which SparkPost substitutes",
    "X-MSYS-API has something that the API has no parameter for",
    "X-Mailgun-Variables isn't a JSON object",
    "a recipient that neither To nor Cc names",
    "an address in To, Cc or Bcc that the mail isn't for",
)
"""texts of the project, with nothing of the mail"""


@EACH
@SOME
@given(content=st.binary(max_size=200), value=st.text(max_size=50))
def test_any_message_is_refused_with_a_reason_or_has_a_request(name: str, content: bytes, value: str) -> None:
    api = APIS[name]
    mail = mail_for(name)._replace(content=content, steering=dict.fromkeys(api.steering, (value,)))
    reason = api.why_not(mail)
    if reason is None:
        assert api.request(mail, call("user")).body
    else:
        assert reason in REASONS


FIELDS = st.lists(
    st.tuples(
        st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=8),
        st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=0x24F), min_size=1, max_size=8), min_size=1),
    ),
    max_size=4,
)


@SOME
@given(fields=FIELDS, end=st.sampled_from(["\r\n", "\n"]), body=st.sampled_from([None, "", "X: y", "\n\nX: y"]))
def test_the_fields_of_a_message_are_read_unfolded(fields: list[tuple[str, list[str]]], end: str, body: Any) -> None:
    head = end.join(f"{name}: {f'{end} '.join(pieces)}" for name, pieces in fields)
    content = head if body is None else f"{head}{end}{end}{body}" if fields else f"{end}{body}"
    read = list(fields_of(content.encode()))
    assert read == [(name.lower(), " ".join(pieces)) for name, pieces in fields]


@SOME
@given(value=st.one_of(st.text(max_size=40), st.text("=?utf8qb! \ud800", max_size=40)))
def test_any_value_is_decoded_or_left(value: str) -> None:
    assert isinstance(decoded(value), str)
