"""Microsoft Graph: the raw message, base64, from a mailbox of Microsoft 365.

Source: "user: sendMail" and "Microsoft Graph error responses" in its reference. It has no envelope: the message goes to
the addresses in To, Cc and Bcc. It keeps a copy in Sent Items, codes included. 202 has no body and says that Graph has
the mail; Exchange may still refuse it, and then a bounce comes into the mailbox. The id in the reply is the request's.
"""

from __future__ import annotations

import re
from base64 import b64encode
from email.utils import getaddresses
from urllib.parse import quote

from relay.providers.api import Answer, Api, ApiMail, ApiRequest, Call, Found, Verdict, same
from relay.providers.apis.answers import by_status, is_success, json_of, named, rejection, text_of
from relay.providers.apis.message_fields import fields_of
from relay.providers.apis.places import refused
from relay.providers.reading import dig, identifier, line

_INVALID_RECIPIENTS = "ErrorInvalidRecipients"
_ACCOUNT = re.compile(
    r"ErrorSendAsDenied|ErrorAccessDenied|ErrorQuotaExceeded|ErrorMessageSubmissionBlocked|ErrorExceededMessageLimit"
    r"|ErrorAccountDisabled|ErrorAccountSuspend|ErrorInvalidUser|ErrorNonExistentMailbox|ErrorMissingEmailAddress"
    r"|Mailbox\w+|\w*Authentication\w*|Authorization\w+|\w*ResourceNotFound",
    re.ASCII,
)
_BUSY = (
    "ErrorServerBusy",
    "ErrorMailboxStoreUnavailable",
    "ErrorMailboxMoveInProgress",
    "ErrorInternalServerTransientError",
)
_THROTTLED = ("ApplicationThrottled", "MailboxConcurrency", "TooManyRequests", "ErrorTooManyRequests")


def request(mail: ApiMail, call: Call) -> ApiRequest:
    """`POST /v1.0/users/MAILBOX/sendMail`. The user name is the mailbox, the key an access token."""
    headers = (("Authorization", f"Bearer {call.credentials.key}"), ("Content-Type", "text/plain"))
    path = f"{call.prefix}/v1.0/users/{quote(call.credentials.username, safe='@')}/sendMail"
    return ApiRequest(path, headers, b64encode(mail.content))


def judge(answer: Answer, mail: ApiMail, now: float) -> Verdict:
    """202 without a body, or `{"error": {code, message}}`."""
    if answer.status == 202:
        return Verdict.of_all(mail, Found("sent", identifier(answer.headers.get("request-id")) or ""))
    body = json_of(answer)
    code, message = identifier(dig(body, "error", "code")) or "", dig(body, "error", "message")
    text = text_of(answer, f"{code}: {line(message)}" if code and line(message) else message, code)
    if is_success(answer):
        return Verdict.of_all(mail, Found("unknown", text))
    if code in _THROTTLED:
        return by_status(answer._replace(status=429), mail, text, now)
    if code in _BUSY:
        return by_status(answer._replace(status=503), mail, text, now)
    if answer.status == 400:
        if code == _INVALID_RECIPIENTS:
            gone = named(mail, message) or (mail.recipients if len(mail.recipients) == 1 else ())
            if gone:
                return refused(mail, gone, rejection(text, "5.1.3"))
        if _ACCOUNT.fullmatch(code) is not None:
            return Verdict.of_all(mail, Found("account", text))
    return by_status(answer, mail, text, now)


def why_not(mail: ApiMail) -> str | None:
    """The envelope must be what To and Cc name: Graph knows nothing else. Bcc may only repeat them."""
    fields = list(fields_of(mail.content))
    named_openly = _addresses([value for name, value in fields if name in ("to", "cc")])
    envelope = {same(one) for one in mail.recipients}
    if envelope - named_openly:
        return "a recipient that neither To nor Cc names"
    if named_openly - envelope or _addresses([value for name, value in fields if name == "bcc"]) - envelope:
        return "an address in To, Cc or Bcc that the mail isn't for"
    return None


def _addresses(values: list[str]) -> set[str]:
    return {same(address) for _, address in getaddresses(values) if address}


API = Api(
    form="raw",
    url="https://graph.microsoft.com",
    request=request,
    judge=judge,
    recipients=500,
    max_bytes=3_000_000,  # a request has at most 4 MB, and base64 adds a third
    needs="token",
    why_not=why_not,
)
