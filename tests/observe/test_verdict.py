"""What became of a message, in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from relay.observe import verdict

DELIVERED = "2027-01-15T08:00:02.500Z"
OWN = "451 4.4.1 otp-relay: connection refused"


def recipient(state: str, **more: Any) -> dict[str, Any]:
    blank: dict[str, Any] = {"upstream": None, "reply": None, "sent_at": None, "delivered_at": None}
    return {"address": "user@example.net", "state": state, **blank, "attempts": [], "events": [], **more}


def sent(state: str = "sent", at: str = "00.400", **more: Any) -> dict[str, Any]:
    accepted = {"upstream": "ses", "reply": "250 2.0.0 queued as 8", "sent_at": f"2027-01-15T08:00:{at}Z"}
    return recipient(state, **{**accepted, **more})


def event(kind: str, at: str, reason: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "source": "esp", "upstream": "ses", "at": f"2027-01-15T08:{at}Z", "reason": reason}


def attempt(outcome: str, reply: str, upstream: str = "ses") -> dict[str, Any]:
    at = "2027-01-15T08:00:00.100Z"
    return {
        "outcome": outcome,
        "reply": reply,
        "upstream": upstream,
        "started_at": at,
        "timings_ms": {"envelope": 50.0},
    }


def message(*recipients: dict[str, Any], **more: Any) -> dict[str, Any]:
    times = {"accepted_at": "2027-01-15T08:00:00.000Z", "expires_at": "2027-01-15T08:10:00.000Z"}
    return {"id": "01J", "subject": "Your code", **times, "notes": [], "recipients": list(recipients), **more}


VERDICTS = [
    (
        sent(),
        "accepted by ses 400 ms after your app handed it over; if it hasn't arrived it is not our delay: "
        'ask ses for "queued as 8"',
    ),
    (
        sent(reply="250"),
        "accepted by ses 400 ms after your app handed it over; if it hasn't arrived it is not our delay: ask ses",
    ),
    (
        sent(delivered_at=DELIVERED, events=[event("delivered", "00:02.500"), event("opened", "01:00.0")]),
        "accepted by ses 400 ms after your app handed it over; delivered 2.1 s later",
    ),
    (
        sent(delivered_at=DELIVERED),
        "accepted by ses 400 ms after your app handed it over; delivered 2.1 s later",
    ),
    (
        sent(events=[event("deferred", "00:05.400", "452 mailbox full")]),
        "accepted by ses 400 ms after your app handed it over; ses has not delivered it 5.0 s later: 452 mailbox full",
    ),
    (
        sent("bounced", reply="550 gone", events=[event("bounced", "00:01.400", "550 gone")]),
        "accepted by ses 400 ms after your app handed it over; ses reported it as bounced 1.0 s later: 550 gone",
    ),
    (
        sent("bounced", reply="550 no such user"),
        "accepted by ses 400 ms after your app handed it over, then bounced: 550 no such user",
    ),
    (
        sent(delivered_at=DELIVERED, events=[event("delivered", "00:02.5"), event("complained", "09:00.400")]),
        "accepted by ses 400 ms after your app handed it over; delivered, and reported as spam 9 min later",
    ),
    (
        sent(at="42.000", attempts=[attempt("deferred", OWN, "postmark"), attempt("sent", "250 ok")]),
        "accepted by ses 42.0 s after your app handed it over, "
        "behind one failed attempt (postmark: connection refused)",
    ),
    (
        recipient("bounced", upstream="ses", reply="550 5.1.1 no", attempts=[attempt("refused", "550 5.1.1 no")]),
        "refused for good by ses 150 ms after your app handed it over: 550 5.1.1 no; nothing more is sent",
    ),
    (
        recipient("bounced", reply="554 5.6.1 otp-relay: the API can't carry it"),
        "refused for good: the API can't carry it; nothing more is sent",
    ),
    (recipient("bounced", reply="dropped by the operator"), "ended by an operator, not sent"),
    (
        recipient("expired", reply=OWN),
        "expired: no upstream accepted it within its 10 min (last: connection refused)",
    ),
    (recipient("superseded", reply="superseded by 01K"), "not sent: a newer message took its place: superseded by 01K"),
    (
        recipient("suppressed", reply="550 5.7.1 otp-relay: bounced before"),
        "not sent: the address is suppressed: bounced before",
    ),
    (
        recipient("ambiguous", upstream="ses"),
        "unknown: ses got the whole message, but its answer was lost, so it may have it; "
        "a retry may send it a second time",
    ),
    (recipient("held"), "held, not sent; an operator's `release` sends it, `drop` ends it"),
    (recipient("sending"), "being sent now"),
    (recipient("queued"), "waits to be sent"),
    (recipient("queued", next_at="2027-01-15T08:00:30.000Z"), "waits until 2027-01-15T08:00:30Z"),
    (
        recipient("deferred", reply=OWN, next_at="2027-01-15T08:00:30.000Z", attempts=[attempt("deferred", OWN)] * 2),
        "no upstream has accepted it yet after 2 attempts (last: connection refused); "
        "next try at 2027-01-15T08:00:30Z; it expires at 2027-01-15T08:10:00Z",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("one", "said"), VERDICTS, ids=[said[:60] for _, said in VERDICTS])
def test_a_recipient_has_one_sentence(one: dict[str, Any], said: str) -> None:
    assert verdict.of_recipient(message(one), one) == said
    assert verdict.of_message(message(one)) == said


def test_a_held_message_says_why() -> None:
    note = {"at": "2027-01-15T08:00:00.000Z", "text": "held: its content can't be read"}
    one = recipient("held")
    assert verdict.of_recipient(message(one, notes=[note]), one).startswith(
        "held, not sent: its content can't be read; "
    )


def test_recipients_with_the_same_sentence_are_counted_together() -> None:
    shown = verdict.added(message(sent(), sent(), recipient("sending")))
    accepted = verdict.of_recipient(shown, sent())
    assert shown["verdict"] == f"2 of 3: {accepted}; 1 of 3: being sent now"
    assert [one["verdict"] for one in shown["recipients"]] == [accepted, accepted, "being sent now"]
