"""Amazon SES v2: POST /v2/email/outbound-emails with a raw message. Source: the service model `sesv2` of botocore,
and the "Amazon SES Developer Guide", "Sending raw email". The signature is checked with botocore's own signer.
"""

from __future__ import annotations

import datetime as dt
import hmac
import re
from typing import NamedTuple

from botocore.auth import SigV4Auth  # type: ignore[import-untyped,unused-ignore]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped,unused-ignore]
from botocore.credentials import Credentials  # type: ignore[import-untyped,unused-ignore]

from tests.support.api_script import Reply, Request
from tests.support.esps.reading import (
    Fields,
    address,
    check_count,
    expect_post,
    field_value,
    from_base64,
    json_body,
)
from tests.support.esps.values import Fault, Mail, new_hex, one_id, read_raw

PATH = "/v2/email/outbound-emails"
KEY = "AKIDEXAMPLE wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY eu-west-1"
"""Access key id, secret access key, region and, for temporary credentials, session token."""
MOST = 50
MAX_BYTES = 40 << 20
MAX_SKEW_S = 300
TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/, ]+)/(\d{8})/([^/, ]+)/([^/, ]+)/aws4_request, ?"
    r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})"
)
STATUS = {
    "TooManyRequestsException": 429,
    "LimitExceededException": 400,
    "AccountSuspendedException": 400,
    "SendingPausedException": 400,
    "MessageRejected": 400,
    "MailFromDomainNotVerifiedException": 400,
    "NotFoundException": 404,
    "BadRequestException": 400,
    "InvalidSignatureException": 403,
    "UnrecognizedClientException": 403,
    "ExpiredTokenException": 403,
    "InternalFailure": 500,
    "ServiceUnavailable": 503,
}


class _Signature(NamedTuple):
    access_key_id: str
    day: str
    region: str
    service: str
    names: list[str]
    signature: str


def read(request: Request, *, key: str = KEY, now: float | None = None) -> Mail:
    """`now`: seconds since the epoch, that the date is held against; None: any date will do. Raises Fault."""
    expect_post(request, PATH)
    check_signature(request, key, now)
    body = json_body(request)
    raw = _raw(body)
    destination = body.need_nested("Destination")
    recipients = [
        address(one, name) for name in ("ToAddresses", "CcAddresses", "BccAddresses") for one in destination.texts(name)
    ]
    destination.finish()
    check_count(recipients, MOST)
    options: dict[str, object] = {
        "ConfigurationSetName": body.text("ConfigurationSetName"),
        "EmailTags": _tags(body),
        "FeedbackForwardingEmailAddress": body.text("FeedbackForwardingEmailAddress"),
    }
    if body.take("FromEmailAddress") or body.take("ReplyToAddresses"):
        raise Fault("FromEmailAddress and ReplyToAddresses replace fields of the message")
    body.finish()
    identifier = f"0107{new_hex(12)}-{new_hex(8)}-{new_hex(4)}-{new_hex(4)}-{new_hex(4)}-{new_hex(12)}-000000"
    return read_raw(raw, recipients, ids=one_id(recipients, identifier), options=options)


def _raw(body: Fields) -> bytes:
    content = body.need_nested("Content")
    message = content.need_nested("Raw")
    raw = from_base64(message.take("Data"), "Data")
    message.finish()
    content.finish()
    if len(raw) > MAX_BYTES:
        raise Fault("a message beyond 40 MB")
    if any(len(line) > 998 for line in raw.split(b"\r\n")):
        raise Fault("a line beyond 998 bytes")
    return raw


def _tags(body: Fields) -> dict[str, str]:
    tags: dict[str, str] = {}
    for one in body.objects("EmailTags"):
        name, value = one.need("Name"), one.need("Value")
        one.finish()
        if not TAG.fullmatch(name) or not TAG.fullmatch(value) or name in tags:
            raise Fault(f"the tag {name}={value}")
        tags[name] = value
    return tags


def check_signature(request: Request, key: str, now: float | None) -> None:
    """Signature Version 4 in the Authorization field, of the whole body."""
    access_key_id, secret, region, *token = key.split(" ")
    found = AUTHORIZATION.fullmatch(field_value(request, "authorization"))
    if found is None:
        raise Fault("Authorization is no AWS4-HMAC-SHA256", 403)
    sent = _Signature(found[1], found[2], found[3], found[4], found[5].split(";"), found[6])
    if (sent.access_key_id, sent.region, sent.service) != (access_key_id, region, "ses"):
        raise Fault(f"signed for {sent.access_key_id}, {sent.region}, {sent.service}", 403)
    at, date = signed_at(request), field_value(request, "x-amz-date")
    if date[:8] != sent.day:
        raise Fault(f"x-amz-date {date} and a credential of {sent.day}", 403)
    if now is not None and abs(now - at) > MAX_SKEW_S:
        raise Fault(f"signed {now - at:.0f} s ago", 403)
    if request.values("x-amz-security-token") != token:
        raise Fault("x-amz-security-token", 403)
    _check_names(request, sent.names)
    wanted = _signature(request, sent, Credentials(access_key_id, secret, *token), date)
    if not hmac.compare_digest(wanted, sent.signature):
        raise Fault("the signature does not match", 403)


def signed_at(request: Request) -> float:
    """Seconds since the epoch. Raises Fault."""
    date = field_value(request, "x-amz-date")
    if not re.fullmatch(r"\d{8}T\d{6}Z", date):
        raise Fault(f"x-amz-date {date}", 403)
    return dt.datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC).timestamp()


def _check_names(request: Request, names: list[str]) -> None:
    present = {name for name, _ in request.headers}
    must = {"host"} | {name for name in present if name.startswith("x-amz-")} | ({"content-type"} & present)
    if names != sorted(set(names)) or not must <= set(names) <= present:
        raise Fault(f"SignedHeaders {names}: sorted, with {sorted(must)}, and only what is sent", 403)


def _signature(request: Request, sent: _Signature, credentials: object, date: str) -> str:
    """What botocore signs the same request with."""
    signer = SigV4Auth(credentials, sent.service, sent.region)
    headers = {name: field_value(request, name) for name in sent.names}
    again = AWSRequest(request.method, f"http://{headers['host']}{request.path}", headers, request.body)
    again.context["timestamp"] = date
    return str(signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again))


def accept(mail: Mail) -> Reply:
    return Reply(200, {"MessageId": mail.ids[mail.recipients[0]]}, [("x-amzn-RequestId", new_hex(32))])


def refuse(kind: str, text: str = "refused") -> Reply:
    """An error by its type: see STATUS."""
    return Reply(STATUS[kind], {"message": text}, [("x-amzn-RequestId", new_hex(32)), ("x-amzn-ErrorType", kind)])


def error(status: int, text: str) -> Reply:
    kinds = {403: "InvalidSignatureException", 404: "NotFoundException"}
    return refuse(kinds.get(status, "BadRequestException"), text)
