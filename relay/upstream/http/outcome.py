"""What an API's answer means for each recipient, in SMTP's terms: pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relay.config.model import Upstream
from relay.mail.envelope import Recipient
from relay.mail.outcome import Outcome
from relay.mail.reply import Reply
from relay.providers.api import Answer, Api, ApiMail, Found, Kind, Verdict
from relay.upstream.http.connection import Exchange
from relay.upstream.redaction import without_credentials
from relay.upstream.results import GARBLED, LOST, TIMED_OUT, Phase, Result

EARLY = "the answer came before the whole request was sent"


class _Meaning(NamedTuple):
    outcome: Outcome
    code: int
    status: str
    """enhanced status code (RFC 3463)"""
    phase: Phase


_MEANINGS: dict[Kind, _Meaning] = {
    "sent": _Meaning("sent", 250, "2.0.0", "dot"),
    "rejected": _Meaning("refused", 550, "5.6.0", "dot"),
    # RFC 3463 3.7: "Media not supported".
    "unfit": _Meaning("refused", 554, "5.6.1", "mail"),
    "account": _Meaning("refused", 535, "5.7.8", "auth"),
    "throttled": _Meaning("deferred", 450, "4.7.1", "mail"),
    "unavailable": _Meaning("refused", 451, "4.3.0", "mail"),
    "unknown": _Meaning("ambiguous", 451, "4.4.2", "dot"),
    "in_progress": _Meaning("ambiguous", 451, "4.4.2", "dot"),
}


def judged(exchange: Exchange, api: Api, mail: ApiMail, now: float) -> Verdict | None:
    """The API's verdict. None: no answer came that has a status. `now`: seconds since the epoch."""
    answer = exchange.answer
    if answer is None:
        return None
    if not exchange.is_complete and 200 <= answer.status < 300:
        return Verdict.of_all(mail, Found("unknown", f"HTTP {answer.status}: {EARLY}"))
    if answer.body is None and answer.status < 400 and not 200 <= answer.status < 300:
        answer = Answer(answer.status, answer.headers, b"")
    verdict = api.judge(answer, mail, now)
    if len(verdict.found) != len(mail.recipients):
        raise AssertionError("an API's verdict about another number of recipients")
    return verdict


def results(
    verdict: Verdict, recipients: Sequence[tuple[int, Recipient]], config: Upstream, secrets: Sequence[str]
) -> tuple[Result, ...]:
    """One for each recipient. `secrets`: what no reply may show."""
    return tuple(
        _result(found, position, config, secrets)
        for found, (position, _) in zip(verdict.found, recipients, strict=True)
    )


def _result(found: Found, position: int, config: Upstream, secrets: Sequence[str]) -> Result:
    meaning = _MEANINGS[found.kind]
    if found.kind == "sent":
        # As a server says it: `Provider.esp_id` finds the id in it.
        return Result(position, "sent", Reply(250, f"2.0.0 Ok: queued as {found.text}"), "dot")
    status = found.status if found.kind == "rejected" and found.status else meaning.status
    # RFC 5321 4.2: a 5.1.x speaks of the address, as a reply to RCPT does.
    phase: Phase = "rcpt" if found.kind == "rejected" and status.startswith("5.1.") else meaning.phase
    # The user name is a domain, a project or a mailbox here; where it is a secret, the password is the same.
    text = without_credentials(found.text, config.model_copy(update={"username": None}), secrets)
    return Result(position, meaning.outcome, Reply(meaning.code, f"{status} {text}".rstrip()), phase)


def unanswered(exchange: Exchange, recipients: Sequence[tuple[int, Recipient]]) -> tuple[Result, ...]:
    """No answer came: whether the API has the mail is unknown, unless the request never left as a whole."""
    reply = {"timed out": TIMED_OUT, "garbled": GARBLED}.get(exchange.end, LOST)
    outcome: Outcome = "ambiguous" if exchange.is_complete else "abandoned"
    phase: Phase = "dot" if exchange.is_complete else "session"
    return tuple(Result(position, outcome, reply, phase) for position, _ in recipients)
