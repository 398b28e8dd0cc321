"""Replies and notes that a store writes by itself: the same in every store."""

from __future__ import annotations

from relay.mail.reply import Reply
from relay.store.model import MOST_DEATHS, Recovered

DROPPED = "dropped by the operator"
UNKNOWN = str(Reply.own(451, "4.3.2", "the relay ended before the upstream answered"))
"""the reply of a recipient whose final dot was marked when the relay ended"""

_IN_HAND = "the relay ended while it had this message in hand"
_RECOVERED = {
    "queued": f"{_IN_HAND}: an upstream may have it already",
    "ambiguous": "the relay ended before the upstream answered: it may have this message",
    "held": f"held: the relay ended {MOST_DEATHS} times while it had this message in hand",
}


def recovered_note(one: Recovered, *, is_marked: bool) -> str:
    """The note of a recovered message. `is_marked`: its lane marks final dots, so no upstream has what is `queued`."""
    return _IN_HAND if is_marked and one.state == "queued" else _RECOVERED[one.state]
