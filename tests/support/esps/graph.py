"""Microsoft Graph's sendMail with a whole message: POST /v1.0/users/{id}/sendMail. Source: learn.microsoft.com,
"user: sendMail" and "Send messages with MIME content"."""

from __future__ import annotations

import re
from email.utils import getaddresses

from tests.support.api_script import Reply, Request
from tests.support.esps.reading import (
    address,
    check_count,
    expect_field,
    expect_post,
    field_value,
    from_base64,
)
from tests.support.esps.values import Fault, Mail, new_uuid, read_raw

KEY = "eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJncmFwaCJ9.c2lnbmF0dXJl"
MOST = 500
PATH = re.compile(r"/v1\.0/users/([A-Za-z0-9._@%+-]+)/sendMail")


def read(request: Request, *, key: str = KEY) -> Mail:
    """`key`: the access token. The recipients are those of To, Cc and Bcc: there is no envelope. Raises Fault."""
    found = PATH.fullmatch(request.path)
    expect_post(request, request.path if found else "/v1.0/users/ID/sendMail")
    assert found is not None
    expect_field(request, "authorization", f"Bearer {key}")
    if field_value(request, "content-type").lower() != "text/plain":
        raise Fault("Content-Type: text/plain says that the body is a message in base64")
    raw = from_base64(request.body.decode("latin-1"), "the body")
    message = read_raw(raw, ())
    named = [value for name, value in message.headers if name.lower() in ("to", "cc", "bcc")]
    recipients = [address(one, "a recipient") for _, one in getaddresses(named)]
    check_count(recipients, MOST)
    return read_raw(raw, recipients, options={"user": found[1]})


def accept(mail: Mail) -> Reply:
    """No body, and no id of the mail."""
    return Reply(202, b"", [("request-id", new_uuid())])


def limited(mail: Mail, after_s: int = 10) -> Reply:
    return Reply(429, _body("ApplicationThrottled", "throttled"), [("Retry-After", str(after_s))])


def error(status: int, text: str) -> Reply:
    codes = {401: "InvalidAuthenticationToken", 403: "ErrorAccessDenied", 404: "ErrorInvalidUser"}
    return Reply(status, _body(codes.get(status, "ErrorMimeContentInvalidBase64String"), text))


def _body(code: str, text: str) -> dict[str, object]:
    return {"error": {"code": code, "message": text, "innerError": {"request-id": new_uuid()}}}
