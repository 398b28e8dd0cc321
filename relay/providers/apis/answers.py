"""What answers of HTTP APIs have in common: JSON, the meaning of a status, Retry-After."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

from relay.providers.api import Answer, ApiMail, Found, Kind, Verdict, same
from relay.providers.outcome import status_in
from relay.providers.reading import UNREADABLE, dig, first, items, line, read_json

MOST_RETRY_S = 3600.0
"""a longer Retry-After is cut: the upstream is asked again then"""
_SECONDS = re.compile(r"\d{1,10}(?:\.\d{1,9})?", re.ASCII)
_ACCOUNT = (401, 402, 403, 404, 405, 407, 410, 421, 426, 451)
"""the key, the account or the URL: none of them is the mail's fault"""
_ADDRESS = re.compile(r"[^\s<>\"'(),;:\[\]]+@[^\s<>\"'(),;:\[\]]+")


def json_of(answer: Answer) -> object:
    """The body as JSON; UNREADABLE where it isn't."""
    return UNREADABLE if answer.body is None else read_json(answer.body)


def is_success(answer: Answer) -> bool:
    return 200 <= answer.status < 300


def text_of(answer: Answer, *values: object) -> str:
    """The ESP's words for an operator: `HTTP 401: ...`. `values`: the first that is a text counts."""
    said = first(line(value, 300) for value in values)
    return f"HTTP {answer.status}" + (f": {said}" if said else "")


def accepted(answer: Answer, mail: ApiMail, esp_id: str | None, missing: str) -> Verdict:
    """A success for all recipients. Without the ESP's id it isn't known whether it is one: `missing` says so."""
    found = Found("unknown", text_of(answer, missing)) if esp_id is None else Found("sent", esp_id)
    return Verdict.of_all(mail, found)


def for_each(mail: ApiMail, listed: object, key: str) -> list[object]:
    """What a list of objects has for each recipient of the mail: that which has its address under `key`, or None."""
    by_address = {same(address): one for one in items(listed) if isinstance(address := dig(one, key), str)}
    return [by_address.get(same(one)) for one in mail.recipients]


def by_status(answer: Answer, mail: ApiMail, text: str, now: float, *, default: Kind = "unfit") -> Verdict:
    """What a status other than 2xx means where the ESP's own codes say nothing. `default`: a 4xx about the request."""
    status = answer.status
    if status == 429:
        return Verdict.of_all(mail, Found("throttled", text), retry_after_s(answer, now))
    if status == 504:
        return Verdict.of_all(mail, Found("unknown", text))
    if status >= 500 or status == 408:
        # A Retry-After beside 503 asks for the same pause.
        wait_s = retry_after_s(answer, now)
        return Verdict.of_all(mail, Found("unavailable" if wait_s is None else "throttled", text), wait_s)
    if status < 400:
        return Verdict.of_all(mail, Found("account", f"HTTP {status}: a redirect isn't followed; see api.url"))
    if status in _ACCOUNT:
        return Verdict.of_all(mail, Found("account", text))
    return Verdict.of_all(mail, Found(default, text))


def retry_after_s(answer: Answer, now: float, *more: str) -> float | None:
    """Seconds to wait, out of Retry-After (seconds or a date, RFC 9110 10.2.3) or another field that has seconds or
    a time. None: the answer doesn't say."""
    for name in ("retry-after", *more):
        value = answer.headers.get(name, "").strip()
        if _SECONDS.fullmatch(value):
            number = float(value)
            wait_s = number - now if number > 1e9 else number  # a time, as X-RateLimit-Reset has it
            return min(max(wait_s, 0.0), MOST_RETRY_S)
        if value and (at := http_date(value)) is not None:
            return min(max(at - now, 0.0), MOST_RETRY_S)
    return None


def http_date(value: str) -> float | None:
    """A date of RFC 5322 or RFC 9110 as seconds since the epoch; None: it is none."""
    try:
        when = parsedate_to_datetime(value[:64])
        return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def rejection(text: str, default: str = "5.6.0") -> Found:
    """The recipient's end, with the enhanced status code that the text has."""
    status = status_in(text)
    return Found("rejected", text, status if status is not None and status.startswith("5") else default)


def named(mail: ApiMail, text: object) -> Sequence[str]:
    """Recipients of the mail that the ESP's text names."""
    if not isinstance(text, str):
        return ()
    known = {one.lower(): one for one in mail.recipients}
    found = _ADDRESS.findall(text[:10_000])
    return [known[one] for each in found if (one := each.strip(".").lower()) in known]
