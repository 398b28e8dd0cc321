"""What became of a message, in a sentence: which upstream has it, how long it took, and where the delay was. Pure.

It reads a message's JSON form (docs/reference.md). No sentence has an address or a subject.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from relay.mail.reply import OWN
from relay.observe.durations import duration

Json = Mapping[str, Any]
SLOW_MS = 10_000.0
"""a code that takes longer has missed the best band"""
_AFTER_THAT = frozenset({"delivered", "bounced", "rejected", "failed", "deferred", "complained"})
"""kinds of an ESP's events that say more than its acceptance"""
_PUT_ASIDE = "an operator's `release` sends it, `drop` ends it"


def added(message: Json) -> dict[str, Any]:
    """The message with a `verdict` of its own and of each recipient."""
    recipients = [{**one, "verdict": of_recipient(message, one)} for one in message["recipients"]]
    return {**message, "verdict": of_message(message), "recipients": recipients}


def of_message(message: Json) -> str:
    """One sentence for all recipients, those with the same verdict together."""
    verdicts = Counter(of_recipient(message, recipient) for recipient in message["recipients"])
    if not verdicts:
        return "it has no recipient"
    if len(verdicts) == 1:
        return next(iter(verdicts))
    total = sum(verdicts.values())
    return "; ".join(f"{count} of {total}: {verdict}" for verdict, count in verdicts.items())


def of_recipient(message: Json, recipient: Json) -> str:
    """What became of the message for this recipient."""
    match recipient["state"]:
        case "sent" | "bounced" if recipient["sent_at"] is not None:
            return _accepted(message, recipient)
        case "bounced":
            return _bounced(message, recipient)
        case "expired":
            return f"expired: no upstream accepted it within its {_life(message, recipient)}{_last(recipient)}"
        case "superseded":
            return f"not sent: a newer message took its place{_because(recipient['reply'])}"
        case "suppressed":
            return f"not sent: the address is suppressed{_because(recipient['reply'])}"
        case "ambiguous":
            return _ambiguous(recipient)
        case "held":
            return f"held, not sent{_because(_last_note(message))}; {_PUT_ASIDE}"
        case "deferred":
            return _deferred(message, recipient)
        case "sending":
            return "being sent now"
        case _:
            due = recipient.get("next_at")
            return "waits to be sent" if due is None or due <= message["accepted_at"] else f"waits until {_second(due)}"


def _accepted(message: Json, recipient: Json) -> str:
    """An upstream has it."""
    upstream, took_ms = recipient["upstream"], _between_ms(message["accepted_at"], recipient["sent_at"])
    text = f"accepted by {upstream} {duration(took_ms)} after your app handed it over"
    if took_ms >= SLOW_MS:
        text += _why_slow(recipient)
    for event in reversed(recipient.get("events", ())):
        if event["source"] == "esp" and event["kind"] in _AFTER_THAT:
            return f"{text}; {_reported(event, recipient)}"
    if recipient["delivered_at"] is not None:
        later_ms = _between_ms(recipient["sent_at"], recipient["delivered_at"])
        return f"{text}; delivered {duration(later_ms)} later"
    if recipient["state"] == "bounced":
        return f"{text}, then bounced{_because(recipient['reply'])}"
    if took_ms >= SLOW_MS:
        return text
    return f"{text}; if it hasn't arrived it is not our delay: ask {upstream}{_for_what(recipient['reply'])}"


def _reported(event: Json, recipient: Json) -> str:
    """What an ESP said last."""
    later = duration(_between_ms(recipient["sent_at"], event["at"]))
    match event["kind"]:
        case "delivered":
            return f"delivered {later} later"
        case "deferred":
            return f"{event['upstream']} has not delivered it {later} later{_because(event['reason'])}"
        case "complained":
            return f"delivered, and reported as spam {later} later"
        case kind:
            return f"{event['upstream']} reported it as {kind} {later} later{_because(event['reason'])}"


def _bounced(message: Json, recipient: Json) -> str:
    if recipient["reply"] == "dropped by the operator":
        return "ended by an operator, not sent"
    by = f" by {recipient['upstream']}" if recipient["upstream"] else ""
    attempts = recipient.get("attempts") or ()
    refusal = next((one for one in reversed(attempts) if one["outcome"] == "refused"), None)
    after = ""
    if refusal is not None:
        ended_ms = _between_ms(message["accepted_at"], refusal["started_at"]) + sum(refusal["timings_ms"].values())
        after = f" {duration(ended_ms)} after your app handed it over"
        by = f" by {refusal['upstream']}"
    return f"refused for good{by}{after}{_because(recipient['reply'])}; nothing more is sent"


def _deferred(message: Json, recipient: Json) -> str:
    tried = len(recipient["attempts"]) if isinstance(recipient.get("attempts"), Sequence) else 0
    times = {0: "", 1: " after one attempt"}.get(tried, f" after {tried} attempts")
    due = f"; next try at {_second(recipient['next_at'])}" if recipient.get("next_at") else ""
    expires = recipient.get("expires_at", message["expires_at"])
    return f"no upstream has accepted it yet{times}{_last(recipient)}{due}; it expires at {_second(expires)}"


def _ambiguous(recipient: Json) -> str:
    by = recipient["upstream"] or "an upstream"
    return (
        f"unknown: {by} got the whole message, but its answer was lost, so it may have it; "
        "a retry may send it a second time"
    )


def _why_slow(recipient: Json) -> str:
    """What came before the acceptance: the attempts that failed."""
    failed = [one for one in recipient.get("attempts") or () if one["outcome"] != "sent"]
    if not failed:
        return ""
    many = "one failed attempt" if len(failed) == 1 else f"{len(failed)} failed attempts"
    return f", behind {many} ({failed[-1]['upstream']}: {_plain(failed[-1]['reply'])})"


def _last(recipient: Json) -> str:
    return f" (last: {_plain(recipient['reply'])})" if recipient["reply"] else ""


def _last_note(message: Json) -> str | None:
    notes = message.get("notes") or ()
    return str(notes[-1]["text"]).removeprefix("held: ") if notes else None


def _because(reason: str | None) -> str:
    return f": {_plain(reason)}" if reason else ""


def _for_what(reply: str | None) -> str:
    """The provider's own name of the message, as far as its reply has one."""
    words = "" if not reply else _plain(reply).lstrip("0123456789. ")
    return f' for "{words}"' if words else ""


def _plain(reply: str) -> str:
    """A reply without the mark of the relay's own."""
    return reply.partition(OWN)[2] if OWN in reply else reply


def _life(message: Json, recipient: Json) -> str:
    return duration(_between_ms(message["accepted_at"], recipient.get("expires_at", message["expires_at"])))


def _second(at: str) -> str:
    """A time without its milliseconds."""
    return f"{datetime.fromisoformat(at):%Y-%m-%dT%H:%M:%SZ}"


def _between_ms(begin: str, end: str) -> float:
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds() * 1000)
