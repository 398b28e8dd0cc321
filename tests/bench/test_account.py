"""The soak's bookkeeping finds what it is there to find."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bench.account import Kill, Logged, Seen, Submitted, account, faults

TO, FROM = "user@example.net", "app@example.com"
ACKNOWLEDGED, TURNED_AWAY = Submitted("01A", FROM, TO), Submitted(None, FROM, TO)
AT_THE_KILL = (Kill(at=100.0, under_way=1),)


def seen(*at: float, told: bool = False) -> Seen:
    found = Seen()
    for each in at:
        found.note(TO, each)
    if told:
        found.note(FROM, 1.0)
    return found


CASES: list[tuple[Submitted, Logged | None, Seen, Sequence[Kill], str]] = [
    (ACKNOWLEDGED, Logged("sent"), seen(1.0), (), "delivered once"),
    (ACKNOWLEDGED, Logged("sent"), seen(), (), "LOST"),
    (ACKNOWLEDGED, None, seen(1.0), (), "LOST"),
    (ACKNOWLEDGED, Logged("deferred"), seen(), (), "STILL WAITING"),
    (ACKNOWLEDGED, Logged("sent"), seen(1.0, 2.0), (), "DELIVERED TWICE"),
    (ACKNOWLEDGED, Logged("sent", True), seen(1.0, 2.0), (), "delivered more than once: ambiguous, and said so"),
    (ACKNOWLEDGED, Logged("sent"), seen(99.5, 101.0), AT_THE_KILL, "delivered more than once: under way at a kill"),
    (ACKNOWLEDGED, Logged("sent"), seen(90.0, 101.0), AT_THE_KILL, "DELIVERED TWICE"),
    (ACKNOWLEDGED, Logged("bounced"), seen(1.0, told=True), (), "DELIVERED TWICE"),
    (ACKNOWLEDGED, Logged("bounced"), seen(told=True), (), "bounced, and its sender told"),
    (ACKNOWLEDGED, Logged("bounced"), seen(), (), "ENDED WITHOUT A WORD"),
    (ACKNOWLEDGED, Logged("ambiguous", ambiguous=True), seen(1.0), (), "ambiguous, kept for an operator"),
    (TURNED_AWAY, None, seen(1.0), (), "REFUSED, AND DELIVERED"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "logged", "taken", "kills", "verdict"), CASES)
def test_what_became_of_a_message_is_named(
    one: Submitted, logged: Logged | None, taken: Seen, kills: Sequence[Kill], verdict: str
) -> None:
    found = account([one], {TO: logged} if logged else {}, taken, kills)
    assert list(found) == [verdict]
    assert bool(faults(found, kills)) == verdict.isupper()


def test_a_message_that_was_turned_away_and_never_seen_again_is_in_order() -> None:
    assert account([TURNED_AWAY], {}, seen()) == {}


def test_more_duplicates_at_kills_than_sessions_under_way_are_a_fault() -> None:
    found = account([ACKNOWLEDGED] * 2, {TO: Logged("sent")}, seen(99.5, 101.0), AT_THE_KILL)
    assert faults(found, AT_THE_KILL) == {"MORE DUPLICATES THAN SESSIONS UNDER WAY (1)": 2}
