"""SparkPost: the raw message as a JSON string.

Source: its reference of the Transmissions API, of the SMTP API (X-MSYS-API) and its list of extended error codes. It
takes the message apart and signs it anew. What stands between `{{` and `}}` in a top-level header field is substituted
even with `perform_substitutions` off. The envelope sender is SparkPost's own: `return_path` must be a bounce domain of
the account, which a sender of the app's needn't be.
"""

from __future__ import annotations

import json
import re
from typing import Any

from relay.providers.api import Answer, Api, ApiMail, ApiRequest, Call, Found, Verdict
from relay.providers.apis.answers import by_status, is_success, json_of, named, rejection, text_of
from relay.providers.apis.making import json_request
from relay.providers.apis.message_fields import decoded, fields_of, is_utf8
from relay.providers.apis.places import refused
from relay.providers.reading import dig, identifier, items

_SETTINGS = "x-msys-api"
_TYPES = {"campaign_id": str, "metadata": dict, "options": dict, "tags": list}
_IGNORED = "substitution_data"
"""its SMTP server ignores it, too"""
_ACCOUNT_CODES = ("1303", "1304", "1601", "2101", "2102", "2103", "2105", "7000", "7001")
"""tenant, license, sending limits, sending domain"""
_BUSY_CODES = ("1502", "1900")
_NO_RECIPIENT, _REJECTED = "5002", "1902"
_SENDING_LIMIT = 420
_SUPPRESSED = re.compile(r"suppress", re.IGNORECASE)
_INVALID = re.compile(r"invalid|valid recipient|syntax", re.IGNORECASE)
_ACCOUNT = re.compile(r"sending domain|bounce domain|sandbox|subaccount|limit|ip.?pool", re.IGNORECASE)


def request(mail: ApiMail, call: Call) -> ApiRequest:
    """`POST /api/v1/transmissions`. Open and click tracking are off unless X-MSYS-API turns them on, as with SMTP."""
    settings = _settings(mail) or {}
    tags = {"tags": settings["tags"]} if "tags" in settings else {}
    body: dict[str, Any] = {
        "options": {
            # For other mail SparkPost obeys unsubscriptions, which mustn't keep a code back.
            "transactional": not any(name == "list-unsubscribe" for name, _ in fields_of(mail.content)),
            "open_tracking": False,
            "click_tracking": False,
            **settings.get("options", {}),
            "perform_substitutions": False,
        },
        "recipients": [{"address": {"email": one}, **tags} for one in mail.recipients],
        **{key: settings[key] for key in ("campaign_id", "metadata") if key in settings},
        "content": {"email_rfc822": mail.content.decode()},
    }
    return json_request(f"{call.prefix}/api/v1/transmissions", body, ("Authorization", call.credentials.key))


def _settings(mail: ApiMail) -> dict[str, Any] | None:
    """What X-MSYS-API says. None: it can't be read, or says what the API has no parameter for, such as more
    recipients."""
    values = mail.steering.get(_SETTINGS, ())
    if not values:
        return {}
    try:
        known = json.loads(values[0])
        json.dumps(known, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    if len(values) > 1 or not isinstance(known, dict):
        return None
    settings = {key: value for key, value in known.items() if key != _IGNORED}
    fits = all(key in _TYPES and isinstance(value, _TYPES[key]) for key, value in settings.items())
    return settings if fits else None


def judge(answer: Answer, mail: ApiMail, now: float) -> Verdict:
    """`{"results": {"total_accepted_recipients", "total_rejected_recipients", "id"}}`, or `{"errors": [...]}`."""
    body = json_of(answer)
    if is_success(answer):
        return _counted(answer, mail, body)
    error = next(items(dig(body, "errors")), None)
    code, description = identifier(dig(error, "code")) or "", dig(error, "description")
    text = _text(answer, error)
    if answer.status == _SENDING_LIMIT or code in _ACCOUNT_CODES:
        return Verdict.of_all(mail, Found("account", text))
    if code in _BUSY_CODES:
        return by_status(answer._replace(status=503), mail, text, now)
    if answer.status in (400, 422):
        if code == _NO_RECIPIENT:
            return Verdict.of_all(mail, rejection(text, "5.1.3"))
        if gone := named(mail, description) or named(mail, dig(error, "message")):
            return refused(mail, gone, _rejection(text))
        if code == _REJECTED:
            if _SUPPRESSED.search(text) is not None and len(mail.recipients) == 1:
                return Verdict.of_all(mail, _rejection(text))
            if _ACCOUNT.search(text) is not None:
                return Verdict.of_all(mail, Found("account", text))
    return by_status(answer, mail, text, now)


def _counted(answer: Answer, mail: ApiMail, body: object) -> Verdict:
    """A success by its counts. They don't say which recipients were rejected."""
    results = dig(body, "results")
    accepted, rejected = dig(results, "total_accepted_recipients"), dig(results, "total_rejected_recipients")
    if type(accepted) is not int or type(rejected) is not int:
        return Verdict.of_all(mail, Found("unknown", text_of(answer, "no counts in the answer")))
    esp_id = identifier(dig(results, "id"))
    if rejected == 0 and accepted > 0 and esp_id is not None:
        return Verdict.of_all(mail, Found("sent", esp_id))
    error = next(items(dig(body, "errors")), None) or next(items(dig(results, "rcpt_to_errors")), None)
    text = _text(answer, error, f"{rejected} recipients rejected, {accepted} accepted")
    if accepted == 0 and rejected >= len(mail.recipients):
        return Verdict.of_all(mail, _rejection(text))
    return Verdict.of_all(mail, Found("unknown", text))


def _rejection(text: str) -> Found:
    """A rejected recipient. Only an address that is called invalid is the mailbox's fault."""
    if _SUPPRESSED.search(text) is not None:
        return Found("rejected", text, "5.7.1")
    return rejection(text, "5.1.3" if _INVALID.search(text) is not None else "5.0.0")


def _text(answer: Answer, error: object, default: str | None = None) -> str:
    message, description = identifier(dig(error, "message")), identifier(dig(error, "description"))
    code = identifier(dig(error, "code"))
    said = ": ".join(one for one in (message, description) if one is not None)
    return text_of(answer, f"{said} ({code})" if said and code else said, default)


def why_not(mail: ApiMail) -> str | None:
    """What SparkPost would change or can't read."""
    if not is_utf8(mail.content):
        return "the message isn't UTF-8"
    if _settings(mail) is None:
        return "X-MSYS-API has something that the API has no parameter for"
    for name, value in fields_of(mail.content):
        if "{{" in name or "{{" in value or "{{" in decoded(value):
            return "a header field has {{, which SparkPost substitutes"
    return None


API = Api(
    form="raw",
    url="https://api.sparkpost.com",
    request=request,
    judge=judge,
    recipients=1_000,
    max_bytes=20_000_000,
    why_not=why_not,
    steering=frozenset({_SETTINGS}),
)
