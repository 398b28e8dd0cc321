"""Amazon SES v2: the raw message, base64 inside JSON, signed with Signature Version 4.

Source: the service model in botocore 1.44. It keeps a DKIM signature of ours that covers neither Message-ID nor Date.
FromEmailAddress and ReplyToAddresses would replace fields of the message, so they are left out.
"""

from __future__ import annotations

import binascii
import json
from typing import Any

from relay.providers.api import Answer, Api, ApiMail, ApiRequest, Call, Found, Kind, Verdict
from relay.providers.apis.answers import accepted, by_status, is_success, json_of, named, rejection, text_of
from relay.providers.apis.places import refused
from relay.providers.apis.sigv4 import signed_headers
from relay.providers.reading import dig, first, identifier

_PATH = "/v2/email/outbound-emails"
_CONFIGURATION_SET = "x-ses-configuration-set"
_TAGS = "x-ses-message-tags"
_KINDS: dict[str, Kind] = {
    "TooManyRequestsException": "throttled",
    "ThrottlingException": "throttled",
    "Throttling": "throttled",
    "MailFromDomainNotVerifiedException": "account",
    "SendingPausedException": "account",
    "AccountSuspendedException": "account",
    "LimitExceededException": "account",
    "NotFoundException": "account",
    "MessageRejected": "rejected",
}


def request(mail: ApiMail, call: Call) -> ApiRequest:
    """`SendEmail` with `Content.Raw`."""
    rest: dict[str, Any] = {"Destination": {"ToAddresses": list(mail.recipients)}}
    if configuration_set := mail.steered(_CONFIGURATION_SET):
        rest["ConfigurationSetName"] = configuration_set
    if tags := _tags(mail.steered(_TAGS) or ""):
        rest["EmailTags"] = tags
    data = binascii.b2a_base64(mail.content, newline=False)
    body = b'{"Content":{"Raw":{"Data":"%b"}},%b' % (data, json.dumps(rest).encode()[1:])
    path = call.prefix + _PATH
    headers = signed_headers(call.credentials, "ses", call.host, path, body, call.now, "application/json")
    return ApiRequest(path, headers, body)


def _tags(value: str) -> list[dict[str, str]]:
    """`name=value, name=value` as SES's SMTP server reads it."""
    pairs = (part.strip().partition("=") for part in value.split(","))
    return [{"Name": name.strip(), "Value": text.strip()} for name, sign, text in pairs if sign and name.strip()]


def judge(answer: Answer, mail: ApiMail, now: float) -> Verdict:
    """`{"MessageId"}`, or an error whose type stands in a header field or in the body."""
    body = json_of(answer)
    if is_success(answer):
        return accepted(answer, mail, identifier(dig(body, "MessageId")), "no MessageId in the answer")
    message = first((identifier(dig(body, "message")), identifier(dig(body, "Message"))))
    error = first((answer.headers.get("x-amzn-errortype"), identifier(dig(body, "__type")))) or ""
    error = error.partition(":")[0].rpartition("#")[2]
    text = text_of(answer, f"{error}: {message}" if error and message else message or error)
    kind = _KINDS.get(error)
    if kind == "rejected":
        if "not verified" in text:
            # In the sandbox recipients must be verified, too: the account's state, not the mailbox's.
            return Verdict.of_all(mail, Found("account", text))
        return Verdict.of_all(mail, rejection(text))
    if kind is not None:
        found = by_status(answer._replace(status=429), mail, text, now) if kind == "throttled" else None
        return found or Verdict.of_all(mail, Found(kind, text))
    if answer.status == 400 and (gone := named(mail, message)):
        return refused(mail, gone, rejection(text, "5.1.3"))
    return by_status(answer, mail, text, now)


API = Api(
    form="raw",
    url="https://email.{region}.amazonaws.com",
    request=request,
    judge=judge,
    recipients=50,
    max_bytes=29_000_000,  # 40 MB with the encoding
    needs="aws",
    steering=frozenset({_CONFIGURATION_SET, _TAGS}),
    keeps_signature=True,
    rewrites=frozenset({"message-id", "date", "return-path"}),
)
