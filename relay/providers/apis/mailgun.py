"""Mailgun: the raw message in a multipart form.

Source: its API reference ("Send an email in MIME format") and "Passing Sending Options" in its user manual, which names
the parameter for each header field that its SMTP server reads. Message-ID stays; it is the id in the answer. The
envelope sender is Mailgun's own.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote

from relay.providers.api import Answer, Api, ApiMail, ApiRequest, Call, Found, Verdict
from relay.providers.apis.answers import (
    MOST_RETRY_S,
    by_status,
    http_date,
    is_success,
    json_of,
    named,
    rejection,
    text_of,
)
from relay.providers.apis.places import refused
from relay.providers.reading import UNREADABLE, dig, identifier, message_id

_VARIABLES = "x-mailgun-variables"
_PARAMETERS = {
    "x-mailgun-tag": "o:tag",
    "x-mailgun-dkim": "o:dkim",
    "x-mailgun-secondary-dkim": "o:secondary-dkim",
    "x-mailgun-secondary-dkim-public": "o:secondary-dkim-public",
    "x-mailgun-drop-message": "o:testmode",
    "x-mailgun-track": "o:tracking",
    "x-mailgun-track-clicks": "o:tracking-clicks",
    "x-mailgun-track-opens": "o:tracking-opens",
    "x-mailgun-track-pixel-location-top": "o:tracking-pixel-location-top",
    "x-mailgun-sending-ip": "o:sending-ip",
    "x-mailgun-sending-ip-pool": "o:sending-ip-pool",
    "x-mailgun-require-tls": "o:require-tls",
    "x-mailgun-skip-verification": "o:skip-verification",
    "x-mailgun-deliver-by": "o:deliverytime",
    "x-mailgun-deliver-within": "o:deliver-within",
    "x-mailgun-delivery-time-optimize-period": "o:deliverytime-optimize-period",
    "x-mailgun-time-zone-localize": "o:time-zone-localize",
    "x-mailgun-archive-to": "o:archive-to",
    "x-mailgun-suppress-headers": "o:suppress-headers",
    "x-mailgun-recipient-variables": "recipient-variables",
    "x-mailgun-template-name": "template",
    "x-mailgun-template-version": "t:version",
    "x-mailgun-template-variables": "t:variables",
}
_ACCEPTED = "Queued"
_BAD_PATH = "Mailgun Magnificent API"
"""what it answers, with 200, to a path that it doesn't know"""
_ACCOUNT = re.compile(
    r"test purposes only|not allowed to send|unverified|disabled|suspended|upgrade|authorized recipients"
    r"|domain not found",
    re.IGNORECASE,
)
_BAD_RECIPIENT = re.compile(r"'?\bto'? parameter is not a valid address|cannot parse to address", re.IGNORECASE)
_AFTER = re.compile(r"try again after ([^\r\n]{10,64})", re.IGNORECASE)


def request(mail: ApiMail, call: Call) -> ApiRequest:
    """`POST /v3/DOMAIN/messages.mime`. The user name is the domain, or its SMTP login; else From's domain counts."""
    parts = [_part(name, value) for name, value in _fields(mail)]
    boundary = _boundary(call.idempotency_key, b"".join(parts), mail.content)
    parts.append(
        b'Content-Disposition: form-data; name="message"; filename="message.mime"\r\n'
        b"Content-Type: message/rfc822\r\n\r\n%b\r\n" % mail.content
    )
    line = b"--" + boundary
    body = b"".join(b"%b\r\n%b" % (line, part) for part in parts) + line + b"--\r\n"
    key = b64encode(f"api:{call.credentials.key}".encode()).decode()
    headers = (
        ("Authorization", f"Basic {key}"),
        ("Content-Type", f"multipart/form-data; boundary={boundary.decode()}"),
        ("Accept", "application/json"),
    )
    domain = (call.credentials.username or mail.author).rpartition("@")[2]
    return ApiRequest(f"{call.prefix}/v3/{quote(_ascii(domain), safe='')}/messages.mime", headers, body)


def _fields(mail: ApiMail) -> Iterator[tuple[str, str]]:
    """All parts of the form but the message."""
    yield "to", ",".join(mail.recipients)
    for header, parameter in _PARAMETERS.items():
        for value in mail.steering.get(header, ()):
            yield parameter, value.strip()
    for name, variable in (_variables(mail) or {}).items():
        yield f"v:{name}", variable if isinstance(variable, str) else json.dumps(variable)


def _variables(mail: ApiMail) -> dict[str, object] | None:
    """What X-Mailgun-Variables holds. None: it isn't a JSON object."""
    known: dict[str, object] = {}
    for text in mail.steering.get(_VARIABLES, ()):
        try:
            value = json.loads(text)
            if not isinstance(value, dict):
                return None
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return None
        known.update(value)
    return known


def _part(name: str, value: str) -> bytes:
    # The names are percent-encoded as in browsers (HTML 4.10.22.8).
    safe = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    return f'Content-Disposition: form-data; name="{safe}"\r\n\r\n{value}\r\n'.encode("utf-8", "surrogateescape")


def _boundary(key: str, *texts: bytes) -> bytes:
    """The same for the same request, and nowhere in the texts."""
    boundary = hashlib.sha256(key.encode()).hexdigest()[:40].encode()
    while any(boundary in text for text in texts):
        boundary = hashlib.sha256(boundary).hexdigest()[:40].encode()
    return boundary


def _ascii(domain: str) -> str:
    try:
        return domain if domain.isascii() else domain.encode("idna").decode()
    except UnicodeError:
        return domain


def judge(answer: Answer, mail: ApiMail, now: float) -> Verdict:
    """`{"id": "<Message-ID>", "message": "Queued. Thank you."}`, or `{"message"}`; 401 is plain text."""
    body = json_of(answer)
    message = dig(body, "message")
    text = text_of(answer, message, _plain(answer) if body is UNREADABLE else None)
    if is_success(answer):
        if isinstance(message, str) and message.startswith(_ACCEPTED):
            esp_id = dig(body, "id")
            return Verdict.of_all(mail, Found("sent", message_id(esp_id) or identifier(esp_id) or ""))
        # A 200 alone says nothing.
        return Verdict.of_all(mail, Found("account" if _BAD_PATH in text else "unknown", text))
    if answer.status == 429:
        verdict = by_status(answer, mail, text, now)
        return verdict if verdict.retry_after_s is not None else verdict._replace(retry_after_s=_wait_s(text, now))
    if answer.status == 400:
        if _ACCOUNT.search(text) is not None:
            return Verdict.of_all(mail, Found("account", text))
        if _BAD_RECIPIENT.search(text) is not None:
            gone = named(mail, message) or (mail.recipients if len(mail.recipients) == 1 else ())
            if gone:
                return refused(mail, gone, rejection(text, "5.1.3"))
    return by_status(answer, mail, text, now)


def _plain(answer: Answer) -> str | None:
    """The body where it is a text for people."""
    is_page = answer.body is None or answer.body.lstrip()[:1] == b"<"
    return None if is_page or answer.body is None else answer.body[:2_000].decode("utf-8", "replace")


def _wait_s(text: str, now: float) -> float | None:
    """Seconds to the date in `request limit exceeded, try again after DATE`."""
    found = _AFTER.search(text)
    at = http_date(found[1]) if found is not None else None
    return None if at is None else min(max(at - now, 0.0), MOST_RETRY_S)


def why_not(mail: ApiMail) -> str | None:
    """Variables that can't be read would be lost."""
    return "X-Mailgun-Variables isn't a JSON object" if _variables(mail) is None else None


API = Api(
    form="raw",
    url="https://api.mailgun.net",
    request=request,
    judge=judge,
    recipients=1_000,
    max_bytes=25_000_000,
    why_not=why_not,
    steering=frozenset({*_PARAMETERS, _VARIABLES}),
)
