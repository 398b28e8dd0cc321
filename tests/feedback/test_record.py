"""What is recorded of an event: when it happened, and how long it took at most."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from relay.feedback.record import recording
from relay.providers.webhook import EspEvent
from relay.store.events import EventSelection
from relay.store.sqlite.events_reader import EventsReader, arrivals
from relay.store.sqlite.locate import Located
from tests.feedback.rooms import AT, relay_id, room
from tests.store.build import NOW

ACCEPTED, SENT = NOW + 0.25, NOW + 0.5
ONE = Located("01M", 0, "user@example.net", "otp", "example.net", ACCEPTED, "postmark", "250 ok", SENT, "<a@b>", "01M")
TIMES: dict[str, tuple[str, float | None, float, float, float]] = {
    # by the upstream, the ESP's time, received at: the time shown, and the latest
    "in the second of the acceptance": ("postmark", NOW, NOW + 5, NOW + 0.999, NOW + 0.999),
    "received within that second": ("postmark", NOW, NOW + 0.75, NOW + 0.75, NOW + 0.75),
    "later": ("postmark", NOW + 2, NOW + 5, NOW + 2, NOW + 2.999),
    "received within its second": ("postmark", NOW + 2, NOW + 2.25, NOW + 2, NOW + 2.25),
    "by a clock that is behind": ("postmark", NOW - 30, NOW + 5, SENT, SENT),
    "by another upstream's clock": ("ses", NOW - 30, NOW + 5, ACCEPTED, ACCEPTED),
    "by a clock that is ahead": ("postmark", NOW + 9, NOW + 5, NOW + 9, NOW + 9),
    "with a fraction": ("postmark", NOW + 2.125, NOW + 5, NOW + 2.125, NOW + 2.125),
    "with a fraction before the acceptance": ("postmark", NOW + 0.125, NOW + 5, SENT, SENT),
    "without a time": ("postmark", None, NOW + 5.5, NOW + 5.5, NOW + 5.5),
}


@pytest.mark.parametrize(("upstream", "at", "now", "shown", "latest"), TIMES.values(), ids=list(TIMES))
def test_an_event_is_not_before_its_message_and_no_faster_than_it_can_have_been(
    upstream: str, at: float | None, now: float, shown: float, latest: float
) -> None:
    event = recording(EspEvent("delivered", "k", "user@example.net", at), ONE, upstream, (), now).event
    assert (event.at, event.latest_at) == pytest.approx((shown, latest), abs=1e-6)


async def test_a_time_of_whole_seconds_is_shown_as_it_is_and_counted_to_its_end(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        sent = await here.sent("user@example.net")
        assert (await here.post(Metadata=relay_id(sent))).status == 200
        path = tmp_path / "relay-events.db"
        with closing(EventsReader(path)) as reader:
            (row,) = reader.search(EventSelection())
            ((reported,),) = reader.reported_slices(NOW - 1)
        assert row.event.at == NOW + 3
        assert row.event.latest_at == NOW + 3.999
        assert reported.after_ms == 3990
        assert [one.after_s for one in arrivals(path, NOW, ("otp",))] == pytest.approx([3.999])
        assert AT > NOW + 3.999
