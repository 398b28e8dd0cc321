"""Leadpush: JSON.

Source: its API documentation (a beta) and its SDKs of 2026-08. Each recipient has a message with a uuid of its own.
Suppression is checked after the answer. It has no Cc, no attachments and one Reply-To. Addresses are plain ones: a name
before one in To would be lost, so such mail isn't carried. The name before the sender is the one that is configured for
it at Leadpush. Message-ID is Leadpush's: the app's is left out.
"""

from __future__ import annotations

import re
from typing import Any

from relay.providers.api import Answer, Api, ApiMail, ApiRequest, Call, Found, Verdict, same
from relay.providers.apis.answers import by_status, is_success, json_of, named, rejection, text_of
from relay.providers.apis.making import json_request, without_message_id
from relay.providers.apis.places import at_place, refused
from relay.providers.reading import address, dig, first, identifier, items, line

_MOST_RECIPIENTS = 50
_HEADER_NAME = re.compile(r"[a-z0-9-]+", re.ASCII)
_NOT_ITS_OWN = frozenset({"from", "to", "cc", "bcc", "subject", "sender", "reply-to", "date"})
_TRANSPORT = ("return-path", "received", "dkim-signature", "resent-", "arc-", "content-", "mime-")
_SMTP_ONLY = "x-leadpush-"
"""its SMTP server reads tag and tracking from such fields, for which the API has no parameter; one is reserved"""
_NOT_TAKEN = ("failed", "rejected", "suppressed", "bounced", "canceled", "cancelled")
"""statuses that no page documents for an answer: `pending` is the only one that does"""


def request(mail: ApiMail, call: Call) -> ApiRequest:
    """`POST /v1/emails`."""
    rebuilt = mail.rebuilt
    assert rebuilt is not None
    body: dict[str, Any] = {"from": rebuilt.author.address, "subject": rebuilt.subject}
    if rebuilt.to:
        body["to"] = [one.address for one in rebuilt.to]
    if mail.bcc:
        body["bcc"] = list(mail.bcc)
    if rebuilt.reply_to:
        body["reply_to"] = rebuilt.reply_to[0].address
    if rebuilt.text is not None:
        body["text"] = rebuilt.text
    if rebuilt.html is not None:
        body["html"] = rebuilt.html
    if fields := {field.name: field.value for field in without_message_id(rebuilt)}:
        body["headers"] = fields
    proof = ("Authorization", f"Bearer {call.credentials.key}")
    return json_request(f"{call.prefix}/v1/emails", body, proof, ("X-Leadpush-API-Version", "v1"))


def judge(answer: Answer, mail: ApiMail, now: float) -> Verdict:
    """`{"data": {accepted, messages: [{uuid, recipient, status}]}}`, the older `{"data": {send_group_id,
    total_recipient_count}}`, or Laravel's `{message, errors: {field: [words]}}`."""
    body = json_of(answer)
    if is_success(answer):
        return _accepted(answer, mail, dig(body, "data"))
    errors = dig(body, "errors")
    faults = (
        {name: line(dig(said, 0)) or line(said) for name, said in errors.items()} if isinstance(errors, dict) else {}
    )
    text = text_of(answer, first(faults.values()), dig(body, "message"))
    if answer.status in (400, 422):
        if "from" in faults:
            return Verdict.of_all(mail, Found("account", text))
        at = [place for name in faults if (place := at_place(mail, name)) is not None]
        if gone := at or [one for said in faults.values() for one in named(mail, said)]:
            return refused(mail, gone, rejection(text, "5.1.3"))
    return by_status(answer, mail, text, now)


def _accepted(answer: Answer, mail: ApiMail, data: object) -> Verdict:
    """A success in either form."""
    if isinstance(dig(data, "messages"), list):
        if dig(data, "accepted") is False:
            return Verdict.of_all(mail, Found("unfit", text_of(answer, "not accepted")))
        by_address = {same(to): one for one in items(dig(data, "messages")) if (to := address(dig(one, "recipient")))}
        return Verdict(tuple(_found(answer, by_address.get(same(one))) for one in mail.recipients))
    group, count = identifier(dig(data, "send_group_id")), dig(data, "total_recipient_count")
    if group is None or type(count) is not int or count < len({same(one) for one in mail.recipients}):
        said = f"{count} of {len(mail.recipients)} recipients" if type(count) is int else "no id in the answer"
        return Verdict.of_all(mail, Found("unknown", text_of(answer, said)))
    return Verdict.of_all(mail, Found("sent", group))


def _found(answer: Answer, one: object) -> Found:
    """What became of one recipient."""
    esp_id, status = identifier(dig(one, "uuid")), line(dig(one, "status"), 60)
    if esp_id is None or (status is not None and status.lower() in _NOT_TAKEN):
        return Found("unknown", text_of(answer, status, "no uuid for this recipient"))
    return Found("sent", esp_id)


def why_not(mail: ApiMail) -> str | None:
    """What Leadpush has no parameter for."""
    rebuilt = mail.rebuilt
    if rebuilt is None:
        return None
    names = [field.name.lower() for field in rebuilt.headers]
    checks = (
        (rebuilt.cc, "Leadpush has no Cc"),
        (rebuilt.attachments, "Leadpush has no attachments"),
        (rebuilt.reply_to[1:], "more than one address in Reply-To"),
        (any(one.name for one in rebuilt.to), "a name before an address in To"),
        (len(mail.recipients) > _MOST_RECIPIENTS, f"more than {_MOST_RECIPIENTS} recipients"),
        (not rebuilt.subject.strip(), "Leadpush wants a subject"),
        (not (rebuilt.text or rebuilt.html), "neither text nor HTML"),
        (len(set(names)) < len(names), "a header field that stands twice"),
    )
    return next((reason for stands, reason in checks if stands), None)


def allows_header(name: str) -> bool:
    """Names of letters, digits and hyphens, but those that Leadpush sets itself or reads only by SMTP."""
    if name in _NOT_ITS_OWN or name.startswith((*_TRANSPORT, _SMTP_ONLY)):
        return False
    return _HEADER_NAME.fullmatch(name) is not None


API = Api(
    form="json",
    url="https://api.leadpush.io",
    request=request,
    judge=judge,
    recipients=_MOST_RECIPIENTS,
    max_bytes=2_000_000,  # no limit is documented, and there are no attachments
    why_not=why_not,
    allows_header=allows_header,
)
