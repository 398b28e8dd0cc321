"""SendGrid v3: JSON. An empty 202 is its acceptance; the id stands in a header field of the answer.

Source: its pages "Mail Send", "Mail Send errors", "X-Message-ID", "Building an X-SMTPAPI header" and "SMTP filters". It
has no idempotency keys. A Message-ID of ours is set like any other field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from relay.providers.api import Answer, Api, ApiMail, ApiRequest, Call, Found, Mailbox, Rebuilt, Verdict, same
from relay.providers.apis.answers import (
    MOST_RETRY_S,
    by_status,
    is_success,
    json_of,
    rejection,
    retry_after_s,
    text_of,
)
from relay.providers.apis.making import as_object, base64_of, encoded, is_json_text, json_request
from relay.providers.apis.places import refused
from relay.providers.reading import dig, first, identifier, items, line, read_json, truth

_SMTPAPI = "x-smtpapi"
_ACCEPTED = 202
_MAX_CATEGORIES = 10
_TIME = re.compile(r"\d{10}", re.ASCII)
_RESERVED = ("x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding")
_RECIPIENT = re.compile(r"personalizations\.0\.(to|cc|bcc)\.(\d{1,4})(?:\.email)?", re.ASCII)
_SENDER = re.compile(r"from(?:\.email)?", re.ASCII)
# SMTP filter: group and name of the API's setting, and the names of what it has in it.
_FILTERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "clicktrack": ("tracking_settings", "click_tracking", {"enable_text": "enable_text"}),
    "opentrack": ("tracking_settings", "open_tracking", {"replace": "substitution_tag"}),
    "subscriptiontrack": (
        "tracking_settings",
        "subscription_tracking",
        {"text/plain": "text", "text/html": "html", "replace": "substitution_tag"},
    ),
    "ganalytics": (
        "tracking_settings",
        "ganalytics",
        {f"utm_{name}": f"utm_{name}" for name in ("source", "medium", "term", "content", "campaign")},
    ),
    "footer": ("mail_settings", "footer", {"text/plain": "text", "text/html": "html"}),
    "bypass_list_management": ("mail_settings", "bypass_list_management", {}),
}
_Settings = dict[str, Any]


def request(mail: ApiMail, call: Call) -> ApiRequest:
    """`POST /v3/mail/send`, with one personalization."""
    rebuilt = mail.rebuilt
    assert rebuilt is not None
    settings = _settings(mail) or {}
    lists = _lists(rebuilt, mail)
    personalization: _Settings = {name: [as_object(one) for one in boxes] for name, boxes in lists.items() if boxes}
    if custom_args := settings.pop("custom_args", None):
        personalization["custom_args"] = custom_args
    # Of the texts, the plain one has to be first.
    texts = (("text/plain", rebuilt.text), ("text/html", rebuilt.html))
    body: _Settings = {
        "personalizations": [personalization],
        "from": as_object(rebuilt.author),
        "subject": rebuilt.subject,
        "content": [{"type": kind, "value": value} for kind, value in texts if value is not None],
    }
    if len(rebuilt.reply_to) == 1:
        body["reply_to"] = as_object(rebuilt.reply_to[0])
    elif rebuilt.reply_to:
        body["reply_to_list"] = [as_object(one) for one in rebuilt.reply_to]
    if rebuilt.headers:
        # "You must ensure these are properly encoded if they contain unicode characters".
        body["headers"] = {field.name: encoded(field.value) for field in rebuilt.headers}
    if rebuilt.attachments:
        body["attachments"] = [
            {
                "content": base64_of(one.data),
                "type": one.content_type,
                "filename": one.filename,
                "disposition": "attachment",
            }
            for one in rebuilt.attachments
        ]
    proof = ("Authorization", f"Bearer {call.credentials.key}")
    return json_request(f"{call.prefix}/v3/mail/send", body | settings, proof)


def _lists(rebuilt: Rebuilt, mail: ApiMail) -> dict[str, list[Mailbox]]:
    """To, Cc and Bcc. SendGrid refuses an address that it finds twice in them: the first time counts."""
    known: set[str] = set()
    found: dict[str, list[Mailbox]] = {}
    for name, boxes in (("to", rebuilt.to), ("cc", rebuilt.cc), ("bcc", [Mailbox(one) for one in mail.bcc])):
        found[name] = []
        for one in boxes:
            if same(one.address) not in known:
                known.add(same(one.address))
                found[name].append(one)
    return found


def _settings(mail: ApiMail) -> _Settings | None:
    """The API's fields for what X-SMTPAPI says. None: it can't be read, or says what the API has no field for."""
    values = mail.steering.get(_SMTPAPI, ())
    if not values:
        return {}
    known = read_json(values[0]) if len(values) == 1 else None
    if not isinstance(known, dict) or not is_json_text(known) or not known.keys() <= _PARAMETERS.keys():
        return None
    made = [_PARAMETERS[name](value) for name, value in known.items()]
    found: _Settings = {}
    for one in made:
        if one is None:
            return None
        found |= one
    return found


def _categories(value: object) -> _Settings | None:
    names = [value] if isinstance(value, str) else list(items(value))
    if not names or len(names) > _MAX_CATEGORIES or not all(isinstance(one, str) for one in names):
        return None
    return {"categories": names}


def _custom_args(value: object) -> _Settings | None:
    """The API takes texts only; SMTP's numbers come back in events as they are."""
    if not isinstance(value, dict) or any(isinstance(one, dict | list) for one in value.values()):
        return None
    return {"custom_args": {name: one if isinstance(one, str) else json.dumps(one) for name, one in value.items()}}


def _filters(value: object) -> _Settings | None:
    if not isinstance(value, dict) or not value.keys() <= _FILTERS.keys():
        return None
    found: _Settings = {}
    for name, smtp_filter in value.items():
        group, api_name, names = _FILTERS[name]
        settings = dig(smtp_filter, "settings")
        if not isinstance(settings, dict) or not settings.keys() <= {"enable", *names}:
            return None
        made = {names.get(key, key): truth(one) if key.startswith("enable") else one for key, one in settings.items()}
        if not all(isinstance(one, bool | str) for one in made.values()) or "enable" not in made:
            return None
        found.setdefault(group, {})[api_name] = made
    return found


def _number(name: str, *path: str) -> Callable[[object], _Settings | None]:
    """A reader of a number, which stands in the API at `path`, under `name`."""

    def read(value: object) -> _Settings | None:
        digits = identifier(value) or ""
        if not (digits.isascii() and digits.isdigit()):
            return None
        found: _Settings = {name: int(digits)}
        return {path[0]: found} if path else found

    return read


def _pool(value: object) -> _Settings | None:
    return {"ip_pool_name": value} if isinstance(value, str) and value else None


_PARAMETERS: dict[str, Callable[[object], _Settings | None]] = {
    "category": _categories,
    "unique_args": _custom_args,
    "filters": _filters,
    "send_at": _number("send_at"),
    "asm_group_id": _number("group_id", "asm"),
    "ip_pool": _pool,
}


def judge(answer: Answer, mail: ApiMail, now: float) -> Verdict:
    """202 with X-Message-Id, or `{errors: [{message, field}]}`."""
    if answer.status == _ACCEPTED:
        return Verdict.of_all(mail, Found("sent", identifier(answer.headers.get("x-message-id")) or ""))
    if is_success(answer):
        # 200 is the sandbox's: "valid, but not queued to be delivered".
        return Verdict.of_all(mail, Found("unknown", text_of(answer, "no acceptance")))
    errors = list(items(dig(json_of(answer), "errors")))[:100]
    text = text_of(answer, first(line(dig(one, "message")) for one in errors))
    if answer.status == 429:
        return Verdict.of_all(mail, Found("throttled", text), _wait_s(answer, now))
    if answer.status == 400:
        fields = [dig(one, "field") for one in errors]
        if any(isinstance(one, str) and _SENDER.fullmatch(one) for one in fields):
            return Verdict.of_all(mail, Found("account", text))
        if gone := _named_by(fields, mail):
            return refused(mail, gone, rejection(text, "5.1.3"))
    return by_status(answer, mail, text, now)


def _wait_s(answer: Answer, now: float) -> float | None:
    """Retry-After, or X-RateLimit-Reset, which is a time in seconds since the epoch."""
    reset = answer.headers.get("x-ratelimit-reset", "").strip()
    if "retry-after" not in answer.headers and _TIME.fullmatch(reset):
        return min(max(float(reset) - now, 0.0), MOST_RETRY_S)
    return retry_after_s(answer, now, "x-ratelimit-reset")


def _named_by(fields: Iterable[object], mail: ApiMail) -> set[str]:
    """The recipients whose places in the request the errors name, such as `personalizations.0.to.0.email`.

    Texts aren't searched: `the first duplicate instance of [...]` names an address that is good.
    """
    lists = {} if mail.rebuilt is None else _lists(mail.rebuilt, mail)
    found = [_RECIPIENT.fullmatch(one) for one in fields if isinstance(one, str)]
    places = [(lists.get(one[1], []), int(one[2])) for one in found if one is not None]
    known = {same(one) for one in mail.recipients}
    return {same(boxes[place].address) for boxes, place in places if place < len(boxes)} & known


def why_not(mail: ApiMail) -> str | None:
    """SendGrid wants To, a subject and a text, none of them empty, and names each header field once."""
    rebuilt = mail.rebuilt
    if rebuilt is None:
        return None
    if not rebuilt.to:
        return "no address in To"
    if not rebuilt.subject:
        return "no subject"
    if "" in (rebuilt.text, rebuilt.html) or (rebuilt.text is None and rebuilt.html is None):
        return "a text of the message is empty"
    if len({field.name.lower() for field in rebuilt.headers}) < len(rebuilt.headers):
        return "a header field stands twice"
    if not all(map(str.isascii, mail.recipients)):
        return "an address isn't ASCII"
    if not all(one.filename for one in rebuilt.attachments):
        return "an attachment has no name"
    return "X-SMTPAPI has what the API has no field for" if _settings(mail) is None else None


def allows_header(name: str) -> bool:
    return name not in _RESERVED


API = Api(
    form="json",
    url="https://api.sendgrid.com",
    request=request,
    judge=judge,
    recipients=1_000,
    max_bytes=30_000_000,
    why_not=why_not,
    allows_header=allows_header,
    steering=frozenset({_SMTPAPI}),
)
