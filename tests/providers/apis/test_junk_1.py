"""Whatever postmark, sendgrid, mailjet and brevo answer, there is a verdict, and garbage is no acceptance."""

from __future__ import annotations

import json
import os
import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.providers.api import Answer, Api, Mailbox, Verdict
from relay.providers.apis import brevo, mailjet, postmark, sendgrid
from tests.providers.apis.samples_1 import ALL, ANN, CALL, LEAST, NOW, mail_of

APIS = {"postmark": postmark.API, "sendgrid": sendgrid.API, "mailjet": mailjet.API, "brevo": brevo.API}
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
SOME = settings(max_examples=EXAMPLES or 60, deadline=None, suppress_health_check=list(HealthCheck))
EACH = pytest.mark.parametrize("api", APIS.values(), ids=APIS)
STATUSES = st.one_of(
    st.integers(100, 599), st.sampled_from([200, 201, 202, 204, 400, 401, 403, 406, 413, 422, 429, 500, 503, 504])
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(st.characters(codec=None), max_size=30),
    st.sampled_from(
        [
            0,
            300,
            406,
            "406",
            ANN,
            "\ud800",
            f"Invalid 'To' address: '{ANN}'",
            f"inactive addresses: {ANN}",
            "personalizations.0.to.0.email",
            "personalizations.0.bcc.9999.email",
            "To[0].Email",
            "Bcc[999].Email",
            "email is not valid in to",
            "success",
            "error",
            "duplicate_parameter",
            "send-0008",
        ]
    ),
)
NAMES = st.sampled_from(
    [
        "ErrorCode",
        "Message",
        "errors",
        "message",
        "field",
        "Messages",
        "Status",
        "Errors",
        "ErrorRelatedTo",
        "ErrorMessage",
        "StatusCode",
        "code",
    ]
)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(NAMES, st.text(max_size=5)), inner, max_size=4)
    ),
    max_leaves=12,
)
IDS = st.sampled_from(["MessageID", "MessageUUID", "messageId", "To", "Cc", "Email"])
WITH_IDS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(NAMES, IDS), inner, max_size=4)),
    max_leaves=16,
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "x-message-id", "x-ratelimit-reset", "x-sib-ratelimit-reset", "content-type"]),
    st.one_of(st.text(max_size=30), st.sampled_from(["0", "1e9", "9" * 40, "Thu, 01 Jan 1970 00:00:00 GMT"])),
)
MAILS = [
    mail_of(),
    mail_of(LEAST, [ANN]),
    mail_of(LEAST._replace(to=(Mailbox(ANN), Mailbox(ANN))), [ANN, "two@example.org"]),
    mail_of()._replace(rebuilt=None),
]


def hold(verdict: Verdict, recipients: int) -> None:
    """What the callers rely on."""
    assert len(verdict.found) == recipients
    for one in verdict.found:
        assert len(one.text) <= 500
        assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in one.text)
        assert bool(one.status) == (one.kind == "rejected")
        assert not one.status or one.status.startswith("5.")
    assert verdict.retry_after_s is None or 0.0 <= verdict.retry_after_s <= 3_600.0


def packed(value: Any) -> bytes:
    return json.dumps(value).encode()


@EACH
@SOME
@given(
    status=STATUSES,
    body=st.one_of(st.none(), st.binary(max_size=60), WITH_IDS.map(packed), st.just(b"[" * 100_000)),
    headers=HEADERS,
    mail=st.sampled_from(MAILS),
)
def test_no_answer_raises(api: Api, status: int, body: bytes | None, headers: dict[str, str], mail: Any) -> None:
    hold(api.judge(Answer(status, headers, body), mail, NOW), len(mail.recipients))


@EACH
@SOME
@given(status=STATUSES, body=st.one_of(st.none(), st.just(b""), st.binary(max_size=60), JUNK.map(packed)))
def test_garbage_is_no_acceptance(api: Api, status: int, body: bytes | None) -> None:
    verdict = api.judge(Answer(status, {}, body), mail_of(), NOW)
    by_status = api is sendgrid.API and status == 202
    # Brevo's one error that means an acceptance.
    repeated = api is brevo.API and 400 <= status < 500 and body is not None and b"duplicate_parameter" in body
    if not by_status and not repeated:
        assert "sent" not in {one.kind for one in verdict.found}
    if status == 504:
        assert {one.kind for one in verdict.found} == {"unknown"}


@EACH
@SOME
@given(status=st.integers(200, 299), body=st.one_of(st.none(), st.just(b""), st.binary(max_size=60)))
def test_an_unreadable_2xx_may_have_been_an_acceptance(api: Api, status: int, body: bytes | None) -> None:
    verdict = api.judge(Answer(status, {}, body), mail_of(), NOW)
    assert {one.kind for one in verdict.found} == {"sent" if api is sendgrid.API and status == 202 else "unknown"}


@EACH
@SOME
@given(
    values=st.dictionaries(
        st.sampled_from(sorted(frozenset().union(*(api.steering for api in APIS.values())))),
        st.lists(st.one_of(st.text(max_size=20), JUNK.map(json.dumps)), min_size=1, max_size=2),
    )
)
def test_whatever_an_app_steers_with_is_carried_or_goes_another_way(api: Api, values: dict[str, list[str]]) -> None:
    # A header field's value is text that can be encoded.
    steering = {
        name: [one.encode("utf-8", "replace").decode() for one in each]
        for name, each in values.items()
        if name in api.steering
    }
    mail = mail_of(LEAST, ALL, steering)
    if api.why_not(mail) is None:
        assert isinstance(json.loads(api.request(mail, CALL).body), dict)
