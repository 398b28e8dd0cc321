"""Amazon SES's API: what a request says, and what an answer means."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from relay.providers.api import Answer, ApiMail, Call, Credentials, Found
from relay.providers.apis.ses import API

KEYS = Credentials(access_key_id="AKIAEXAMPLE", secret_access_key="s3cret", session_token="tok", region="eu-west-1")
CALL = Call(KEYS, "email.eu-west-1.amazonaws.com", "", 1_700_000_000.0, "k")
CONTENT = b"From: a@example.com\r\nSubject: \xc3\xbc\r\n\r\n\x00\xff.\r\n"
TWO = ("ann@example.net", "bob@example.net")


def mail(**steering: str) -> ApiMail:
    values = {name.replace("_", "-"): (value,) for name, value in steering.items()}
    return ApiMail("01ABC", "", TWO, "a@example.com", values, CONTENT)


def test_a_request_has_the_bytes_and_the_envelope_and_nothing_that_replaces_a_field() -> None:
    made = API.request(mail(), CALL)
    body = json.loads(made.body)
    assert base64.b64decode(body["Content"]["Raw"]["Data"]) == CONTENT
    assert body["Destination"] == {"ToAddresses": list(TWO)}
    assert body.keys() == {"Content", "Destination"}
    assert made.path == "/v2/email/outbound-emails"


def test_configuration_set_and_tags_are_parameters() -> None:
    made = API.request(mail(x_ses_configuration_set="codes", x_ses_message_tags="a=1, relay_id=01ABC, junk"), CALL)
    body = json.loads(made.body)
    assert body["ConfigurationSetName"] == "codes"
    assert body["EmailTags"] == [{"Name": "a", "Value": "1"}, {"Name": "relay_id", "Value": "01ABC"}]


def test_no_secret_is_in_the_request_but_its_signature_and_token() -> None:
    made = API.request(mail(), CALL)
    headers = {name.lower(): value for name, value in made.headers}
    assert headers["x-amz-security-token"] == "tok"
    assert "s3cret" not in str(headers)
    assert b"s3cret" not in made.body
    assert "s3cret" not in repr(CALL)


def typed(name: str, message: str = "no") -> tuple[dict[str, str], Any]:
    return {"x-amzn-errortype": f"{name}:http://internal.amazon.com/"}, {"message": message}


CASES: list[tuple[str, int, tuple[dict[str, str], Any], list[str]]] = [
    ("accepted", 200, ({}, {"MessageId": "0107018f-1"}), ["sent"] * 2),
    ("no id", 200, ({}, {}), ["unknown"] * 2),
    ("too fast", 429, typed("TooManyRequestsException"), ["throttled"] * 2),
    ("too fast, by 400", 400, ({}, {"__type": "com.amazonaws#ThrottlingException"}), ["throttled"] * 2),
    ("rejected", 400, typed("MessageRejected", "Email contains a virus"), ["rejected"] * 2),
    ("sandbox", 400, typed("MessageRejected", "Email address is not verified."), ["account"] * 2),
    ("domain", 400, typed("MailFromDomainNotVerifiedException"), ["account"] * 2),
    ("paused", 400, typed("SendingPausedException"), ["account"] * 2),
    ("suspended", 400, typed("AccountSuspendedException"), ["account"] * 2),
    ("quota", 400, typed("LimitExceededException"), ["account"] * 2),
    ("configuration set", 404, typed("NotFoundException"), ["account"] * 2),
    ("signature", 403, ({}, {"message": "The request signature doesn't match"}), ["account"] * 2),
    (
        "one recipient",
        400,
        typed("BadRequestException", "Invalid address bob@example.net"),
        ["unavailable", "rejected"],
    ),
    ("the request", 400, typed("BadRequestException", "too large"), ["unfit"] * 2),
    ("down", 503, ({}, None), ["unavailable"] * 2),
    ("gateway", 504, ({}, None), ["unknown"] * 2),
]


@pytest.mark.parametrize(("status", "answer", "kinds"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_an_answer_means(status: int, answer: tuple[dict[str, str], Any], kinds: list[str]) -> None:
    body = b"" if answer[1] is None else json.dumps(answer[1]).encode()
    verdict = API.judge(Answer(status, answer[0], body), mail(), CALL.now)
    assert [found.kind for found in verdict.found] == kinds


def test_the_words_of_a_refusal_name_its_type() -> None:
    headers, body = typed("MessageRejected", "Email contains a virus")
    found = API.judge(Answer(400, headers, json.dumps(body).encode()), mail(), 0.0).found[0]
    assert found == Found("rejected", "HTTP 400: MessageRejected: Email contains a virus", "5.6.0")
